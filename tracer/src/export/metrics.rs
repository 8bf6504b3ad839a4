//! Metrics over OTLP, while the agent runs: its own counters, and how long the commands of its targets took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram as OtlpHistogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_semantic_conventions::SCHEMA_URL;
use prost::Message;
use tokio::sync::oneshot;

use super::otlp::encode::Request;
use super::otlp::{OtlpClient, convert};
use super::{ExporterStats, Tally};
use crate::model::{Attribute, Value};
use crate::trace::durations::BOUNDS;
use crate::trace::{Durations, Histogram};

/// The one counter that falls again: spans on disk now.
const SPOOLED: &str = "tracer.spans.spooled";

/// A counter that only grows, but for the spans in a spool.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter {
    /// Name, such as `tracer.spans`.
    pub name: &'static str,
    /// What tells it from others of its name.
    pub attributes: Vec<Attribute>,
    /// Its value since the agent started.
    pub value: u64,
}

/// A histogram of a service, cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// Name, such as `db.client.operation.duration`.
    pub name: &'static str,
    /// `service.name` of the target.
    pub service: Arc<str>,
    /// What tells it from others of its name.
    pub attributes: Vec<Attribute>,
    /// Durations, counted in seconds.
    pub histogram: Histogram,
}

/// Everything that goes out at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of the agent.
    pub counters: Vec<Counter>,
    /// Of its targets.
    pub histograms: Vec<HistogramPoint>,
}

/// How long commands took, as the semantic conventions name it, and its parts.
pub fn histograms(durations: &Durations) -> Vec<HistogramPoint> {
    let mut points = Vec::new();
    for (series, figures) in durations.iter() {
        let mut attributes: Vec<Attribute> = vec![
            ("db.system.name".into(), Value::Str("redis".into())),
            ("db.operation.name".into(), Value::Str(series.operation.clone())),
        ];
        match series.server.rsplit_once(':') {
            Some((address, port)) => {
                attributes.push(("server.address".into(), Value::Str(address.to_owned().into())));
                attributes.extend(port.parse().ok().map(|port| ("server.port".into(), Value::Int(port))));
            }
            None => attributes.push(("network.transport".into(), Value::Str(Arc::clone(&series.server).into()))),
        }
        for (name, histogram) in [
            ("db.client.operation.duration", &figures.duration),
            ("tracer.redis.queue", &figures.queue),
            ("tracer.redis.service", &figures.service),
            ("tracer.redis.network", &figures.network),
        ] {
            if histogram.count > 0 {
                let (service, attributes) = (Arc::clone(&series.service), attributes.clone());
                points.push(HistogramPoint { name, service, attributes, histogram: histogram.clone() });
            }
        }
    }
    points
}

/// The balance of exporters as counters.
pub fn export_counters(stats: &[ExporterStats]) -> Vec<Counter> {
    let attribute = |key: &'static str, value: &str| (key.into(), Value::Str(value.to_owned().into()));
    let mut counters = Vec::new();
    for stats in stats {
        let exporter = attribute("tracer.exporter", &stats.name);
        let mut push = |name, attributes, value| counters.push(Counter { name, attributes, value });
        push("tracer.spans.accepted", vec![exporter.clone()], stats.accepted);
        push("tracer.spans.exported", vec![exporter.clone()], stats.exported);
        push("tracer.spans.recovered", vec![exporter.clone()], stats.recovered);
        push("tracer.spans.exported_from_spool", vec![exporter.clone()], stats.exported_from_spool);
        push(SPOOLED, vec![exporter.clone()], stats.spooled);
        for (cause, &spans) in &stats.dropped {
            push("tracer.spans.dropped", vec![exporter.clone(), attribute("tracer.cause", cause)], spans);
        }
    }
    counters
}

/// A running exporter of counters; they are sent once more when it is shut down.
#[derive(Debug)]
pub struct MetricsExporter {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    tally: Arc<Tally>,
}

impl MetricsExporter {
    /// Asks `snapshot` for the metrics each `interval`, on the current tokio runtime.
    pub fn start(
        mut client: OtlpClient,
        interval: Duration,
        resource: Vec<Attribute>,
        snapshot: impl Fn() -> Snapshot + Send + 'static,
    ) -> Self {
        let tally = Arc::new(Tally::new(format!("otlp-metrics:{}", client.endpoint())));
        let (stop, mut stopped) = oneshot::channel();
        let counting = Arc::clone(&tally);
        let start = SystemTime::now();
        let task = tokio::spawn(async move {
            loop {
                let last = tokio::time::timeout(interval, &mut stopped).await.is_ok();
                let metrics = snapshot();
                let points = (metrics.counters.len() + metrics.histograms.len()) as u64;
                let body = request(&resource, metrics, start, SystemTime::now()).encode_to_vec();
                counting.accept(points);
                client.send(Request { body: Bytes::from(body), spans: points }, &counting).await;
                if last {
                    return;
                }
            }
        });
        Self { stop, task, tally }
    }

    /// Sends the counters a last time, for at most this long; what became of the data points.
    pub async fn shutdown(self, deadline: Duration) -> ExporterStats {
        drop(self.stop);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(deadline, self.task).await.is_err() {
            abort.abort();
        }
        self.tally.close()
    }
}

fn request(
    resource: &[Attribute],
    snapshot: Snapshot,
    start: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let mut metrics: Vec<Metric> = Vec::new();
    for counter in snapshot.counters {
        let point = NumberDataPoint {
            attributes: convert::attributes(&counter.attributes),
            start_time_unix_nano: unix_ns(start),
            time_unix_nano: unix_ns(now),
            value: Some(number_data_point::Value::AsInt(counter.value.try_into().unwrap_or(i64::MAX))),
            ..Default::default()
        };
        match metrics.iter_mut().find(|metric| metric.name == counter.name).and_then(|metric| metric.data.as_mut()) {
            Some(metric::Data::Sum(sum)) => sum.data_points.push(point),
            _ => metrics.push(Metric {
                name: counter.name.into(),
                data: Some(metric::Data::Sum(Sum {
                    data_points: vec![point],
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: counter.name != SPOOLED,
                })),
                ..Default::default()
            }),
        }
    }
    let mut all = vec![of_resource(resource, metrics)];
    all.extend(of_services(snapshot.histograms, start, now));
    ExportMetricsServiceRequest { resource_metrics: all }
}

/// The histograms of each service, under a resource of its name.
fn of_services(points: Vec<HistogramPoint>, start: SystemTime, now: SystemTime) -> Vec<ResourceMetrics> {
    let mut services: BTreeMap<Arc<str>, BTreeMap<&'static str, Vec<HistogramDataPoint>>> = BTreeMap::new();
    for point in points {
        let data = HistogramDataPoint {
            attributes: convert::attributes(&point.attributes),
            start_time_unix_nano: unix_ns(start),
            time_unix_nano: unix_ns(now),
            count: point.histogram.count,
            sum: Some(point.histogram.sum_ns as f64 / 1e9),
            max: Some(point.histogram.max_ns as f64 / 1e9),
            bucket_counts: point.histogram.buckets.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            ..Default::default()
        };
        services.entry(point.service).or_default().entry(point.name).or_default().push(data);
    }
    services
        .into_iter()
        .map(|(service, metrics)| {
            let metrics = metrics.into_iter().map(|(name, data_points)| Metric {
                name: name.into(),
                unit: "s".into(),
                data: Some(metric::Data::Histogram(OtlpHistogram {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                })),
                ..Default::default()
            });
            of_resource(&[("service.name".into(), Value::Str(service.into()))], metrics.collect())
        })
        .collect()
}

fn of_resource(resource: &[Attribute], metrics: Vec<Metric>) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(OtlpResource { attributes: convert::attributes(resource), ..Default::default() }),
        scope_metrics: vec![ScopeMetrics { scope: Some(convert::scope()), metrics, schema_url: SCHEMA_URL.into() }],
        schema_url: SCHEMA_URL.into(),
    }
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

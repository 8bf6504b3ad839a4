//! The agent's own counters over OTLP, while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_semantic_conventions::SCHEMA_URL;
use prost::Message;
use tokio::sync::oneshot;

use super::otlp::encode::Request;
use super::otlp::{OtlpClient, convert};
use super::{ExporterStats, Tally};
use crate::trace::span::{Attribute, Value};

/// A counter that only grows.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter {
    /// Name, such as `tracer.spans`.
    pub name: &'static str,
    /// What tells it from others of its name.
    pub attributes: Vec<Attribute>,
    /// Its value since the agent started.
    pub value: u64,
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
    /// Asks `snapshot` for the counters each `interval`, on the current tokio runtime.
    pub fn start(
        mut client: OtlpClient,
        interval: Duration,
        resource: Vec<Attribute>,
        snapshot: impl Fn() -> Vec<Counter> + Send + 'static,
    ) -> Self {
        let tally = Arc::new(Tally::new(format!("otlp-metrics:{}", client.endpoint())));
        let (stop, mut stopped) = oneshot::channel();
        let counting = Arc::clone(&tally);
        let start = SystemTime::now();
        let task = tokio::spawn(async move {
            loop {
                let last = tokio::time::timeout(interval, &mut stopped).await.is_ok();
                let counters = snapshot();
                let points = counters.len() as u64;
                let body = request(&resource, counters, start, SystemTime::now()).encode_to_vec();
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
        self.tally.stats().close()
    }
}

fn request(
    resource: &[Attribute],
    counters: Vec<Counter>,
    start: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let mut metrics: Vec<Metric> = Vec::new();
    for counter in counters {
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
                    is_monotonic: true,
                })),
                ..Default::default()
            }),
        }
    }
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(OtlpResource { attributes: convert::attributes(resource), ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(convert::scope()), metrics, schema_url: SCHEMA_URL.into() }],
            schema_url: SCHEMA_URL.into(),
        }],
    }
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

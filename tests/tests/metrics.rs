//! How long commands took, as histograms in a real third-party collector.
#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::path::Path;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, HistogramDataPoint, metric};
use tracer_tests::rotel::{self, Collector, Sink};
use tracer_tests::{Agent, RedisServer, require_root, waits};

const GETS: u64 = 2_000;
const PARTS: [&str; 3] = ["tracer.redis.queue", "tracer.redis.service", "tracer.redis.network"];

fn text(attributes: &[KeyValue], name: &str) -> String {
    let value =
        attributes.iter().find(|attribute| attribute.key == name).and_then(|attribute| attribute.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{name}: {other:?} of {attributes:?}"),
    }
}

/// The latest figures of an operation of a service.
fn latest<'a>(
    requests: &'a [ExportMetricsServiceRequest],
    service: &str,
    name: &str,
    operation: &str,
) -> Option<&'a HistogramDataPoint> {
    let of_service = requests
        .iter()
        .flat_map(|request| &request.resource_metrics)
        .filter(|metrics| text(&metrics.resource.as_ref().unwrap().attributes, "service.name") == service);
    let metrics = of_service.flat_map(|metrics| &metrics.scope_metrics).flat_map(|scope| &scope.metrics);
    let histograms = metrics.filter(|metric| metric.name == name).map(|metric| match &metric.data {
        Some(metric::Data::Histogram(histogram)) => {
            assert_eq!(histogram.aggregation_temporality(), AggregationTemporality::Cumulative);
            assert_eq!(metric.unit, "s");
            histogram
        }
        other => panic!("no histogram: {other:?}"),
    });
    let points = histograms.flat_map(|histogram| &histogram.data_points);
    points
        .filter(|point| text(&point.attributes, "db.operation.name") == operation)
        .max_by_key(|point| point.time_unix_nano)
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_and_their_parts_are_histograms_also_without_spans() {
    require_root();
    let server = RedisServer::start();
    let program = rotel::agent(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    for sampler in ["always_on", "always_off"] {
        let directory = tempfile::tempdir().unwrap();
        let sink = Sink::start().await.unwrap();
        let collector = Collector::start(&program, directory.path(), sink.address).unwrap();
        server.ask("CONFIG RESETSTAT");
        let mut service = waits::service("getter", &format!("redis://{}/", server.address()));
        let (pid, otlp) = (service.pid().to_string(), format!("otlp:http://{}", collector.http));
        let mut agent = Agent::run(&["-p", &pid, "--export", &otlp, "--sampler", sampler]);
        service.ask("run 1 PING");
        agent.wait_until("as a server");
        service.ask(&format!("run {GETS} GET k"));
        service.ask("run 3 DEBUG SLEEP 0.05");
        assert!(service.end().success());
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(outcome.spans.is_empty(), sampler == "always_off", "{:#}", outcome.stats);

        let requests = sink
            .take_metrics(|requests| {
                let gets = latest(requests, "getter", "db.client.operation.duration", "GET");
                gets.is_some_and(|gets| gets.count >= GETS)
            })
            .unwrap();
        let figures = |name: &str, operation: &str| latest(&requests, "getter", name, operation).unwrap();
        let gets = figures("db.client.operation.duration", "GET");
        assert_eq!(gets.count, server.command_calls()["get"], "{sampler}");
        assert_eq!(gets.count, gets.bucket_counts.iter().sum::<u64>());
        assert_eq!(gets.bucket_counts.len(), gets.explicit_bounds.len() + 1);
        assert_eq!(text(&gets.attributes, "db.system.name"), "redis");
        assert_eq!(text(&gets.attributes, "server.address"), "127.0.0.1");
        assert_eq!(text(&gets.attributes, "server.port"), server.port().to_string());
        // The parts add up.
        let sum: f64 = PARTS.iter().map(|part| figures(part, "GET").sum.unwrap()).sum();
        for part in PARTS {
            assert_eq!(figures(part, "GET").count, GETS, "{sampler} {part}: {:#}", outcome.stats);
        }
        assert!((sum - gets.sum.unwrap()).abs() < 1e-6, "{sum} s of {gets:?}");
        // Each sleep was served for 50 ms and waited for nobody.
        let (served, waited) = (figures("tracer.redis.service", "DEBUG"), figures("tracer.redis.queue", "DEBUG"));
        assert_eq!((served.count, waited.count), (3, 3));
        assert!(served.sum.unwrap() >= 0.15 && served.max.unwrap() >= 0.05, "{served:?}");
        assert!(waited.sum.unwrap() < 0.1, "{waited:?}");
    }
}

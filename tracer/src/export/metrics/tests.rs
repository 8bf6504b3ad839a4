#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use super::*;
use crate::export::otlp::{Retry, Settings, Signal};
use crate::export::testing::{HttpCollector, resource};
use crate::trace::span::Value;

fn counters(value: u64) -> Vec<Counter> {
    ["queue_full", "rejected"]
        .map(|cause| Counter {
            name: "tracer.spans.dropped",
            attributes: vec![("cause".into(), Value::Str(cause.into()))],
            value,
        })
        .into()
}

#[tokio::test]
async fn counters_arrive_as_cumulative_sums_and_once_more_at_the_end() {
    let collector = HttpCollector::start(&[("200 OK", b"")]).await;
    let url = format!("http://{}", collector.address);
    let settings = Settings::resolve(Signal::Metrics, Some(&url), &|_| None).unwrap();
    let client = OtlpClient::new(settings, Retry::default()).unwrap();
    let exporter = MetricsExporter::start(
        client,
        Duration::from_secs(3_600),
        resource().attributes,
        || counters(7),
    );
    let stats = exporter.shutdown(Duration::from_secs(20)).await;
    assert_eq!((stats.accepted, stats.exported), (2, 2));
    let seen = collector.requests().remove(0);
    assert!(seen.head.starts_with("post /v1/metrics "), "{}", seen.head);
    let request = ExportMetricsServiceRequest::decode(seen.body).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(metrics.len(), 1, "points of one name are one metric");
    let Some(metric::Data::Sum(sum)) = &metrics[0].data else {
        panic!("not a sum: {metrics:?}")
    };
    assert!(sum.is_monotonic);
    assert_eq!(
        sum.aggregation_temporality(),
        AggregationTemporality::Cumulative
    );
    assert_eq!(sum.data_points.len(), 2);
    assert_eq!(
        sum.data_points[0].value,
        Some(number_data_point::Value::AsInt(7))
    );
    assert_eq!(
        sum.data_points[1].attributes,
        convert::attributes(&counters(0)[1].attributes)
    );
    assert!(sum.data_points[0].start_time_unix_nano <= sum.data_points[0].time_unix_nano);
}

#[tokio::test]
async fn an_unreachable_collector_does_not_hold_up_the_end() {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = Settings::resolve(Signal::Metrics, Some(&format!("http://{address}")), &|_| {
        None
    })
    .unwrap();
    let client = OtlpClient::new(settings, Retry::default()).unwrap();
    let exporter = MetricsExporter::start(client, Duration::from_secs(3_600), Vec::new(), || {
        counters(7)
    });
    let stats = exporter.shutdown(Duration::from_millis(50)).await;
    assert_eq!(
        (stats.accepted, stats.exported, stats.on_the_way),
        (2, 0, 0)
    );
}

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use super::*;
use crate::export::Cause;
use crate::export::otlp::{Retry, Settings, Signal};
use crate::export::testing::{HttpCollector, resource};
use crate::model::Value;

/// The balance of an exporter that lost spans in two ways.
fn counters() -> Snapshot {
    let tally = Tally::new("file".into());
    tally.accept(15);
    tally.exported(7);
    tally.spooled(5);
    tally.unspooled(2);
    tally.exported_from_spool(2);
    tally.dropped(Cause::QueueFull, 2);
    tally.dropped(Cause::WriteFailed, 1);
    Snapshot { counters: export_counters(&[tally.stats()]), histograms: Vec::new() }
}

#[tokio::test]
async fn counters_arrive_as_cumulative_sums_and_once_more_at_the_end() {
    let collector = HttpCollector::start(&[("200 OK", b"")]).await;
    let url = format!("http://{}", collector.address);
    let settings = Settings::resolve(Signal::Metrics, Some(&url), &|_| None).unwrap();
    let client = OtlpClient::new(settings, Retry::default()).unwrap();
    let exporter = MetricsExporter::start(client, Duration::from_secs(3_600), resource().attributes, counters);
    let stats = exporter.shutdown(Duration::from_secs(20)).await;
    assert_eq!((stats.accepted, stats.exported), (7, 7));
    let seen = collector.requests().remove(0);
    assert!(seen.head.starts_with("post /v1/metrics "), "{}", seen.head);
    let request = ExportMetricsServiceRequest::decode(seen.body).unwrap();
    let resource_metrics = &request.resource_metrics[0];
    assert_eq!(resource_metrics.resource.as_ref().unwrap().attributes, convert::attributes(&resource().attributes));
    let metrics = &resource_metrics.scope_metrics[0].metrics;
    let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let of_spool = ["tracer.spans.recovered", "tracer.spans.exported_from_spool", SPOOLED];
    assert_eq!(names[..2], ["tracer.spans.accepted", "tracer.spans.exported"]);
    assert_eq!(names[2..], [&of_spool[..], &["tracer.spans.dropped"]].concat());
    let sum = |name: &str| match &metrics.iter().find(|metric| metric.name == name).unwrap().data {
        Some(metric::Data::Sum(sum)) => sum,
        other => panic!("not a sum: {other:?}"),
    };
    let falls: Vec<_> = names.iter().filter(|name| !sum(name).is_monotonic).collect();
    assert_eq!(falls, [&SPOOLED]);
    assert_eq!(sum(SPOOLED).data_points[0].value, Some(number_data_point::Value::AsInt(3)));
    let sum = sum("tracer.spans.dropped");
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
    let points: Vec<_> = sum.data_points.iter().map(|point| (&point.attributes[1], point.value.unwrap())).collect();
    let cause =
        |cause: &str| convert::attributes(&[("tracer.cause".into(), Value::Str(cause.to_owned().into()))]).remove(0);
    let (full, failed) = (cause("queue_full"), cause("write_failed"));
    assert_eq!(points, [(&full, number_data_point::Value::AsInt(2)), (&failed, number_data_point::Value::AsInt(1))]);
    assert!(sum.data_points[0].start_time_unix_nano <= sum.data_points[0].time_unix_nano);
}

#[tokio::test]
async fn an_unreachable_collector_does_not_hold_up_the_end() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings::resolve(Signal::Metrics, Some(&format!("http://{address}")), &|_| None).unwrap();
    let client = OtlpClient::new(settings, Retry::default()).unwrap();
    let exporter = MetricsExporter::start(client, Duration::from_secs(3_600), Vec::new(), counters);
    let stats = exporter.shutdown(Duration::from_millis(50)).await;
    assert_eq!((stats.exported, stats.on_the_way), (0, 0));
    assert_eq!(stats.dropped(Cause::ExporterGaveUp), stats.accepted, "{stats:?}");
}

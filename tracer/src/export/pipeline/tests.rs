#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::sync::mpsc as std_mpsc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::*;
use crate::export::otlp::{OtlpClient, OtlpExporter, Retry, Settings, Signal};
use crate::export::testing::{HttpCollector, HttpRequest, OFFSET, resource, span};

const LONG: Duration = Duration::from_secs(20);

/// Hands each batch to the test, and waits for a permit before it counts it as exported.
struct Gate {
    batches: std_mpsc::Sender<Arc<Batch>>,
    permits: std_mpsc::Receiver<()>,
}

impl Exporter for Gate {
    fn name(&self) -> String {
        "gate".into()
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            while let Some(batch) = feed.next().await {
                self.batches.send(Arc::clone(&batch)).unwrap();
                // Blocks the thread, as a stuck terminal does.
                if self.permits.recv().is_err() {
                    return;
                }
                feed.tally().exported(batch.spans.len() as u64);
            }
        })
    }
}

fn gate() -> (Box<dyn Exporter>, std_mpsc::Receiver<Arc<Batch>>, std_mpsc::Sender<()>) {
    let (batches, received) = std_mpsc::channel();
    let (permit, permits) = std_mpsc::channel();
    (Box::new(Gate { batches, permits }), received, permit)
}

fn options(max_queue_size: usize, max_batch_size: usize) -> Options {
    Options {
        max_queue_size: NonZeroUsize::new(max_queue_size).unwrap(),
        max_batch_size: NonZeroUsize::new(max_batch_size).unwrap(),
        clock: Clock::Fixed(OFFSET),
        ..Options::default()
    }
}

fn assert_balanced(stats: &ExporterStats, accepted: u64) {
    assert_eq!(stats.accepted, accepted, "{stats:?}");
    assert_eq!(stats.exported + stats.dropped.values().sum::<u64>(), accepted, "{stats:?}");
    assert_eq!(stats.on_the_way, 0, "{stats:?}");
}

fn give(pipeline: &Pipeline, spans: u64) {
    let handle = pipeline.handle();
    for n in 0..spans {
        handle.span(span(1, (n % 255) as u8 + 1));
    }
}

fn otlp(url: &str, retry: Retry) -> Box<dyn Exporter> {
    let settings = Settings::resolve(Signal::Traces, Some(url), &|_| None).unwrap();
    let client = OtlpClient::new(settings, retry).unwrap();
    Box::new(OtlpExporter::new(client, NonZeroUsize::new(100).unwrap(), Duration::from_millis(1)))
}

#[tokio::test]
async fn a_span_is_handed_over_without_waiting_for_others() {
    let (exporter, batches, permit) = gate();
    let pipeline = Pipeline::start(options(100, 100), vec![exporter]).unwrap();
    pipeline.handle().resource(resource());
    give(&pipeline, 1);
    let batch = batches.recv_timeout(LONG).unwrap();
    assert_eq!(batch.spans, [span(1, 1)]);
    assert_eq!(**batch.resource(batch.spans[0].process), resource());
    assert_eq!(batch.clock_offset_ns, OFFSET);
    permit.send(()).unwrap();
    assert_balanced(&pipeline.shutdown(LONG).await.exporters[0], 1);
}

#[tokio::test]
async fn a_full_queue_drops_for_the_slow_exporter_only() {
    let (slow, stuck, slow_permit) = gate();
    let (quick, _received, quick_permit) = gate();
    let pipeline = Pipeline::start(options(100, 1), vec![slow, quick]).unwrap();
    (0..1_000).for_each(|_| quick_permit.send(()).unwrap());
    // The slow one holds the first span, which counts against its queue.
    give(&pipeline, 1);
    stuck.recv_timeout(LONG).unwrap();
    give(&pipeline, 499);
    let live = pipeline.stats().remove(0);
    assert_eq!((live.accepted, live.on_the_way, live.dropped(Cause::QueueFull)), (500, 100, 400));
    (0..1_000).for_each(|_| slow_permit.send(()).unwrap());
    let report = pipeline.shutdown(LONG).await;
    assert_balanced(&report.exporters[0], 500);
    assert_eq!((report.exporters[0].exported, report.exporters[0].dropped(Cause::QueueFull)), (100, 400));
    assert_balanced(&report.exporters[1], 500);
}

#[tokio::test]
async fn a_queue_has_its_part_of_the_memory_as_its_limit() {
    let (exporter, batches, permit) = gate();
    let max_queue_bytes = 50 * span(1, 1).bytes();
    let pipeline = Pipeline::start(Options { max_queue_bytes, ..options(10_000, 10) }, vec![exporter]).unwrap();
    give(&pipeline, 500);
    batches.recv_timeout(LONG).unwrap();
    let live = &pipeline.stats()[0];
    assert_eq!((live.on_the_way, live.dropped(Cause::MemoryFull), live.dropped(Cause::QueueFull)), (50, 450, 0));
    assert_eq!(pipeline.handle().bytes(), max_queue_bytes);
    (0..1_000).for_each(|_| permit.send(()).unwrap());
    let report = pipeline.shutdown(LONG).await;
    assert_balanced(&report.exporters[0], 500);
}

#[tokio::test]
async fn a_giver_that_may_wait_loses_nothing() {
    let (exporter, batches, permit) = gate();
    let options = Options { when_full: WhenFull::Wait, ..options(20, 10) };
    let pipeline = Pipeline::start(options, vec![exporter]).unwrap();
    let handle = pipeline.handle();
    let giver = thread::spawn(move || (0..1_000).for_each(|_| handle.span(span(1, 1))));
    let mut received = 0;
    while received < 1_000 {
        received += batches.recv_timeout(LONG).unwrap().spans.len();
        permit.send(()).unwrap();
    }
    giver.join().unwrap();
    let report = pipeline.shutdown(LONG).await;
    assert_balanced(&report.exporters[0], 1_000);
    assert_eq!(report.exporters[0].exported, 1_000);
}

#[tokio::test]
async fn a_batch_is_never_larger_than_the_queue() {
    let (exporter, batches, permit) = gate();
    (0..1_000).for_each(|_| permit.send(()).unwrap());
    let pipeline = Pipeline::start(options(5, 1_000), vec![exporter]).unwrap();
    give(&pipeline, 5);
    let report = pipeline.shutdown(LONG).await;
    assert_eq!(report.exporters[0].exported, 5);
    assert!(batches.iter().all(|batch| batch.spans.len() <= 5));
}

#[tokio::test]
async fn an_unreachable_collector_costs_spans_but_not_the_balance() {
    // Bound and dropped: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let retry =
        Retry { initial: Duration::from_millis(1), max: Duration::from_millis(2), total: Duration::from_millis(10) };
    let pipeline = Pipeline::start(options(300, 100), vec![otlp(&format!("http://{address}"), retry)]).unwrap();
    give(&pipeline, 5_050);
    let report = pipeline.shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats, 5_050);
    assert_eq!(stats.exported, 0);
    assert_eq!(stats.dropped(Cause::QueueFull) + stats.dropped(Cause::ExporterGaveUp), 5_050);
    assert!(stats.dropped(Cause::ExporterGaveUp) > 0, "{stats:?}");
    assert!(stats.last_error.as_ref().unwrap().contains("Connection refused"), "{stats:?}");
}

#[tokio::test]
async fn shutdown_ends_at_its_deadline_and_counts_what_was_left() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let patient = Retry { initial: LONG, max: LONG, total: 10 * LONG };
    let (stuck, batches, _permit) = gate();
    let exporters = vec![otlp(&format!("http://{address}"), patient), stuck];
    let pipeline = Pipeline::start(options(1_000, 100), exporters).unwrap();
    give(&pipeline, 550);
    batches.recv_timeout(LONG).unwrap();
    let start = Instant::now();
    let report = pipeline.shutdown(Duration::from_millis(50)).await;
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    for stats in &report.exporters {
        assert_balanced(stats, 550);
        assert_eq!(stats.dropped(Cause::ExporterGaveUp), 550);
    }
}

#[tokio::test]
async fn what_the_collector_got_is_what_counts_as_exported() {
    let collector =
        HttpCollector::start(&[("200 OK", b""), ("503 Busy", b""), ("400 Bad", b""), ("200 OK", b"")]).await;
    let retry = Retry { initial: Duration::from_millis(1), ..Retry::default() };
    let url = format!("http://{}", collector.address);
    let pipeline = Pipeline::start(options(10_000, 100), vec![otlp(&url, retry)]).unwrap();
    let givers: Vec<_> = (0..4)
        .map(|_| {
            let handle = pipeline.handle();
            thread::spawn(move || (1..=250).for_each(|id| handle.span(span(1, id))))
        })
        .collect();
    givers.into_iter().for_each(|giver| giver.join().unwrap());
    let report = pipeline.shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats, 1_000);
    let requests = collector.requests();
    let spans = |request: &HttpRequest| {
        let request = ExportTraceServiceRequest::decode(request.body.clone()).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len() as u64
    };
    assert_eq!(requests[1].body, requests[2].body, "the second request is repeated, and refused");
    let taken = requests[..1].iter().chain(&requests[3..]).map(spans).sum::<u64>();
    assert_eq!((stats.exported, stats.dropped(Cause::Rejected), stats.retries), (taken, spans(&requests[1]), 1));
}

#[tokio::test]
async fn spans_after_shutdown_are_counted_as_such() {
    let (exporter, _batches, _permit) = gate();
    let pipeline = Pipeline::start(options(10, 10), vec![exporter]).unwrap();
    let handle = pipeline.handle();
    pipeline.shutdown(LONG).await;
    handle.span(span(1, 1));
    let stats = &handle.stats()[0];
    assert_balanced(stats, 1);
    assert_eq!(stats.dropped(Cause::AfterShutdown), 1);
}

#[tokio::test]
async fn an_exporter_that_ends_by_itself_is_noticed() {
    let (exporter, _batches, permit) = gate();
    let pipeline = Pipeline::start(options(10, 1), vec![exporter]).unwrap();
    drop(permit);
    give(&pipeline, 1);
    tokio::time::timeout(LONG, pipeline.handle().ended()).await.unwrap();
    give(&pipeline, 1);
    let report = pipeline.shutdown(LONG).await;
    assert_balanced(&report.exporters[0], 2);
    assert_eq!(report.exporters[0].dropped(Cause::ExporterGaveUp), 2);
}

/// Panics at the second batch.
struct Buggy;

impl Exporter for Buggy {
    fn name(&self) -> String {
        "buggy".into()
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let first = feed.next().await.unwrap();
            feed.tally().exported(first.spans.len() as u64);
            feed.next().await.unwrap();
            panic!("a bug");
        })
    }
}

#[tokio::test]
async fn an_exporter_that_panics_is_counted_and_the_others_go_on() {
    let (quick, _received, permit) = gate();
    (0..100).for_each(|_| permit.send(()).unwrap());
    let pipeline = Pipeline::start(options(1_000, 10), vec![Box::new(Buggy), quick]).unwrap();
    give(&pipeline, 20);
    let start = Instant::now();
    while pipeline.stats()[0].last_error.is_none() {
        assert!(start.elapsed() < LONG, "{:?}", pipeline.stats());
        tokio::task::yield_now().await;
    }
    give(&pipeline, 30);
    let report = pipeline.shutdown(LONG).await;
    assert!(start.elapsed() < LONG, "the end waited for it");
    let [buggy, other] = &report.exporters[..] else { panic!("{report:?}") };
    assert_balanced(buggy, 50);
    assert_eq!(buggy.exported, 10);
    assert_eq!(buggy.dropped(Cause::ExporterPanicked), 40, "{buggy:?}");
    assert!(buggy.last_error.as_ref().unwrap().contains("panicked"), "{buggy:?}");
    assert_balanced(other, 50);
    assert_eq!(other.exported, 50);
}

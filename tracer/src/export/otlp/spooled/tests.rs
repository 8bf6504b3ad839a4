#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::export::otlp::{OtlpExporter, Settings, Signal};
use crate::export::testing::{HttpCollector, HttpRequest, OFFSET, resource, span};
use crate::export::{Clock, ExporterStats, Options, Pipeline};

const LONG: Duration = Duration::from_secs(20);
const QUICK: Retry = Retry { initial: Duration::from_millis(1), max: Duration::from_millis(20), total: LONG };

/// Of 10 spans each: 20 may be held.
const REQUEST: usize = 10;

fn start_with(url: &str, directory: &Path, retry: Retry, timeout: Duration, size: u64) -> Pipeline {
    let mut settings = Settings::resolve(Signal::Traces, Some(url), &|_| None).unwrap();
    settings.timeout = timeout;
    let client = OtlpClient::new(settings, retry).unwrap();
    let spool = Spool::open(directory, &client.endpoint(), size).unwrap();
    let request = NonZeroUsize::new(REQUEST).unwrap();
    let exporter = OtlpExporter::new(client, request, Duration::from_millis(1)).with_spool(spool);
    let options = Options {
        max_queue_size: NonZeroUsize::new(160).unwrap(),
        max_queue_bytes: usize::MAX,
        max_batch_size: request,
        clock: Clock::Fixed(OFFSET),
        when_full: crate::export::WhenFull::Wait,
        thread_start: crate::export::ThreadStart::default(),
    };
    let pipeline = Pipeline::start(options, vec![Box::new(exporter)]).unwrap();
    pipeline.handle().resource(resource());
    pipeline
}

fn start(url: &str, directory: &Path) -> Pipeline {
    start_with(url, directory, QUICK, LONG, 1 << 20)
}

/// Requests' worth of spans, whose trace ids begin with the number of the request. `Wait`: none is lost to the queue.
fn give(pipeline: &Pipeline, requests: std::ops::Range<u8>) {
    let handle = pipeline.handle();
    for n in requests {
        (0..REQUEST).for_each(|id| handle.span(span(n, id as u8 + 1)));
    }
}

async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn traces(body: &[u8]) -> Vec<u8> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.trace_id[0]).collect()
}

/// The traces of the spans, in the order they came.
fn order(requests: &[HttpRequest]) -> Vec<u8> {
    requests.iter().flat_map(|request| traces(&request.body)).collect()
}

fn expected(requests: std::ops::Range<u8>) -> Vec<u8> {
    requests.flat_map(|n| [n; REQUEST]).collect()
}

fn assert_balanced(stats: &ExporterStats) {
    let fates = stats.exported + stats.spooled + stats.dropped.values().sum::<u64>();
    assert_eq!(stats.accepted + stats.recovered, fates, "{stats:?}");
    assert_eq!(stats.on_the_way, 0, "{stats:?}");
}

/// Nobody listens there.
fn nowhere() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn what_came_while_the_collector_was_away_comes_first_and_in_order() {
    let (directory, address) = (TempDir::new().unwrap(), nowhere());
    let pipeline = start(&format!("http://{address}"), directory.path());
    give(&pipeline, 0..50);
    wait_for("the spool", || pipeline.stats()[0].spooled >= 450).await;
    let collector = HttpCollector::judging(&address, |_| "200 OK").await;
    wait_for("the end of the spool", || pipeline.stats()[0].on_the_way + pipeline.stats()[0].spooled == 0).await;
    give(&pipeline, 50..55);
    let report = pipeline.shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert_eq!((stats.exported, stats.spooled), (550, 0), "{stats:?}");
    assert!(stats.exported_from_spool >= 450, "{stats:?}");
    let mut came = order(&collector.requests());
    // The oldest two may have changed places: another one is tried when one fails again and again.
    came[..2 * REQUEST].sort();
    assert_eq!(came[..500], expected(0..50));
    came[500..].sort();
    assert_eq!(came[500..], expected(50..55));
}

#[tokio::test]
async fn another_life_sends_what_is_left() {
    let (directory, address) = (TempDir::new().unwrap(), nowhere());
    let url = format!("http://{address}");
    for life in 0..3 {
        let pipeline = start(&url, directory.path());
        give(&pipeline, life * 10..life * 10 + 10);
        let report = pipeline.shutdown(LONG).await;
        let stats = &report.exporters[0];
        assert_balanced(stats);
        assert_eq!((stats.recovered, stats.spooled), (u64::from(life) * 100, u64::from(life) * 100 + 100), "{stats:?}");
    }
    let collector = HttpCollector::judging(&address, |_| "200 OK").await;
    let report = start(&url, directory.path()).shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert_eq!((stats.recovered, stats.exported_from_spool, stats.accepted), (300, 300, 0), "{stats:?}");
    assert_eq!(order(&collector.requests()), expected(0..30));
}

#[tokio::test]
async fn statuses_decide_and_a_refusal_is_not_kept() {
    let directory = TempDir::new().unwrap();
    let mut answers = ["503 Busy", "429 Slow", "200 OK", "400 Bad", "502 Gone", "200 OK"].into_iter();
    let collector = HttpCollector::judging("127.0.0.1:0", move |_| answers.next().unwrap_or("200 OK")).await;
    let pipeline = start(&format!("http://{}", collector.address), directory.path());
    for n in 0..6 {
        give(&pipeline, n..n + 1);
        wait_for("its fate", || pipeline.stats()[0].on_the_way + pipeline.stats()[0].spooled == 0).await;
    }
    let report = pipeline.shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert_eq!((stats.exported, stats.dropped(Cause::Rejected), stats.retries), (50, 10, 3), "{stats:?}");
    assert_eq!(stats.exported_from_spool, 20, "{stats:?}");
    let came = order(&collector.requests());
    assert_eq!(came[..30], [0; 30], "three times");
    assert_eq!(came[30..40], [1; 10], "refused and not sent again");
}

#[tokio::test]
async fn a_collector_that_says_when_is_not_asked_before_and_the_end_does_not_wait_for_it() {
    let directory = TempDir::new().unwrap();
    let busy = AtomicBool::new(true);
    let collector = HttpCollector::judging("127.0.0.1:0", move |_| match busy.swap(false, Ordering::Relaxed) {
        true => "503 Busy\r\nretry-after: 1",
        false => "200 OK",
    });
    let collector = collector.await;
    let pipeline = start(&format!("http://{}", collector.address), directory.path());
    let begin = Instant::now();
    give(&pipeline, 0..1);
    wait_for("its fate", || pipeline.stats()[0].exported == 10).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "it came back too early");
    pipeline.shutdown(LONG).await;

    let collector = HttpCollector::judging("127.0.0.1:0", |_| "429 Slow\r\nretry-after: 100").await;
    let pipeline = start(&format!("http://{}", collector.address), directory.path());
    give(&pipeline, 0..1);
    wait_for("the spool", || pipeline.stats()[0].spooled == 10).await;
    let begin = Instant::now();
    let report = pipeline.shutdown(LONG).await;
    assert!(begin.elapsed() < LONG / 2);
    assert_balanced(&report.exporters[0]);
    assert_eq!((report.exporters[0].spooled, collector.requests().len()), (10, 1));
}

/// It accepts connections and never answers: what comes meanwhile is on disk, and what is on its way as well.
#[tokio::test]
async fn a_collector_that_hangs_holds_nothing_back() {
    let directory = TempDir::new().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pipeline = start(&url, directory.path());
    give(&pipeline, 0..100);
    wait_for("the spool", || pipeline.stats()[0].spooled >= 970).await;
    let report = pipeline.shutdown(Duration::from_millis(50)).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert_eq!((stats.spooled, stats.exported), (1_000, 0), "{stats:?}");
    // A request that was on its way and not yet on disk.
    let pipeline = start(&url, &directory.path().join("other"));
    give(&pipeline, 0..1);
    tokio::time::timeout(LONG, listener.accept()).await.unwrap().unwrap();
    let report = pipeline.shutdown(Duration::from_millis(50)).await;
    assert_balanced(&report.exporters[0]);
    assert_eq!(report.exporters[0].spooled, 10, "{report:?}");
}

#[tokio::test]
async fn new_spans_do_not_wait_for_the_end_of_a_long_spool() {
    let (directory, address) = (TempDir::new().unwrap(), nowhere());
    let url = format!("http://{address}");
    let pipeline = start(&url, directory.path());
    give(&pipeline, 0..100);
    pipeline.shutdown(LONG).await;
    // Each answer lets the test give one more.
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let collector = HttpCollector::judging(&address, move |_| {
        answered.send(()).unwrap();
        "200 OK"
    });
    let collector = collector.await;
    let pipeline = start(&url, directory.path());
    for n in 100..130 {
        answers.recv().await.unwrap();
        give(&pipeline, n..n + 1);
    }
    let report = pipeline.shutdown(LONG).await;
    assert_eq!(report.exporters[0].exported, 1_300);
    let came = order(&collector.requests());
    let last_new = came.iter().rposition(|&trace| trace >= 100).unwrap() / REQUEST;
    assert!(last_new < 100, "the new ones came last: the last one as number {last_new}");
    let (old, new): (Vec<u8>, Vec<u8>) = came.into_iter().partition(|&trace| trace < 100);
    assert_eq!((old, new), (expected(0..100), expected(100..130)), "each in order");
}

#[tokio::test]
async fn one_request_that_always_fails_does_not_stop_the_others() {
    let directory = TempDir::new().unwrap();
    let poison = |body: &[u8]| if traces(body).contains(&3) { "503 Busy" } else { "200 OK" };
    let collector = HttpCollector::judging("127.0.0.1:0", poison).await;
    let pipeline = start(&format!("http://{}", collector.address), directory.path());
    give(&pipeline, 0..100);
    wait_for("their fates", || pipeline.stats()[0].exported == 990).await;
    wait_for("its fate", || {
        give(&pipeline, 100..101);
        pipeline.stats()[0].dropped(Cause::ExporterGaveUp) == 10
    })
    .await;
    let report = pipeline.shutdown(LONG).await;
    assert_balanced(&report.exporters[0]);
    assert_eq!(report.exporters[0].spooled, 0);
}

#[tokio::test]
async fn at_its_size_the_oldest_are_lost_and_the_newest_arrive() {
    let (directory, address) = (TempDir::new().unwrap(), nowhere());
    let pipeline = start_with(&format!("http://{address}"), directory.path(), QUICK, LONG, 20 * 4_096);
    give(&pipeline, 0..100);
    wait_for("the spool", || pipeline.stats()[0].on_the_way == 0).await;
    let collector = HttpCollector::judging(&address, |_| "200 OK").await;
    let report = pipeline.shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert!(stats.dropped(Cause::SpoolFull) >= 790, "{stats:?}");
    let mut came = order(&collector.requests());
    came.sort();
    assert_eq!(came.len() as u64, stats.exported);
    assert_eq!(came[came.len() - 180..], expected(82..100), "{stats:?}");
}

#[tokio::test]
async fn damage_is_counted_and_the_rest_arrives() {
    let (directory, address) = (TempDir::new().unwrap(), nowhere());
    let url = format!("http://{address}");
    let pipeline = start(&url, directory.path());
    give(&pipeline, 0..20);
    pipeline.shutdown(LONG).await;
    let folder = directory.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some());
    files.sort();
    let mut damaged = 0;
    for (file, content) in files.iter().step_by(3).zip([b"".as_slice(), b"TRSPOOL", b"hello", b"TRSPOOL1aaaabbbbcccc"])
    {
        let name = file.file_name().unwrap().to_str().unwrap();
        damaged += name[17..].strip_suffix(".otlp1").unwrap().parse::<u64>().unwrap();
        std::fs::write(file, content).unwrap();
    }
    let collector = HttpCollector::judging(&address, |_| "200 OK").await;
    let report = start(&url, directory.path()).shutdown(LONG).await;
    let stats = &report.exporters[0];
    assert_balanced(stats);
    assert_eq!((stats.recovered, stats.dropped(Cause::SpoolDamaged), stats.spooled), (200, damaged, 0), "{stats:?}");
    assert_eq!(order(&collector.requests()).len() as u64, 200 - damaged);
}

/// The collector dies and comes back again and again; every answer it gave is one that the exporter knows of.
#[tokio::test]
async fn nothing_comes_twice_from_a_collector_that_answers() {
    let directory = TempDir::new().unwrap();
    let (count, seen) = (AtomicUsize::new(0), Arc::new(Mutex::new(Vec::new())));
    let taken = Arc::clone(&seen);
    let judge = move |body: &[u8]| match count.fetch_add(1, Ordering::Relaxed) % 7 {
        0..4 => {
            taken.lock().unwrap().extend(traces(body));
            "200 OK"
        }
        _ => "503 Busy",
    };
    let collector = HttpCollector::judging("127.0.0.1:0", judge).await;
    let pipeline = start(&format!("http://{}", collector.address), directory.path());
    give(&pipeline, 0..200);
    wait_for("their fates", || pipeline.stats()[0].exported == 2_000).await;
    pipeline.shutdown(LONG).await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, expected(0..200));
}

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use crate::model::HashMap;
use std::sync::Mutex;

use unicode_width::UnicodeWidthStr;

use super::*;
use crate::export::testing::{OFFSET, batch, full_span, resource, span};
use crate::export::{Clock, ExporterStats, Options, Pipeline};
use crate::model::{ProcessId, Resource, SpanId, Status, Value};

const PLAIN: Look = Look { width: 80, colour: false, lines_per_second: None };

/// A pipe that keeps what is written, or is broken.
#[derive(Clone, Default)]
struct Pipe {
    text: Arc<Mutex<Vec<u8>>>,
    broken: bool,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

fn child(id: u8, parent: u8, name: &'static str) -> Span {
    Span { parent: Some(SpanId([parent; 8])), name: name.into(), ..span(1, id) }
}

fn part(spans: Vec<Span>) -> Part {
    let batch = batch(spans);
    let spans = (0..batch.spans.len()).map(|index| Held { batch: Arc::clone(&batch), index }).collect();
    Part { trace_id: batch.spans[0].trace_id, spans, continued: false }
}

fn render(spans: Vec<Span>) -> String {
    tree::render(&part(spans), PLAIN, MAX_LINES_PER_TRACE)
}

/// An order on its way: a receiver, its Redis commands, a failed one.
fn order() -> Vec<Span> {
    let sent = Span {
        end_ns: 90_000,
        attributes: vec![("tracer.message.size".into(), Value::Int(120))],
        ..child(30, 1, "encode Order")
    };
    let failed = Span {
        status: Status::Error("Operation against a key holding the wrong kind of value".into()),
        attributes: vec![("error.type".into(), Value::Str("WRONGTYPE".into()))],
        ..child(20, 10, "LPUSH")
    };
    let mut spans =
        vec![child(25, 10, "GET"), failed, child(10, 1, "process Order"), sent, child(1, 99, "receive Order")];
    spans[0].attributes.push(("db.namespace".into(), Value::Str("0".into())));
    spans[4].end_ns = 2_500_000_000;
    spans
}

#[test]
fn a_trace_is_a_tree_with_times() {
    insta::assert_snapshot!(render(order()));
}

#[test]
fn errors_are_red_and_the_rest_is_quiet() {
    let look = Look { colour: true, ..PLAIN };
    let text = tree::render(&part(order()), look, MAX_LINES_PER_TRACE);
    assert!(text.contains("\u{1b}[31mLPUSH\u{1b}[0m"), "{text}");
    let plain = regex_free_of_colours(&text);
    assert_eq!(plain, render(order()));
}

fn regex_free_of_colours(text: &str) -> String {
    ["\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[0m"]
        .iter()
        .fold(text.to_owned(), |text, code| text.replace(code, ""))
}

#[test]
fn nothing_from_a_target_reaches_the_terminal_as_a_command() {
    let mut hostile = full_span();
    hostile.name = "GET \u{1b}[2J\u{9b}31m\r\n\u{202e}evil\u{0}\u{7f}".into();
    hostile.status = Status::Error("\u{1b}]0;title\u{7}".into());
    hostile.attributes = vec![("\u{1b}[1mkey".into(), Value::List(vec!["\u{8}".into()]))];
    let text = tree::render(&part(vec![hostile]), Look { width: 500, ..PLAIN }, 10);
    assert!(text.contains(r"GET \u{1b}[2J\u{9b}31m\u{d}\u{a}\u{202e}evil\u{0}\u{7f}"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{text:?}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut spans = order();
    spans[0].name = "订单".repeat(60).into();
    spans[1].name = "x".repeat(100_000).into();
    for width in [40, 79, 80, 81, 132] {
        let text = tree::render(&part(spans.clone()), Look { width, ..PLAIN }, 10);
        for line in text.lines() {
            assert!(line.width() <= width, "{width}: {line}");
        }
        assert!(text.contains('…'));
    }
}

#[test]
fn rings_strangers_and_twins_are_printed_once_each() {
    let spans = vec![
        child(1, 2, "ring a"),
        child(2, 1, "ring b"),
        child(3, 3, "own parent"),
        child(4, 77, "orphan"),
        child(5, 4, "twin"),
        child(5, 4, "twin"),
        child(6, 5, "below a twin"),
    ];
    let text = render(spans);
    assert_eq!(text.lines().count(), 8, "{text}");
    for (name, times) in
        [("ring a", 1), ("ring b", 1), ("own parent", 1), ("orphan", 1), ("below a twin", 1), ("twin", 3)]
    {
        assert_eq!(text.matches(name).count(), times, "{name}: {text}");
    }
}

#[test]
fn a_deep_chain_stays_readable_and_bounded() {
    let spans: Vec<_> = (1..=250).map(|id| child(id, id - 1, "GET")).collect();
    let text = render(spans);
    assert_eq!(text.lines().count(), 1 + MAX_LINES_PER_TRACE + 1, "{text}");
    assert!(text.ends_with("… 50 more spans\n"), "{text}");
    assert!(text.lines().nth(150).unwrap().contains("GET"), "{text}");
}

/// Runs an exporter over batches, with the handover of a real pipeline.
async fn export(look: Look, pipe: &Pipe, batches: Vec<Vec<Span>>) -> ExporterStats {
    let options = Options { clock: Clock::Fixed(OFFSET), ..Options::default() };
    let pipeline = Pipeline::start(options, vec![Box::new(TerminalExporter::new(pipe.clone(), look))]).unwrap();
    let handle = pipeline.handle();
    handle.resource(resource());
    for span in batches.into_iter().flatten() {
        handle.span(span);
    }
    pipeline.shutdown(Duration::from_secs(20)).await.exporters.remove(0)
}

#[tokio::test]
async fn everything_is_printed_when_the_pipeline_has_shut_down() {
    let pipe = Pipe::default();
    let stats = export(PLAIN, &pipe, vec![order(), vec![span(2, 1)]]).await;
    assert_eq!((stats.accepted, stats.exported), (6, 6));
    assert_eq!(pipe.text().matches("trace ").count(), 2, "{}", pipe.text());
    assert_eq!(pipe.text().lines().count(), 8, "{}", pipe.text());
}

#[tokio::test]
async fn what_nobody_could_read_is_counted_instead() {
    let pipe = Pipe::default();
    let look = Look { lines_per_second: Some(20), ..PLAIN };
    let spans: Vec<_> = (0..5_000u32)
        .map(|n| {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Span { trace_id: TraceId(id), ..span(1, 1) }
        })
        .collect();
    let stats = export(look, &pipe, vec![spans]).await;
    assert_eq!(stats.exported + stats.dropped(Cause::NotShown), 5_000);
    let text = pipe.text();
    assert_eq!(text.matches("trace ").count() as u64, stats.exported);
    let more: u64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("… ")?.split_once(" more traces (")?.0.parse::<u64>().ok())
        .sum();
    assert_eq!(more, stats.dropped(Cause::NotShown), "{text}");
    assert!(stats.exported >= 10, "{stats:?}");
}

#[tokio::test]
async fn spans_cut_from_a_long_trace_are_counted() {
    let pipe = Pipe::default();
    let spans = (0..300u32).map(|n| Span { start_ns: u64::from(n), ..span(1, (n % 255) as u8 + 1) }).collect();
    let stats = export(PLAIN, &pipe, vec![spans]).await;
    assert_eq!((stats.exported, stats.dropped(Cause::NotShown)), (200, 100));
}

#[tokio::test]
async fn a_broken_pipe_ends_quietly_and_is_counted() {
    let pipe = Pipe { broken: true, ..Pipe::default() };
    let stats = export(PLAIN, &pipe, vec![order(), vec![span(2, 1)]]).await;
    assert_eq!((stats.accepted, stats.exported, stats.dropped(Cause::WriteFailed)), (6, 0, 6));
    assert_eq!(stats.last_error, None);
}

#[test]
fn traces_are_held_until_they_are_quiet_and_continue_later() {
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let mut traces = Traces::default();
    traces.add(&batch(vec![span(1, 1), span(2, 1)]), start);
    traces.add(&batch(vec![span(1, 2)]), after(300));
    assert_eq!(traces.release(after(350)).len(), 0);
    let quiet = traces.release(after(450));
    assert_eq!(quiet.iter().map(|part| part.trace_id).collect::<Vec<_>>(), [TraceId([2; 16])]);
    let quiet = traces.release(after(700));
    assert_eq!((quiet[0].spans.len(), quiet[0].continued), (2, false));
    traces.add(&batch(vec![span(1, 3)]), after(800));
    let late = traces.release(after(1_300));
    assert_eq!((late[0].spans.len(), late[0].continued), (1, true));
    assert!(tree::render(&late[0], PLAIN, 10).contains("(continued) 1 span "));
    // One that never gets quiet comes out all the same.
    for ms in (2_000..7_100).step_by(100) {
        traces.add(&batch(vec![span(3, 1)]), after(ms));
        let released = traces.release(after(ms));
        assert_eq!(!released.is_empty(), ms == 7_000, "{ms}");
    }
}

#[test]
fn held_spans_are_bounded() {
    let now = Instant::now();
    let mut traces = Traces::default();
    let mut released = 0;
    for n in 0..=255 {
        traces.add(&batch((1..=200).map(|id| span(n, id)).collect()), now);
        released += traces.release(now).iter().map(|part| part.spans.len()).sum::<usize>();
        assert!(traces.held_spans <= MAX_HELD_SPANS);
    }
    assert_eq!(released + traces.held_spans, 256 * 200);
}

#[test]
fn services_stand_in_a_column() {
    let mut spans = vec![child(1, 99, "a"), child(2, 1, "b")];
    spans[1].process = ProcessId { pid: 1, start_time: 1 };
    let long = Resource {
        process: spans[1].process,
        attributes: vec![("service.name".into(), Value::Str("a_service_with_a_long_name".into()))],
    };
    let resources = HashMap::from_iter([(resource().process, Arc::new(resource())), (long.process, Arc::new(long))]);
    let batch = Arc::new(Batch { spans, resources, clock_offset_ns: OFFSET });
    let spans = (0..2).map(|index| Held { batch: Arc::clone(&batch), index }).collect();
    let part = Part { trace_id: TraceId([1; 16]), spans, continued: false };
    insta::assert_snapshot!(tree::render(&part, PLAIN, 10));
}

#[test]
fn a_trace_waits_for_the_parents_of_its_spans_but_not_for_ever() {
    let start = Instant::now();
    let released = |traces: &mut Traces, ms: u64| {
        traces.release(start + Duration::from_millis(ms)).iter().map(|part| part.spans.len()).sum::<usize>()
    };
    let mut traces = Traces::default();
    traces.add(&batch(vec![child(2, 1, "GET")]), start);
    assert_eq!(released(&mut traces, 2_000), 0, "its parent is on the way");
    traces.add(&batch(vec![span(1, 1)]), start + Duration::from_millis(2_100));
    assert_eq!(released(&mut traces, 2_200), 0);
    assert_eq!(released(&mut traces, 2_600), 2);
    traces.add(&batch(vec![child(2, 1, "GET")]), start);
    assert_eq!(released(&mut traces, 2_700), 1, "the parent does not come");
    let remote = Span { parent_remote: true, ..child(3, 9, "decode Order") };
    traces.add(&batch(vec![remote]), start);
    assert_eq!(released(&mut traces, 500), 1, "the parent is in another process");
}

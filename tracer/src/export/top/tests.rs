use std::time::Duration;

use super::{Board, MAX_ROWS};
use crate::export::testing::{batch, span};
use crate::model::{Link, Span, SpanContext, Status, TraceId, Value};

const MS: u64 = 1_000_000;

/// A GET of trace `trace` that took so many milliseconds.
fn get(trace: u8, ms: u64) -> Span {
    let mut get = span(trace, 1);
    get.end_ns = get.start_ns + ms * MS;
    get
}

#[test]
fn figures_are_those_of_the_last_ten_seconds() {
    let board = Board::default();
    let at = |seconds| board.begun + Duration::from_secs(seconds);
    board.add(&batch((0..100).map(|ms| get(ms, u64::from(ms))).collect()), at(1));
    let failed = Span { status: Status::Error("WRONGTYPE".into()), ..get(200, 500) };
    board.add(&batch(vec![failed]), at(3));
    let (figures, blockers) = board.figures_at(at(5));
    assert!(blockers.is_empty());
    let [get] = &figures[..] else { panic!("{figures:?}") };
    assert_eq!((&*get.service, &*get.operation, get.errors), ("risk_control", "GET", 1));
    assert!((get.rate - 101.0 / 5.0).abs() < 0.01, "{}", get.rate);
    // Two digits are shown, so the error is below one in a hundred.
    let near = |value: u64, ms: f64| (value as f64 / MS as f64 / ms - 1.0).abs() < 0.01;
    assert!(near(get.p50, 50.0) && near(get.p90, 90.0) && near(get.p99, 99.0) && near(get.max, 500.0), "{get:?}");
    assert_eq!((get.slowest, get.waited), (TraceId([200; 16]), None));
    // The hundred have left the window, the last one has not.
    let (figures, _) = board.figures_at(at(11));
    assert_eq!((figures[0].errors, figures[0].p50 / (100 * MS)), (1, 5));
    assert!(board.figures_at(at(20)).0.is_empty());
}

#[test]
fn waiting_is_shown_with_whom_it_was_for() {
    let board = Board::default();
    let mut waited = get(1, 9);
    waited.attributes.push(("tracer.redis.queue".into(), Value::Float(0.008)));
    waited.attributes.push(("tracer.redis.service".into(), Value::Float(0.0005)));
    let context = SpanContext {
        trace_id: TraceId([7; 16]),
        span_id: waited.span_id,
        flags: 1,
        remote: true,
        trace_state: "".into(),
    };
    let blocked_by = |command: &'static str, seconds| Link {
        context: context.clone(),
        attributes: vec![
            ("tracer.redis.blocked_by".into(), Value::Str(command.into())),
            ("tracer.redis.blocked_by.service".into(), Value::Str("reports".into())),
            ("tracer.redis.blocked_by.duration".into(), Value::Float(seconds)),
        ],
    };
    waited.links = vec![blocked_by("SCAN", 0.001), blocked_by("KEYS", 0.007)];
    board.add(&batch(vec![waited.clone(), waited]), board.begun);
    let (figures, blockers) = board.figures_at(board.begun);
    assert_eq!((figures[0].waited, figures[0].served), (Some(8 * MS), Some(MS / 2)));
    let shown: Vec<_> = blockers.iter().map(|one| (&*one.command, &*one.service, one.waiting, one.total)).collect();
    assert_eq!(shown, [("KEYS", "reports", 2, 14 * MS), ("SCAN", "reports", 2, 2 * MS)]);
}

#[test]
fn a_trace_can_be_looked_at_as_long_as_it_is_in_the_window() {
    let board = Board::default();
    board.add(&batch(vec![get(1, 1), get(2, 2)]), board.begun);
    let text = board.trace(TraceId([2; 16]), 80);
    assert!(text.contains(&TraceId([2; 16]).to_string()) && text.contains("2.00 ms") && text.contains("GET"), "{text}");
    board.figures_at(board.begun + Duration::from_secs(30));
    assert_eq!(board.trace(TraceId([2; 16]), 80), "");
}

#[test]
fn too_many_operations_are_counted_and_not_shown() {
    let board = Board::default();
    let spans = (0..MAX_ROWS + 3).map(|index| Span { name: format!("op {index}").into(), ..get(1, 1) }).collect();
    assert_eq!(board.add(&batch(spans), board.begun), 3);
    assert_eq!(board.figures_at(board.begun).0.len(), MAX_ROWS);
}

//! What is kept, and what goes.

use super::{batch, filled, number, span};
use crate::model::TraceId;
use crate::web::store::{Bound, Store};

fn traces(store: &Store) -> Vec<u8> {
    let mut traces: Vec<u8> = store.look().whole().map(|(id, _)| id.0[0]).collect();
    traces.sort_unstable();
    traces
}

fn bounded(spans: u64) -> Store {
    Store::new(Bound { spans, bytes: u64::MAX })
}

#[test]
fn the_oldest_traces_go_whole() {
    let store = bounded(4);
    store.push(batch(vec![span(1, 1, None, (10, 20)), span(2, 2, None, (11, 15))]));
    // The rest of the second trace.
    store.push(batch(vec![span(2, 3, Some(2), (16, 30)), span(3, 4, None, (25, 35))]));
    assert_eq!(traces(&store), [1, 2, 3]);
    store.push(batch(vec![span(4, 5, None, (40, 50))]));
    assert_eq!(traces(&store), [3, 4], "a part of the second trace is forgotten");
    let counts = store.counts();
    assert_eq!((counts.kept, counts.forgotten), (3, 2));
}

#[test]
fn what_nobody_has_looked_at_is_bounded_too() {
    let store = bounded(10);
    for trace in 1..=100 {
        let at = u64::from(trace) * 100;
        store.push(batch(vec![span(trace, 1, None, (at, at + 10)), span(trace, 2, Some(1), (at + 1, at + 5))]));
    }
    let counts = store.counts();
    assert_eq!((counts.kept, counts.forgotten), (10, 190));
    assert_eq!(traces(&store), [96, 97, 98, 99, 100]);
}

#[test]
fn bytes_are_bounded_as_well() {
    let store = Store::new(Bound { spans: 1_000, bytes: 1_000_000 });
    for trace in 1..=20 {
        let mut large = span(trace, 1, None, (u64::from(trace) * 10, u64::from(trace) * 10 + 5));
        large.attributes.push(("large".into(), crate::model::Value::Str("x".repeat(100_000).into())));
        store.push(batch(vec![large]));
    }
    assert_eq!(store.counts().kept, 9);
    assert_eq!(traces(&store), (12..=20).collect::<Vec<u8>>());
}

#[test]
fn a_look_does_not_count_anything_twice() {
    let store = filled(vec![span(1, 1, None, (0, 10)), span(1, 2, Some(1), (2, 20))]);
    for _ in 0..3 {
        let traces = store.look();
        let trace = traces.get(TraceId([1; 16])).unwrap();
        assert_eq!((trace.len(), trace.duration()), (2, 20));
        assert_eq!(traces.root(trace).unwrap().span.span_id, number(1));
    }
}

#[test]
fn spans_that_end_before_they_begin_take_no_time() {
    let store = filled(vec![span(1, 1, None, (30, 10))]);
    let traces = store.look();
    assert_eq!(traces.get(TraceId([1; 16])).unwrap().duration(), 0);
}

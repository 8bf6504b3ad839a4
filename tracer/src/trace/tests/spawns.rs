//! Tasks that are spawned by the handler of a message.

use super::*;
use crate::trace::parents::flow::SPAWNED_NS;

/// A record of task `task`, which runs on thread 1.
fn of_task(kind: u16, task: u64, at_ms: u64, payload: usize) -> Head {
    Head { task_id: task, ..head(kind, 1, at_ms, payload) }
}

fn spawn(correlator: &mut Correlator, task: u64, child: u64, at_ms: u64) {
    let record = TaskSpawn { head: of_task(KIND_TASK_SPAWN, task, at_ms, 0), child };
    correlator.feed(&Item::Record(bytes_of(&record)));
}

fn prost(correlator: &mut Correlator, probe: u32, task: u64, at_ms: u64) {
    let head = of_task(KIND_MESSAGE, task, at_ms, 0);
    correlator.feed(&Item::Record(bytes_of(&Message { head, probe, ..Message::default() })));
}

/// The parents of the encodes in order of time: whether they are in the trace of the first decode.
fn parented(mut correlator: Correlator) -> Vec<bool> {
    correlator.finish();
    let mut spans = std::mem::take(&mut correlator.output().spans);
    spans.sort_by_key(|span| span.start_ns);
    let process = spans.iter().find(|span| span.name == "process Order").expect("the flow").clone();
    let encodes = spans.iter().filter(|span| span.name == "encode Order");
    encodes.map(|span| (span.trace_id, span.parent) == (process.trace_id, Some(process.span_id))).collect()
}

#[test]
fn children_and_theirs_belong_to_the_message_and_go_on_without_the_handler() {
    let mut correlator = correlator("always_on");
    spawn(&mut correlator, 1, 9, 9);
    prost(&mut correlator, DECODE, 1, 10);
    spawn(&mut correlator, 1, 2, 11);
    spawn(&mut correlator, 2, 3, 12);
    // The handler has its next message.
    prost(&mut correlator, DECODE, 1, 13);
    for task in [2, 3, 9] {
        prost(&mut correlator, ENCODE, task, 13 + task);
    }
    let counts = correlator.counts();
    assert_eq!((counts.task_spawns, counts.tasks_in_flows, counts.messages_open), (3, 2, 1));
    assert_eq!(parented(correlator), [true, true, false], "9 was spawned before");
}

#[test]
fn a_child_with_a_message_of_its_own_is_out_of_it() {
    let mut correlator = correlator("always_on");
    prost(&mut correlator, DECODE, 1, 10);
    spawn(&mut correlator, 1, 2, 11);
    prost(&mut correlator, ENCODE, 2, 12);
    prost(&mut correlator, DECODE, 2, 13);
    prost(&mut correlator, ENCODE, 2, 14);
    assert_eq!(parented(correlator), [true, false]);
}

#[test]
fn a_child_that_never_ends_is_out_of_it_after_a_while() {
    let mut correlator = correlator("always_on");
    prost(&mut correlator, DECODE, 1, 10);
    spawn(&mut correlator, 1, 2, 10);
    let (last_ms, end_ms) = (SPAWNED_NS / MS, SPAWNED_NS / MS + 2_000);
    let times = || (500..end_ms).step_by(500);
    for at_ms in times() {
        correlator.tick(at_ms * MS);
        prost(&mut correlator, ENCODE, 2, at_ms);
    }
    let expected: Vec<bool> = times().map(|at_ms| at_ms <= last_ms).collect();
    assert_eq!(parented(correlator), expected);
}

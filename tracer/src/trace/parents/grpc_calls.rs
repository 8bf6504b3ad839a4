//! Whose a gRPC call is: its request is encoded by the task of the connection, and its answer is decoded by the task that asked.
//!
//! The program reports the task that hands a request to a channel, with the memory of the request's body. The codec encodes into a buffer
//! inside of that body, so an encode whose buffer lies there is of that call: it belongs to the flow in which the task asked.
//! The answers are told by the task, and by the type: see [`Asked`].

use std::collections::{BTreeMap, VecDeque};

use tracer_common::record::GrpcCall;

use super::flow::FlowKey;
use crate::model::SpanContext;
use crate::trace::correlator::{Correlator, flow_key};
use crate::trace::memory::Ages;

/// A body whose message was not encoded in this time, in nanoseconds, will not be: its memory is something else by now.
const LIFETIME_NS: u64 = 60_000_000_000;
/// Calls that are kept at once.
const MAX_CALLS: usize = 1 << 16;
/// About how many bytes one takes.
const BYTES: usize = 2 * size_of::<((u32, u64), Call)>() + size_of::<(u64, u32, u64)>();

/// A call that a task has made.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who made it.
    pub key: FlowKey,
    /// In which flow or context; none if the task was in none.
    pub parent: Option<SpanContext>,
    at_ns: u64,
    len: u64,
    /// The function that has encoded its first message. A stream has more of them.
    encoder: Option<u32>,
}

/// Bodies of requests, by process and address.
#[derive(Debug, Default)]
pub struct GrpcCalls {
    bodies: BTreeMap<(u32, u64), Call>,
    /// In order of time, to forget them.
    order: VecDeque<(u64, u32, u64)>,
    /// Calls forgotten before their time, because there were too many.
    pub evicted: u64,
}

impl GrpcCalls {
    fn add(&mut self, pid: u32, body: u64, call: Call) {
        self.forget(call.at_ns.saturating_sub(LIFETIME_NS));
        if self.order.len() >= MAX_CALLS {
            self.evicted += 1;
            self.pop();
        }
        // What overlaps is gone: its memory has been given back.
        let end = body.saturating_add(call.len);
        let before = self.bodies.range(..(pid, body)).next_back();
        let overlaps = before.filter(|((other, start), old)| *other == pid && start.saturating_add(old.len) > body);
        let mut gone: Vec<(u32, u64)> = overlaps.map(|(key, _)| *key).into_iter().collect();
        gone.extend(self.bodies.range((pid, body)..(pid, end)).map(|(key, _)| *key));
        for key in gone {
            self.bodies.remove(&key);
        }
        self.order.push_back((call.at_ns, pid, body));
        self.bodies.insert((pid, body), call);
    }

    /// The call of which a message is encoded into this buffer, from `at_ns` on.
    pub fn encoded(&mut self, pid: u32, buffer: u64, encoder: u32, at_ns: u64) -> Option<Call> {
        self.forget(at_ns.saturating_sub(LIFETIME_NS));
        let ((owner, body), call) = self.bodies.range_mut(..=(pid, buffer)).next_back()?;
        let inside = *owner == pid && buffer < body.saturating_add(call.len) && call.at_ns <= at_ns;
        // Another function at a stream's place: the memory is something else by now.
        if !inside || *call.encoder.get_or_insert(encoder) != encoder {
            return None;
        }
        Some(call.clone())
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.order.len() * BYTES
    }

    /// When each was made.
    pub fn ages(&self, ages: &mut Ages) {
        self.order.iter().for_each(|(at_ns, ..)| ages.add(*at_ns, BYTES));
    }

    /// Forgets what was made before `before_ns`; returns how many.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let before = self.order.len();
        self.forget(before_ns);
        let evicted = (before - self.order.len()) as u64;
        self.evicted += evicted;
        evicted
    }

    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(at_ns, ..)| *at_ns < before_ns) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((at_ns, pid, body)) = self.order.pop_front() else { return };
        // Unless another one has its place by now.
        if self.bodies.get(&(pid, body)).is_some_and(|call| call.at_ns == at_ns) {
            self.bodies.remove(&(pid, body));
        }
    }
}

/// What a flow has asked for, and what came back. An answer is a message by tonic's codec, decoded by the task that has made the
/// call, of another type than the message that the flow began with: one of the same type is the next of the stream that the task
/// reads. Each call has one type of answers; a stream of them has many messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    calls: u32,
    waiting: bool,
    answers: Vec<u32>,
}

impl Asked {
    /// The flow has made one more call.
    pub fn ask(&mut self) {
        self.calls = self.calls.saturating_add(1);
        self.waiting = true;
    }

    /// Whether nothing has come back since the last call.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether a message decoded by `decoder` is an answer, in a flow whose own message, if it has one, was decoded by `own`.
    pub fn answers(&mut self, decoder: u32, own: Option<u32>) -> bool {
        if self.calls == 0 || Some(decoder) == own {
            return false;
        }
        let mut known = self.answers.contains(&decoder);
        if !known && self.answers.len() < self.calls as usize {
            self.answers.push(decoder);
            known = true;
        }
        self.waiting &= !known;
        known
    }
}

impl Correlator {
    /// A task hands a request to its channel.
    pub(in crate::trace) fn grpc_call(&mut self, record: &GrpcCall) {
        self.counts.grpc_calls += 1;
        let (head, key) = (&record.head, flow_key(&record.head));
        let parent = self.ambient(head, key);
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.asked.ask();
            flow.extend(head.end_ns);
        }
        if record.body == 0 {
            self.counts.grpc_bodies_unknown += 1;
            return;
        }
        let call = Call { key, parent, at_ns: head.start_ns, len: record.body_len, encoder: None };
        self.grpc_calls.add(head.pid, record.body, call);
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Call, FlowKey, GrpcCalls, LIFETIME_NS};
    use crate::trace::parents::flow::Worker;

    fn call(task: u64, at_ns: u64, len: u64) -> Call {
        Call { key: FlowKey { pid: 1, worker: Worker::Task(task) }, parent: None, at_ns, len, encoder: None }
    }

    fn task(calls: &mut GrpcCalls, buffer: u64, encoder: u32, at_ns: u64) -> Option<u64> {
        calls.encoded(1, buffer, encoder, at_ns).map(|call| match call.key.worker {
            Worker::Task(task) => task,
            Worker::Thread(_) => 0,
        })
    }

    #[test]
    fn a_buffer_inside_of_a_body_is_of_its_call() {
        let mut calls = GrpcCalls::default();
        calls.add(1, 1000, call(7, 10, 200));
        calls.add(1, 1200, call(8, 11, 200));
        assert_eq!(task(&mut calls, 1199, 1, 20), Some(7));
        assert_eq!(task(&mut calls, 1200, 1, 20), Some(8));
        assert_eq!(task(&mut calls, 1400, 1, 20), None);
        assert_eq!(task(&mut calls, 999, 1, 20), None);
        assert_eq!(calls.encoded(2, 1100, 1, 20).map(|_| ()), None, "another process");
        // A stream has many messages, and all are by one function.
        assert_eq!(task(&mut calls, 1199, 1, 30), Some(7));
        assert_eq!(task(&mut calls, 1199, 2, 40), None);
    }

    #[test]
    fn memory_that_is_used_again_is_of_the_last_call() {
        let mut calls = GrpcCalls::default();
        calls.add(1, 1000, call(7, 10, 200));
        calls.add(1, 1100, call(8, 11, 200));
        assert_eq!(task(&mut calls, 1050, 1, 20), None);
        assert_eq!(task(&mut calls, 1150, 1, 20), Some(8));
        calls.add(1, 900, call(9, 12, 1000));
        assert_eq!(task(&mut calls, 1150, 1, 20), Some(9));
        assert_eq!(task(&mut calls, 1150, 1, 12 + LIFETIME_NS + 1), None);
        assert!(calls.bodies.is_empty() && calls.order.is_empty());
    }

    #[test]
    fn answers_have_a_type_for_each_call_and_not_that_of_the_flow() {
        let mut asked = Asked::default();
        assert!(!asked.answers(2, Some(1)), "nobody has asked");
        asked.ask();
        assert!(!asked.answers(1, Some(1)), "the next message of the task's own stream");
        assert!(asked.answers(2, Some(1)) && asked.answers(2, Some(1)), "a stream of answers");
        assert!(!asked.answers(3, Some(1)), "one call has one type");
        asked.ask();
        assert!(asked.answers(3, Some(1)) && asked.answers(2, Some(1)));
    }
}

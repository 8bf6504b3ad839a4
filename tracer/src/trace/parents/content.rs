//! Hops inside a process: a message that one worker decoded and another one, to whom it was handed through memory, encodes
//! again, whole or as a part of an answer.
//!
//! What was decoded is remembered by its parts. An encode that is in no flow belongs to the message with which it shares a
//! part that no other message of the last seconds had. Where its parts belong to several, nobody knows.

use crate::model::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::quality::RandomState;

use crate::model::SpanContext;
use crate::protocol::parts::parts;
use crate::trace::memory::Ages;

/// How long a message may wait for its worker, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;
/// Parts that are remembered.
const MAX_PARTS: usize = 1 << 18;
/// About how many bytes one takes: a place in the order, and one in the map, which has room to spare.
const BYTES: usize = size_of::<(u64, (u32, u64))>() + 2 * size_of::<((u32, u64), Part)>();

#[derive(Clone, Debug)]
struct Part {
    at_ns: u64,
    /// None when messages of different traces had it.
    context: Option<SpanContext>,
    /// How often it is in the order of forgetting.
    seen: u32,
}

/// What the encoded bytes say about where they come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// From this message, decoded by then.
    Message(SpanContext, u64),
    /// From several.
    Ambiguous,
}

/// Parts of messages that were decoded in the window, by process.
#[derive(Debug, Default)]
pub struct Contents {
    parts: HashMap<(u32, u64), Part>,
    order: VecDeque<(u64, (u32, u64))>,
    seed: RandomState,
    /// Parts forgotten before their time, because there were too many.
    pub evicted: u64,
}

impl Contents {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.order.len() * BYTES
    }

    /// When each was decoded.
    pub fn ages(&self, ages: &mut Ages) {
        self.order.iter().for_each(|(at_ns, _)| ages.add(*at_ns, BYTES));
    }

    /// Forgets what was decoded before `before_ns`; returns how many parts that were.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let before = self.order.len();
        self.forget(before_ns);
        let evicted = (before - self.order.len()) as u64;
        self.evicted += evicted;
        evicted
    }

    /// A process has decoded a message; `context` is that of its handling.
    pub fn decoded(&mut self, pid: u32, message: &[u8], context: &SpanContext, at_ns: u64) {
        self.forget(at_ns.saturating_sub(WINDOW_NS));
        for part in parts(message) {
            if self.order.len() >= MAX_PARTS {
                self.evicted += 1;
                self.pop();
            }
            let key = (pid, hash(&self.seed, part));
            self.order.push_back((at_ns, key));
            let known =
                self.parts.entry(key).or_insert_with(|| Part { at_ns, context: Some(context.clone()), seen: 0 });
            known.seen += 1;
            known.at_ns = at_ns;
            if known.context.as_ref().is_some_and(|other| other.trace_id != context.trace_id) {
                known.context = None;
            } else if known.context.is_some() {
                // The last who had it.
                known.context = Some(context.clone());
            }
        }
    }

    /// A process encodes a message that is in no flow.
    pub fn encoded(&self, pid: u32, message: &[u8], at_ns: u64) -> Option<Source> {
        let mut found: Option<&Part> = None;
        for part in parts(message) {
            let Some(known) = self.parts.get(&(pid, hash(&self.seed, part))) else { continue };
            let Some(context) = &known.context else { continue };
            if known.at_ns > at_ns || known.at_ns.saturating_add(WINDOW_NS) < at_ns {
                continue;
            }
            match found.and_then(|found| found.context.as_ref()).map(|other| other.trace_id) {
                Some(trace) if trace != context.trace_id => return Some(Source::Ambiguous),
                _ => {}
            }
            if found.is_none_or(|found| found.at_ns < known.at_ns) {
                found = Some(known);
            }
        }
        found.and_then(|part| Some(Source::Message(part.context.clone()?, part.at_ns)))
    }

    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(at_ns, _)| *at_ns < before_ns) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Some(part) = self.parts.get_mut(&key) {
            part.seen -= 1;
            if part.seen == 0 {
                self.parts.remove(&key);
            }
        }
    }
}

fn hash(seed: &RandomState, part: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(part);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpanId, TraceId};

    const S: u64 = 1_000_000_000;

    fn context(trace: u8, span: u8) -> SpanContext {
        SpanContext {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([span; 8]),
            flags: 1,
            remote: false,
            trace_state: "".into(),
        }
    }

    /// A message with texts in its fields.
    fn message(texts: &[&str]) -> Vec<u8> {
        let field = |(index, text): (usize, &&str)| {
            let mut bytes = vec![(index as u8 + 1) << 3 | 2, text.len() as u8];
            bytes.extend(text.as_bytes());
            bytes
        };
        texts.iter().enumerate().flat_map(field).collect()
    }

    const ORDER_1: &str = "order 1 of account 12";
    const ORDER_2: &str = "order 2 of account 12";
    const ACCOUNT: &str = "account number 12";

    fn source(contents: &Contents, texts: &[&str], at_ns: u64) -> Option<u8> {
        match contents.encoded(1, &message(texts), at_ns)? {
            Source::Message(context, _) => Some(context.span_id.0[0]),
            Source::Ambiguous => Some(0),
        }
    }

    #[test]
    fn an_answer_belongs_to_the_message_with_which_it_shares_a_part_of_its_own() {
        let mut contents = Contents::default();
        contents.decoded(1, &message(&[ORDER_1, ACCOUNT]), &context(1, 1), S);
        contents.decoded(1, &message(&[ORDER_2, ACCOUNT]), &context(2, 2), S);
        assert_eq!(source(&contents, &["new", ORDER_2], 2 * S), Some(2));
        assert_eq!(source(&contents, &[ORDER_1, ACCOUNT], 2 * S), Some(1));
        assert_eq!(source(&contents, &[ACCOUNT], 2 * S), None, "both had it");
        assert_eq!(source(&contents, &["something else altogether"], 2 * S), None);
        assert_eq!(source(&contents, &[ORDER_1, ORDER_2], 2 * S), Some(0), "ambiguous");
    }

    #[test]
    fn other_processes_the_future_and_the_far_past_do_not_count() {
        let mut contents = Contents::default();
        contents.decoded(2, &message(&[ORDER_1]), &context(1, 1), S);
        contents.decoded(1, &message(&[ORDER_2]), &context(2, 2), S);
        assert_eq!(source(&contents, &[ORDER_1], 2 * S), None);
        assert_eq!(source(&contents, &[ORDER_2], S - 1), None);
        assert_eq!(source(&contents, &[ORDER_2], 12 * S), None);
        contents.decoded(3, &message(&[ORDER_1]), &context(3, 3), 20 * S);
        assert!(contents.parts.keys().all(|(pid, _)| *pid == 3) && contents.order.len() == contents.parts.len());
    }

    #[test]
    fn the_last_message_of_a_trace_with_the_part_is_the_parent() {
        let mut contents = Contents::default();
        contents.decoded(1, &message(&[ORDER_1]), &context(1, 1), S);
        contents.decoded(1, &message(&[ORDER_1, "the report"]), &context(1, 2), 2 * S);
        assert_eq!(source(&contents, &[ORDER_1], 3 * S), Some(2));
    }
}

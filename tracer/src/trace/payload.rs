//! Hops without headers: bytes that one process encoded and another one decoded, over whatever lay between them.
//!
//! A message is known again by its size and the bytes that were captured of it. If it was encoded once in the window, the span that
//! encoded it is the parent. If equal messages were encoded (heartbeats), nobody can tell them apart: they are matched in
//! order for each pair of processes, and the result is a span link.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};

use super::span::{Link, SpanContext, Value};

/// How long a message may be on its way, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;
/// Messages on their way that are kept.
const MAX_SENT: usize = 1 << 17;

/// What a message is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print {
    size: u64,
    hash: u64,
}

impl Print {
    /// Of a message of `size` bytes, with its first bytes and the last ones where it was not captured whole.
    /// None of an empty message, and where bytes are missing.
    pub fn of(size: Option<u64>, prefix: &[u8], tail: &[u8]) -> Option<Self> {
        let size = size.filter(|size| *size > 0)?;
        let captured = (prefix.len() + tail.len()) as u64;
        let whole = captured == size || (!tail.is_empty() && captured < size);
        whole.then(|| {
            let mut hasher = DefaultHasher::new();
            hasher.write(prefix);
            hasher.write(tail);
            Self { size, hash: hasher.finish() }
        })
    }
}

/// Where a decoded message comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The span that encoded it.
    Parent(SpanContext),
    /// One of several that encoded equal messages.
    Ambiguous(Link),
}

#[derive(Clone, Debug)]
struct Sent {
    pid: u32,
    context: SpanContext,
    at_ns: u64,
    /// Processes that have decoded it.
    received: HashSet<u32>,
}

/// Messages that were encoded in the window.
#[derive(Debug, Default)]
pub struct Payloads {
    sent: HashMap<Print, VecDeque<Sent>>,
    /// In order of time, to forget them.
    order: VecDeque<(u64, Print)>,
    /// Messages forgotten before their time, because there were too many.
    pub evicted: u64,
}

impl Payloads {
    /// A process has encoded a message.
    pub fn sent(&mut self, print: Print, pid: u32, context: SpanContext, at_ns: u64) {
        self.forget(at_ns.saturating_sub(WINDOW_NS));
        if self.order.len() >= MAX_SENT {
            self.evicted += 1;
            self.pop();
        }
        self.order.push_back((at_ns, print));
        self.sent.entry(print).or_default().push_back(Sent { pid, context, at_ns, received: HashSet::new() });
    }

    /// A process decodes a message, from `at_ns` on.
    pub fn received(&mut self, print: Print, pid: u32, at_ns: u64) -> Option<Origin> {
        let sent = self.sent.get_mut(&print)?;
        let mut others = sent
            .iter_mut()
            .filter(|one| one.pid != pid && one.at_ns <= at_ns && one.at_ns.saturating_add(WINDOW_NS) > at_ns);
        let first = others.next()?;
        let rest: Vec<&mut Sent> = others.collect();
        let mut context = SpanContext { remote: true, ..first.context.clone() };
        if rest.iter().all(|one| one.context.trace_id == context.trace_id) {
            // Forwarded as it is: the last one who did so sent it here.
            let last = rest.into_iter().next_back().unwrap_or(first);
            context.span_id = last.context.span_id;
            last.received.insert(pid);
            return Some(Origin::Parent(context));
        }
        // In order: the first that this process has not had.
        let next = std::iter::once(first).chain(rest).find(|one| !one.received.contains(&pid))?;
        next.received.insert(pid);
        let context = SpanContext { remote: true, ..next.context.clone() };
        Some(Origin::Ambiguous(Link {
            context,
            attributes: vec![("tracer.link".into(), Value::Str("payload".into()))],
        }))
    }

    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(at_ns, _)| *at_ns < before_ns) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((_, print)) = self.order.pop_front() else { return };
        if let Some(sent) = self.sent.get_mut(&print) {
            sent.pop_front();
            if sent.is_empty() {
                self.sent.remove(&print);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::span::{SpanId, TraceId};

    const S: u64 = 1_000_000_000;

    fn print(bytes: &[u8]) -> Print {
        Print::of(Some(bytes.len() as u64), bytes, b"").expect("a whole message")
    }

    fn context(trace: u8, span: u8) -> SpanContext {
        SpanContext {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([span; 8]),
            flags: 1,
            remote: false,
            trace_state: "".into(),
        }
    }

    fn parent(origin: Option<Origin>) -> Option<u8> {
        match origin {
            Some(Origin::Parent(context)) => Some(context.span_id.0[0]),
            _ => None,
        }
    }

    fn link(origin: Option<Origin>) -> Option<u8> {
        match origin {
            Some(Origin::Ambiguous(link)) => Some(link.context.span_id.0[0]),
            _ => None,
        }
    }

    #[test]
    fn whole_messages_and_those_with_both_ends_have_a_print() {
        assert!(Print::of(Some(3), b"abc", b"").is_some());
        assert!(Print::of(Some(9), b"abc", b"xyz").is_some());
        for (size, prefix) in [(None, &b"abc"[..]), (Some(0), b""), (Some(4), b"abc"), (Some(9), b"")] {
            assert_eq!(Print::of(size, prefix, b""), None);
        }
        assert_ne!(print(b"abc"), print(b"abd"));
    }

    #[test]
    fn what_was_encoded_once_is_the_parent_for_each_process_that_decodes_it() {
        let mut payloads = Payloads::default();
        payloads.sent(print(b"order 1"), 1, context(1, 1), S);
        payloads.sent(print(b"order 2"), 1, context(2, 2), S);
        assert_eq!(parent(payloads.received(print(b"order 2"), 2, 2 * S)), Some(2));
        assert_eq!(parent(payloads.received(print(b"order 1"), 2, 2 * S)), Some(1));
        assert_eq!(parent(payloads.received(print(b"order 1"), 3, 2 * S)), Some(1));
    }

    #[test]
    fn neither_the_own_process_nor_the_future_nor_the_far_past_is_an_origin() {
        let mut payloads = Payloads::default();
        payloads.sent(print(b"order"), 1, context(1, 1), S);
        assert_eq!(payloads.received(print(b"order"), 1, 2 * S), None);
        assert_eq!(payloads.received(print(b"order"), 2, S - 1), None);
        assert_eq!(payloads.received(print(b"order"), 2, 11 * S), None);
        payloads.sent(print(b"other"), 1, context(2, 2), 20 * S);
        assert_eq!((payloads.sent.len(), payloads.order.len()), (1, 1));
    }

    #[test]
    fn equal_messages_are_links_in_order_for_each_pair() {
        let mut payloads = Payloads::default();
        for span in 1..=3 {
            payloads.sent(print(b"heartbeat"), 1, context(span, span), S);
        }
        for receiver in [2, 3] {
            let found: Vec<_> = (0..4).map(|_| link(payloads.received(print(b"heartbeat"), receiver, 2 * S))).collect();
            assert_eq!(found, [Some(1), Some(2), Some(3), None]);
        }
    }

    #[test]
    fn a_forwarded_message_comes_from_the_last_sender_of_its_trace() {
        let mut payloads = Payloads::default();
        payloads.sent(print(b"order"), 1, context(1, 1), S);
        assert_eq!(parent(payloads.received(print(b"order"), 2, 2 * S)), Some(1));
        payloads.sent(print(b"order"), 2, context(1, 2), 2 * S);
        assert_eq!(parent(payloads.received(print(b"order"), 3, 3 * S)), Some(2));
    }

    #[test]
    fn memory_is_bounded() {
        let mut payloads = Payloads::default();
        for index in 0..MAX_SENT as u64 + 10 {
            payloads.sent(print(&index.to_le_bytes()), 1, context(1, 1), S);
        }
        assert_eq!((payloads.order.len(), payloads.sent.len(), payloads.evicted), (MAX_SENT, MAX_SENT, 10));
    }
}

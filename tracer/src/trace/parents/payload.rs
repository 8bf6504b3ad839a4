//! Hops without headers: bytes that one process encoded and another one decoded, over whatever lay between them.
//!
//! A message is known again by its size and the bytes that were captured of it. If it was encoded once in the window, the span that
//! encoded it is the parent. If equal messages were encoded (heartbeats), nobody can tell them apart: they are matched in
//! order for each pair of processes, and the result is a span link.

use crate::model::HashMap;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher as _};

use smallvec::SmallVec;

use crate::model::{Link, SpanContext, Value};
use crate::trace::memory::Ages;

/// How long a message may be on its way, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;
/// Messages on their way that are kept.
const MAX_SENT: usize = 1 << 17;
/// About how many bytes one takes: a place in the order, and one in the map, which has room to spare.
const BYTES: usize = size_of::<(u64, Print, u32)>() + 2 * size_of::<(Print, Senders)>();

/// In place of the process that has encoded a message: any process may have received it, that one as well.
pub const ANY_RECEIVER: u32 = 0;

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

/// Equal messages of one process, in order of time. No step looks at all of them: there may be a hundred thousand.
#[derive(Debug)]
struct Sender {
    pid: u32,
    /// Most messages are the only one of their kind: it is in place.
    oldest: (u64, SpanContext),
    later: VecDeque<(u64, SpanContext)>,
    /// Number of the oldest.
    first: u64,
    /// Neighbours of different traces.
    changes: usize,
    /// The number of the next one, for each process that has decoded some.
    next: Vec<(u32, u64)>,
}

impl Sender {
    fn push(&mut self, at_ns: u64, context: SpanContext) {
        self.changes += usize::from(self.newest().1.trace_id != context.trace_id);
        self.later.push_back((at_ns, context));
    }

    /// Forgets the oldest, unless it is the only one.
    fn pop(&mut self) {
        let Some(next) = self.later.pop_front() else { return };
        self.changes -= usize::from(next.1.trace_id != self.oldest.1.trace_id);
        self.oldest = next;
        self.first += 1;
    }

    fn newest(&self) -> &(u64, SpanContext) {
        self.later.back().unwrap_or(&self.oldest)
    }

    /// The first that a process has not had, sent by `at_ns`.
    fn due(&self, pid: u32, at_ns: u64) -> Option<&(u64, SpanContext)> {
        let next = self.next.iter().find(|(other, _)| *other == pid).map_or(0, |(_, next)| *next);
        let index = usize::try_from(next.saturating_sub(self.first)).ok()?;
        let sent = if index == 0 { Some(&self.oldest) } else { self.later.get(index - 1) };
        sent.filter(|(sent_ns, _)| *sent_ns <= at_ns)
    }

    /// A process has had that one.
    fn take(&mut self, pid: u32) {
        let first = self.first;
        match self.next.iter_mut().find(|(other, _)| *other == pid) {
            Some((_, next)) => *next = (*next).max(first) + 1,
            None => self.next.push((pid, first + 1)),
        }
    }
}

/// Those who sent equal messages; one, mostly.
type Senders = SmallVec<[Sender; 1]>;

/// Messages that were encoded in the window.
#[derive(Debug, Default)]
pub struct Payloads {
    sent: HashMap<Print, Senders>,
    /// In order of time, to forget them.
    order: VecDeque<(u64, Print, u32)>,
    /// Messages forgotten before their time, because there were too many.
    pub evicted: u64,
}

impl Payloads {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.order.len() * BYTES
    }

    /// When each was sent.
    pub fn ages(&self, ages: &mut Ages) {
        self.order.iter().for_each(|(at_ns, ..)| ages.add(*at_ns, BYTES));
    }

    /// Forgets what was sent before `before_ns`; returns how many.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let before = self.order.len();
        self.forget(before_ns);
        let evicted = (before - self.order.len()) as u64;
        self.evicted += evicted;
        evicted
    }

    /// A process has encoded a message.
    pub fn sent(&mut self, print: Print, pid: u32, context: SpanContext, at_ns: u64) {
        self.forget(at_ns.saturating_sub(WINDOW_NS));
        if self.order.len() >= MAX_SENT {
            self.evicted += 1;
            self.pop();
        }
        self.order.push_back((at_ns, print, pid));
        let senders = self.sent.entry(print).or_default();
        match senders.iter_mut().find(|sender| sender.pid == pid) {
            Some(sender) => sender.push(at_ns, context),
            None => senders.push(Sender {
                pid,
                oldest: (at_ns, context),
                later: VecDeque::new(),
                first: 0,
                changes: 0,
                next: Vec::new(),
            }),
        }
    }

    /// A process decodes a message, from `at_ns` on.
    pub fn received(&mut self, print: Print, pid: u32, at_ns: u64) -> Option<Origin> {
        self.forget(at_ns.saturating_sub(WINDOW_NS));
        let others = || self.sent.get(&print).into_iter().flatten().filter(|sender| sender.pid != pid);
        let last = |sender: &Sender| Some(sender.newest()).filter(|(sent_ns, _)| *sent_ns <= at_ns).cloned();
        // Forwarded as it is: the last one who did so sent it here.
        let (_, newest) = others().filter_map(last).max_by_key(|(sent_ns, _)| *sent_ns)?;
        let one_trace = |sender: &Sender| sender.changes == 0 && sender.oldest.1.trace_id == newest.trace_id;
        if others().all(one_trace) {
            return Some(Origin::Parent(SpanContext { remote: true, ..newest }));
        }
        // In order: the first that this process has not had.
        let due = others().filter_map(|sender| sender.due(pid, at_ns).map(|due| (due.0, sender.pid, due.1.clone())));
        let (_, sender, context) = due.min_by_key(|(sent_ns, ..)| *sent_ns)?;
        let senders = self.sent.get_mut(&print).into_iter().flatten();
        senders.filter(|other| other.pid == sender).for_each(|sender| sender.take(pid));
        let context = SpanContext { remote: true, ..context };
        let attributes = vec![("tracer.link".into(), Value::Str("payload".into()))];
        Some(Origin::Ambiguous(Link { context, attributes }))
    }

    fn forget(&mut self, before_ns: u64) {
        while self.order.front().is_some_and(|(at_ns, ..)| *at_ns <= before_ns) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((_, print, pid)) = self.order.pop_front() else { return };
        let Some(senders) = self.sent.get_mut(&print) else { return };
        let Some(index) = senders.iter().position(|sender| sender.pid == pid) else { return };
        if senders[index].later.is_empty() {
            senders.swap_remove(index);
        } else {
            senders[index].pop();
        }
        if senders.is_empty() {
            self.sent.remove(&print);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpanId, TraceId};

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

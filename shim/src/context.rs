//! The context value: which span is active.

use crate::id::{SpanId, TraceId};
use crate::thread;
use std::fmt;
use std::marker::PhantomData;

/// W3C trace flag: the trace is recorded.
pub const FLAG_SAMPLED: u8 = 1;
/// W3C trace flag (level 2): the low 56 bits of the trace id are random.
pub const FLAG_RANDOM: u8 = 2;

/// What a child needs to know of its parent: trace, span, W3C flags, and whether it came from another process.
///
/// It is small, `Copy` and `Send`: put it beside an item in a queue, move it into a thread, or keep it in a struct.
///
/// ```
/// use tracer_shim::{Context, span};
///
/// let span = span("price");
/// let context = Context::current();
/// std::thread::spawn(move || {
///     let _scope = context.attach();
///     assert_eq!(Context::current(), context);
/// })
/// .join()
/// .unwrap();
/// # drop(span);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Context {
    // Words without padding, in memory order: copies go through registers, which is half of a guard's cost.
    trace: [u64; 2],
    span: u64,
    /// W3C flags, and [`REMOTE`].
    bits: u64,
}

const REMOTE: u64 = 1 << 8;

impl Context {
    /// No active span: what begins under it begins a new trace.
    pub const NONE: Self = Self { trace: [0; 2], span: 0, bits: 0 };

    /// A context of this process. Bit 0 of `flags` is [`FLAG_SAMPLED`].
    #[inline]
    pub const fn new(trace_id: TraceId, span_id: SpanId, flags: u8) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = trace_id.to_bytes();
        Self {
            trace: [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)],
            span: u64::from_ne_bytes(span_id.to_bytes()),
            bits: flags as u64,
        }
    }

    #[inline]
    pub(crate) const fn from_words([a, b, span, bits]: [u64; 4]) -> Self {
        Self { trace: [a, b], span, bits }
    }

    #[inline]
    pub(crate) const fn to_words(self) -> [u64; 4] {
        [self.trace[0], self.trace[1], self.span, self.bits]
    }

    /// The same context, marked as received from another process.
    #[inline]
    pub const fn from_remote(self) -> Self {
        Self { bits: self.bits | REMOTE, ..self }
    }

    /// Another span of the same trace, in this process.
    #[inline]
    pub(crate) const fn child(self, span_id: SpanId) -> Self {
        Self { span: u64::from_ne_bytes(span_id.to_bytes()), bits: self.bits & !REMOTE, ..self }
    }

    #[inline]
    pub(crate) fn same_trace(self, other: Self) -> bool {
        self.trace == other.trace
    }

    /// From hexadecimal ids, as a `TraceContext` message carries them; `None` if either is not valid.
    pub fn from_hex(trace_id: &str, span_id: &str, sampled: bool) -> Option<Self> {
        let (trace_id, span_id) = (TraceId::from_hex(trace_id)?, SpanId::from_hex(span_id)?);
        Some(Self::new(trace_id, span_id, if sampled { FLAG_SAMPLED } else { 0 }).from_remote())
    }

    /// From a W3C `traceparent`; `None` if it is not valid. Of versions that are not known yet the known part is read.
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let known = text.as_bytes().first_chunk::<55>()?;
        if known.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let [v0, v1, b'-', rest @ ..] = known else {
            return None;
        };
        let (trace_id, rest) = rest.split_first_chunk::<32>()?;
        let [b'-', rest @ ..] = rest else { return None };
        let (span_id, rest) = rest.split_first_chunk::<16>()?;
        let [b'-', flags @ ..] = rest else {
            return None;
        };
        let (mut version, mut id, mut span, mut bits) = ([0], [0; 16], [0; 8], [0]);
        crate::hex::decode(&[*v0, *v1], &mut version)?;
        crate::hex::decode(trace_id, &mut id)?;
        crate::hex::decode(span_id, &mut span)?;
        crate::hex::decode(flags, &mut bits)?;
        let well_formed = match version {
            [0] => text.len() == 55,
            [0xff] => false,
            _ => text.len() == 55 || text.as_bytes()[55] == b'-',
        };
        let context = Self::new(TraceId::from_bytes(id), SpanId::from_bytes(span), bits[0]).from_remote();
        (well_formed && context.is_valid()).then_some(context)
    }

    /// The context that is active on this thread: that of the innermost guard, else of the last decoded message, else
    /// [`Context::NONE`].
    #[inline]
    pub fn current() -> Self {
        thread::current()
    }

    /// Makes this the active context of the thread until the guard is dropped.
    #[must_use = "the context is active until the guard is dropped"]
    #[inline]
    pub fn attach(self) -> Guard {
        Guard { previous: thread::attach(self), not_send: PhantomData }
    }

    /// A closure that runs `f` under this context, for thread pools and callbacks.
    pub fn bind<R>(self, f: impl FnOnce() -> R) -> impl FnOnce() -> R {
        move || {
            let _scope = self.attach();
            f()
        }
    }

    /// False for [`Context::NONE`] and for any context with an all-zero id.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.trace != [0; 2] && self.span != 0
    }

    /// Trace.
    #[inline]
    pub const fn trace_id(self) -> TraceId {
        let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] =
            [self.trace[0].to_ne_bytes(), self.trace[1].to_ne_bytes()];
        TraceId::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// Span.
    #[inline]
    pub const fn span_id(self) -> SpanId {
        SpanId::from_bytes(self.span.to_ne_bytes())
    }

    /// W3C trace flags.
    #[inline]
    pub const fn trace_flags(self) -> u8 {
        self.bits as u8
    }

    /// The trace is recorded.
    #[inline]
    pub const fn is_sampled(self) -> bool {
        self.trace_flags() & FLAG_SAMPLED != 0
    }

    /// It came from another process.
    #[inline]
    pub const fn is_remote(self) -> bool {
        self.bits & REMOTE != 0
    }
}

/// As W3C `traceparent`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), self.span_id(), self.trace_flags())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self}{})", if self.is_remote() { ", remote" } else { "" })
    }
}

/// Keeps a context active on a thread; dropping it restores the one before. Guards of a thread end in the reverse order
/// of their start, which scopes give for free.
///
/// A guard belongs to its thread. In a future it must not live across an `await`, where other tasks run on the thread:
/// [`crate::FutureExt`] has what a future needs.
#[must_use = "the context is active until the guard is dropped"]
pub struct Guard {
    previous: thread::Saved,
    not_send: PhantomData<*const ()>,
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        thread::restore(self.previous);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_round_trip() {
        let context = Context::from_traceparent(TEXT).expect("it is valid");
        assert_eq!(context.to_string(), TEXT);
        assert!(context.is_sampled() && context.is_remote());
        let later = TEXT.replacen("00", "cc", 1);
        assert_eq!(Context::from_traceparent(&later), Some(context));
        assert_eq!(Context::from_traceparent(&format!("{later}-more")), Some(context));
    }

    #[test]
    fn traceparent_that_is_none() {
        let bad = [
            "",
            &TEXT[..54],
            &format!("{TEXT}-"),
            &TEXT.replacen("00", "ff", 1),
            &TEXT.replacen("00", "cc", 1).replace("-01", "-01x"),
            &TEXT.to_uppercase(),
            &TEXT.replace("b7ad6b7169203331", "0000000000000000"),
            &TEXT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &TEXT.replace('-', "_"),
            &TEXT.replace("-01", "-0g"),
        ];
        for text in bad {
            assert_eq!(Context::from_traceparent(text), None, "{text}");
        }
    }
}

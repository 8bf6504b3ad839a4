//! Names of traces and spans, and what a child knows of its parent (W3C Trace Context).

use std::borrow::Cow;
use std::fmt;

/// 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// False for the all-zero id, which W3C Trace Context forbids.
    pub fn is_valid(self) -> bool {
        self.0 != [0; 16]
    }

    /// From exactly 32 hexadecimal digits; `None` for anything else and for the all-zero id.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id)).filter(|id| id.is_valid())
    }
}

impl SpanId {
    /// False for the all-zero id, which W3C Trace Context forbids.
    pub fn is_valid(self) -> bool {
        self.0 != [0; 8]
    }

    /// From exactly 16 hexadecimal digits; `None` for anything else and for the all-zero id.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut id = [0; 8];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id)).filter(|id| id.is_valid())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// W3C trace flag: the caller recorded this trace.
pub const FLAG_SAMPLED: u8 = 1;

/// W3C trace flag: the low 56 bits of the trace id are random.
pub const FLAG_RANDOM: u8 = 2;

/// What a child needs to know of its parent (W3C Trace Context level 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Trace of the span.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// W3C trace flags: bit 0 sampled, bit 1 random trace id.
    pub flags: u8,
    /// True when it came from another process.
    pub remote: bool,
    /// W3C `tracestate`, empty mostly.
    pub trace_state: Cow<'static, str>,
}

impl SpanContext {
    /// The sampled flag.
    pub fn is_sampled(&self) -> bool {
        self.flags & FLAG_SAMPLED != 0
    }
}

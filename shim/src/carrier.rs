//! Messages that carry a trace context in a field of their own.

use crate::context::Context;
use crate::span::Span;
use std::fmt;

/// The trace header that a message may carry: `proto/trace_context.proto`.
///
/// With the feature `serde` it is `{"trace_id": "..", "span_id": "..", "sampled": true}`.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct TraceContext {
    /// 32 lower-case hexadecimal digits (W3C trace-id).
    #[prost(string, tag = "1")]
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits (W3C parent-id): the sender's active span.
    #[prost(string, tag = "2")]
    pub span_id: String,
    /// The sender records this trace.
    #[prost(bool, tag = "3")]
    pub sampled: bool,
}

impl From<Context> for TraceContext {
    fn from(context: Context) -> Self {
        Self {
            trace_id: context.trace_id().to_string(),
            span_id: context.span_id().to_string(),
            sampled: context.is_sampled(),
        }
    }
}

impl TryFrom<&TraceContext> for Context {
    type Error = NoContext;

    fn try_from(context: &TraceContext) -> Result<Self, NoContext> {
        Self::from_hex(&context.trace_id, &context.span_id, context.sampled).ok_or(NoContext)
    }
}

/// A message carries no valid trace context: the field is not set, or an id in it is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoContext;

impl fmt::Display for NoContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message carries no valid trace context")
    }
}

impl std::error::Error for NoContext {}

/// A message that carries a trace context; made by `#[derive(Span)]`.
pub trait Carrier {
    /// The context that the message carries, if it is valid.
    fn trace_context(&self) -> Option<Context>;

    /// Lets the message carry `context`. A variant of an enum that has no place for it stays as it is.
    fn set_trace_context(&mut self, context: Context);

    /// The message, carrying the context that is active here, if there is one. For messages that are serialised by something
    /// other than [`crate::Message`], which does this by itself.
    #[must_use]
    fn traced(mut self) -> Self
    where
        Self: Sized,
    {
        let context = Context::current();
        if context.is_valid() {
            self.set_trace_context(context);
        }
        self
    }

    /// Begins a span that is a child of the sender's; without a valid context in the message, the first span of a new
    /// trace.
    fn create_span(&self, name: &str) -> Span {
        Span::receive(self.trace_context().unwrap_or(Context::NONE), name)
    }
}

impl<T: Carrier> Carrier for Box<T> {
    fn trace_context(&self) -> Option<Context> {
        T::trace_context(self)
    }

    fn set_trace_context(&mut self, context: Context) {
        T::set_trace_context(self, context);
    }
}

//! Spans of the program's own.

use crate::buffer::Buffer;
use crate::context::{Context, Guard};
use crate::record::{Kind, Operation, Status, Value};
use crate::start::Started;
use crate::{os, site, thread};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Begins a span that is active until the guard is dropped.
///
/// ```
/// let mut span = tracer_shim::span("price");
/// span.attribute("symbol", "ACME").attribute("lots", 3);
/// ```
#[inline]
pub fn span(name: &str) -> SpanGuard {
    Span::new(name).entered()
}

/// Begins the handling of the message that was decoded last on this thread: a span of kind consumer that is active until
/// the guard is dropped.
///
/// ```
/// use tracer_shim::Message;
/// # let bytes = Vec::new();
/// let order = String::decode(&bytes[..])?;
/// let mut processing = tracer_shim::process("process order");
/// if order.is_empty() {
///     processing.error("empty order");
/// }
/// # Ok::<(), prost::DecodeError>(())
/// ```
#[inline]
pub fn process(name: &str) -> SpanGuard {
    Span::child_of(thread::current(), Operation::Process, Kind::Consumer, name).entered()
}

/// A span that has begun and ends when it is dropped. It is not active by itself: [`Span::enter`] makes it so on a thread,
/// and [`crate::FutureExt::in_span`] in a future. What does not fit into the span's 1024 bytes is counted, not kept.
///
/// When nobody listens, or its trace is not sampled, a span does nothing.
#[must_use = "the span ends when it is dropped"]
pub struct Span {
    started: Started,
    record: Buffer,
}

impl Span {
    /// A child of the active context.
    #[inline]
    pub fn new(name: &str) -> Self {
        Self::child_of(thread::current(), Operation::Custom, Kind::Internal, name)
    }

    /// A child of `parent`; with [`Context::NONE`] the first span of a new trace.
    #[inline]
    pub fn with_parent(parent: Context, name: &str) -> Self {
        Self::child_of(parent, Operation::Custom, Kind::Internal, name)
    }

    #[inline]
    pub(crate) fn child_of(parent: Context, operation: Operation, kind: Kind, name: &str) -> Self {
        let started = if site::enabled() {
            Started::new(parent, name)
        } else {
            Started::ignored(parent)
        };
        let mut record = Buffer::new(operation, kind, if started.recorded { name } else { "" });
        if started.recorded {
            record.head.start_ns = os::monotonic();
        }
        Self { started, record }
    }

    /// Sets the kind.
    pub fn kind(&mut self, kind: Kind) -> &mut Self {
        self.record.head.kind = kind as u8;
        self
    }

    /// Adds an attribute: text, a number or a truth value.
    pub fn attribute<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) -> &mut Self {
        if self.started.recorded {
            self.record.attribute(key, value.into());
        }
        self
    }

    /// Adds an event that happens now.
    pub fn event(&mut self, name: &str) -> &mut Self {
        if self.started.recorded {
            self.record.event(name, os::monotonic());
        }
        self
    }

    /// Adds an attribute to the last event.
    pub fn event_attribute<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) -> &mut Self {
        if self.started.recorded {
            self.record.event_attribute(key, value.into());
        }
        self
    }

    /// Links the span to another one that it also belongs to, as the handling of a batch does to each of its messages.
    pub fn link(&mut self, context: Context) -> &mut Self {
        if self.started.recorded && context.is_valid() {
            self.record.link(context);
        }
        self
    }

    /// Marks the span as failed, and says why.
    pub fn error(&mut self, description: &str) -> &mut Self {
        if self.started.recorded {
            self.record.head.status = Status::Error as u8;
            self.record.description(description);
        }
        self
    }

    /// Marks the span as succeeded.
    pub fn ok(&mut self) -> &mut Self {
        self.record.head.status = Status::Ok as u8;
        self
    }

    /// What children of this span see as their parent. It is that of the span's own parent when the span is not recorded.
    pub fn context(&self) -> Context {
        self.started.context
    }

    /// The span is recorded: somebody listens and its trace is sampled.
    pub fn is_recorded(&self) -> bool {
        self.started.recorded
    }

    /// Makes the span the active one on this thread until the guard is dropped. The span goes on after that.
    pub fn enter(&self) -> Guard {
        self.context().attach()
    }

    /// Makes the span the active one on this thread until it ends.
    #[inline]
    pub fn entered(self) -> SpanGuard {
        SpanGuard {
            scope: self.context().attach(),
            span: self,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.started.recorded {
            return;
        }
        if std::thread::panicking() && self.record.head.status == Status::Unset as u8 {
            self.error("panic");
        }
        self.record.head.end_ns = os::monotonic();
        self.started.stamp(&mut self.record);
        self.record.fire();
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// A span that is active on this thread and ends when the guard is dropped.
#[derive(Debug)]
#[must_use = "the span ends when the guard is dropped"]
pub struct SpanGuard {
    // Dropped in this order: the context is restored before the span ends.
    #[expect(dead_code, reason = "held for its drop")]
    scope: Guard,
    span: Span,
}

impl Deref for SpanGuard {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

impl DerefMut for SpanGuard {
    fn deref_mut(&mut self) -> &mut Span {
        &mut self.span
    }
}

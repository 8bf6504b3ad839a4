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

/// Begins the handling of the message that was decoded last on this thread: a span of kind consumer, `process NAME`, that is
/// active until the guard is dropped.
///
/// ```
/// use tracer_shim::Message;
/// # let bytes = Vec::new();
/// let order = String::decode(&bytes[..])?;
/// let mut processing = tracer_shim::process("Order");
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
    context: Context,
    /// The record, of a span that is recorded.
    record: Option<Box<Buffer>>,
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

    /// The handling of a message of another process.
    pub(crate) fn receive(parent: Context, name: &str) -> Self {
        Self::child_of(parent, Operation::Process, Kind::Consumer, name)
    }

    #[inline]
    pub(crate) fn child_of(parent: Context, operation: Operation, kind: Kind, name: &str) -> Self {
        if site::enabled() {
            Self::begin(parent, operation, kind, name)
        } else {
            Self { context: parent, record: None }
        }
    }

    #[cold]
    fn begin(parent: Context, operation: Operation, kind: Kind, name: &str) -> Self {
        let started = Started::new(parent, name);
        let record = started.recorded.then(|| {
            let mut record = pool::take();
            record.begin(operation, kind, name);
            started.stamp(&mut record);
            record.head.start_ns = os::monotonic();
            record
        });
        Self { context: started.context, record }
    }

    /// Sets the kind.
    pub fn kind(&mut self, kind: Kind) -> &mut Self {
        self.update(|record| record.head.kind = kind as u8)
    }

    /// Adds an attribute: text, a number or a truth value.
    pub fn attribute<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) -> &mut Self {
        self.update(|record| record.attribute(key, value.into()))
    }

    /// Adds an event that happens now.
    pub fn event(&mut self, name: &str) -> &mut Self {
        self.update(|record| record.event(name, os::monotonic()))
    }

    /// Adds an attribute to the last event.
    pub fn event_attribute<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) -> &mut Self {
        self.update(|record| record.event_attribute(key, value.into()))
    }

    /// Links the span to another one that it also belongs to, as the handling of a batch does to each of its messages.
    pub fn link(&mut self, context: Context) -> &mut Self {
        self.update(|record| {
            if context.is_valid() {
                record.link(context);
            }
        })
    }

    /// Marks the span as failed, and says why.
    pub fn error(&mut self, description: &str) -> &mut Self {
        self.update(|record| {
            record.head.status = Status::Error as u8;
            record.description(description);
        })
    }

    /// Marks the span as succeeded.
    pub fn ok(&mut self) -> &mut Self {
        self.update(|record| record.head.status = Status::Ok as u8)
    }

    #[inline]
    fn update(&mut self, change: impl FnOnce(&mut Buffer)) -> &mut Self {
        if let Some(record) = &mut self.record {
            change(record);
        }
        self
    }

    /// What children of this span see as their parent. It is that of the span's own parent when the span is not recorded.
    pub fn context(&self) -> Context {
        self.context
    }

    /// The span is recorded: somebody listens and its trace is sampled.
    pub fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Makes the span the active one on this thread until the guard is dropped. The span goes on after that.
    pub fn enter(&self) -> Guard {
        self.context().attach()
    }

    /// Makes the span the active one on this thread until it ends.
    #[inline]
    pub fn entered(self) -> SpanGuard {
        SpanGuard { scope: self.context().attach(), span: self }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            end(record);
        }
    }
}

#[cold]
fn end(mut record: Box<Buffer>) {
    if std::thread::panicking() && record.head.status == Status::Unset as u8 {
        record.head.status = Status::Error as u8;
        record.description("panic");
    }
    record.head.end_ns = os::monotonic();
    record.fire();
    pool::give_back(record);
}

/// Records of ended spans, for the next ones on the thread: a span allocates only where it is one of more at a time than
/// the thread has had.
mod pool {
    use crate::buffer::Buffer;
    use std::cell::RefCell;

    /// More than this are given back to the allocator.
    const KEPT: usize = 16;

    thread_local! {
        #[expect(clippy::vec_box, reason = "boxes go in and out")]
        static FREE: RefCell<Vec<Box<Buffer>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> Box<Buffer> {
        FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten().unwrap_or_default()
    }

    pub(super) fn give_back(record: Box<Buffer>) {
        // A thread that is ending has no pool any more: the box is dropped with the closure.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(record);
            }
        });
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("context", &self.context).field("recorded", &self.is_recorded()).finish()
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

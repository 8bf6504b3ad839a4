//! The beginning of a span: its ids, and whether it is recorded.

use crate::buffer::Buffer;
use crate::context::{Context, FLAG_RANDOM, FLAG_SAMPLED};
use crate::id::SpanId;
use crate::record::{NO_THRESHOLD, PARENT_REMOTE};
use crate::{sampling, thread};

/// A span that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// What its children see: the span's own context, or that of its parent when the span is not recorded.
    pub(crate) context: Context,
    parent: Context,
    pub(crate) recorded: bool,
    threshold: u64,
}

impl Started {
    /// Not recorded: its children are its parent's.
    fn ignored(parent: Context) -> Self {
        Self { context: parent, parent, recorded: false, threshold: NO_THRESHOLD }
    }

    /// A child of `parent`, or the first span of a new trace.
    pub(crate) fn new(parent: Context, name: &str) -> Self {
        if !parent.is_valid() {
            return Self::root(name);
        }
        if !parent.is_sampled() {
            return Self::ignored(parent);
        }
        let context = parent.child(thread::ids(|ids| ids.span_id()));
        Self { context, parent, recorded: true, threshold: NO_THRESHOLD }
    }

    fn root(name: &str) -> Self {
        let (trace_id, span_id) = thread::ids(|ids| (ids.trace_id(), ids.span_id()));
        let threshold = sampling::threshold(name);
        let recorded = sampling::randomness(trace_id) >= threshold;
        let flags = FLAG_RANDOM | if recorded { FLAG_SAMPLED } else { 0 };
        Self { context: Context::new(trace_id, span_id, flags), parent: Context::NONE, recorded, threshold }
    }

    /// Writes the ids into a record.
    pub(crate) fn stamp(&self, record: &mut Buffer) {
        let head = &mut record.head;
        head.trace_id = self.context.trace_id().to_bytes();
        head.span_id = self.context.span_id().to_bytes();
        head.trace_flags = self.context.trace_flags();
        head.threshold = self.threshold;
        let parent = if self.parent.is_valid() { self.parent.span_id() } else { SpanId::INVALID };
        head.parent_span_id = parent.to_bytes();
        head.flags |= if self.parent.is_remote() { PARENT_REMOTE } else { 0 };
    }
}

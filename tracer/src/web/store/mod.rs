//! The newest spans within a bound, and the traces in them.
//!
//! Giving and looking do not meet: a batch that comes is put into a list, and whoever looks takes the list and adds it to the
//! [`Traces`]. What is over the bound goes, the oldest first, from the traces while there are any.

mod traces;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::export::Batch;
use crate::model::Span;

pub use traces::{Seen, Trace, Traces};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Spans.
    pub spans: u64,
    /// Bytes, about.
    pub bytes: u64,
}

impl Default for Bound {
    fn default() -> Self {
        Self { spans: 1_000_000, bytes: 2 << 30 }
    }
}

/// What is kept, what came and what went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans that are kept.
    pub kept: u64,
    /// Spans that went because newer ones came.
    pub forgotten: u64,
}

/// The spans that the page shows.
#[derive(Debug)]
pub struct Store {
    bound: Bound,
    new: Mutex<VecDeque<Kept>>,
    traces: Mutex<Traces>,
    spans: AtomicU64,
    bytes: AtomicU64,
    forgotten: AtomicU64,
    /// End of the last span that went, in nanoseconds since 1970.
    cut: AtomicU64,
}

/// A batch and its size.
#[derive(Clone, Debug)]
pub struct Kept {
    batch: Arc<Batch>,
    bytes: u64,
}

impl Store {
    /// Without any spans.
    pub fn new(bound: Bound) -> Self {
        Self {
            bound,
            new: Mutex::default(),
            traces: Mutex::default(),
            spans: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        }
    }

    /// Takes a batch.
    pub fn push(&self, batch: Arc<Batch>) {
        let bytes = batch.spans.iter().map(Span::bytes).sum::<usize>() as u64;
        self.spans.fetch_add(batch.spans.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.new).push_back(Kept { batch, bytes });
        // Somebody is looking: the next batch finds what is over.
        let Ok(mut traces) = self.traces.try_lock() else { return };
        while self.is_over() {
            let Some(oldest) = traces.remove_oldest().or_else(|| lock(&self.new).pop_front()) else { return };
            self.forget(&oldest);
        }
    }

    /// The traces of all that came.
    pub fn look(&self) -> MutexGuard<'_, Traces> {
        let mut traces = lock(&self.traces);
        // What comes meanwhile waits for the next look.
        let new = std::mem::take(&mut *lock(&self.new));
        for kept in new {
            traces.add(kept);
        }
        while self.is_over() {
            let Some(oldest) = traces.remove_oldest() else { break };
            self.forget(&oldest);
        }
        traces.cut_at(self.cut.load(Ordering::Relaxed));
        traces
    }

    /// How many spans there are.
    pub fn counts(&self) -> Counts {
        Counts { kept: self.spans.load(Ordering::Relaxed), forgotten: self.forgotten.load(Ordering::Relaxed) }
    }

    /// How much is kept.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    fn is_over(&self) -> bool {
        self.spans.load(Ordering::Relaxed) > self.bound.spans || self.bytes.load(Ordering::Relaxed) > self.bound.bytes
    }

    fn forget(&self, kept: &Kept) {
        let spans = &kept.batch.spans;
        let last = spans.iter().map(|span| kept.batch.unix_ns(span.end_ns)).max().unwrap_or(0);
        self.cut.fetch_max(last, Ordering::Relaxed);
        self.spans.fetch_sub(spans.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(kept.bytes, Ordering::Relaxed);
        self.forgotten.fetch_add(spans.len() as u64, Ordering::Relaxed);
    }
}

/// Spans are only ever added and removed whole: after a panic of a view they are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

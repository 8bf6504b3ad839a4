//! Which spans are of one trace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use super::Kept;
use crate::export::{Batch, service_name};
use crate::model::{HashMap, HashSet, ProcessId, Resource, Span, SpanKind, Status, TraceId, Value};

/// Threads that look at spans at the same time, at most.
const MAX_WORKERS: usize = 8;

/// Where a span is: number of its batch, and its place there.
#[derive(Clone, Copy, Debug)]
struct Place {
    batch: u64,
    at: u32,
}

/// The spans of one trace, and what a list shows of it.
#[derive(Debug)]
pub struct Trace {
    spans: Vec<Place>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// The same.
    pub end: u64,
    /// Spans with an error.
    pub errors: u32,
    /// The first span that has no parent, else the first that came.
    root: Place,
    has_root: bool,
}

impl Trace {
    /// Nanoseconds from the first start to the last end.
    pub fn duration(&self) -> u64 {
        self.end - self.start
    }

    /// How many spans it has.
    pub fn len(&self) -> usize {
        self.spans.len()
    }
}

/// All traces of the batches that were looked at.
#[derive(Debug, Default)]
pub struct Traces {
    batches: VecDeque<Kept>,
    /// Number of the first of them.
    first: u64,
    traces: HashMap<TraceId, Trace>,
    services: HashMap<ProcessId, Arc<str>>,
    /// Traces that began before this have lost spans, or may have.
    cut: u64,
}

/// A span with its batch.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Knows its wall-clock time and its resource.
    pub batch: &'a Arc<Batch>,
    /// The span.
    pub span: &'a Span,
    /// `service.name`.
    pub service: &'a str,
}

impl<'a> Seen<'a> {
    /// Nanoseconds since 1970.
    pub fn start(&self) -> u64 {
        self.batch.unix_ns(self.span.start_ns)
    }

    /// The same, never before the start.
    pub fn end(&self) -> u64 {
        self.batch.unix_ns(self.span.end_ns).max(self.start())
    }

    /// Nanoseconds.
    pub fn duration(&self) -> u64 {
        self.end() - self.start()
    }

    /// Whether it failed.
    pub fn is_error(&self) -> bool {
        matches!(self.span.status, Status::Error(_))
    }

    /// What is known of its process.
    pub fn resource(&self) -> &'a Arc<Resource> {
        self.batch.resource(self.span.process)
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&'a Value> {
        self.span.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A text among the attributes.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The server's part of a command of a database, which is below the client's span of the same command.
    pub fn is_servers_side(&self) -> bool {
        self.span.kind == SpanKind::Server && self.attribute("db.system.name").is_some()
    }
}

impl Traces {
    /// Adds the spans of a batch.
    pub(super) fn add(&mut self, kept: Kept) {
        let number = self.first + self.batches.len() as u64;
        for (process, resource) in &kept.batch.resources {
            let name = service_name(resource);
            if self.services.get(process).is_none_or(|known| **known != *name) {
                self.services.insert(*process, name.into());
            }
        }
        for (at, span) in kept.batch.spans.iter().enumerate() {
            let place = Place { batch: number, at: at as u32 };
            let start = kept.batch.unix_ns(span.start_ns);
            let end = kept.batch.unix_ns(span.end_ns).max(start);
            let trace = self.traces.entry(span.trace_id).or_insert_with(|| Trace {
                spans: Vec::new(),
                start,
                end,
                errors: 0,
                root: place,
                has_root: false,
            });
            trace.spans.push(place);
            (trace.start, trace.end) = (trace.start.min(start), trace.end.max(end));
            trace.errors += u32::from(matches!(span.status, Status::Error(_)));
            if span.parent.is_none() && !trace.has_root {
                (trace.root, trace.has_root) = (place, true);
            }
        }
        self.batches.push_back(kept);
    }

    /// Takes the oldest batch out, and all traces that have a span in it.
    pub(super) fn remove_oldest(&mut self) -> Option<Kept> {
        let oldest = self.batches.pop_front()?;
        self.first += 1;
        for span in &oldest.batch.spans {
            self.traces.remove(&span.trace_id);
        }
        if self.batches.is_empty() {
            self.services.clear();
        }
        Some(oldest)
    }

    /// Traces that began before this time are not whole.
    pub(super) fn cut_at(&mut self, cut: u64) {
        self.cut = cut;
    }

    /// The traces of which nothing was forgotten, in no order.
    pub fn whole(&self) -> impl Iterator<Item = (TraceId, &Trace)> {
        self.traces.iter().filter(|(_, trace)| trace.start > self.cut).map(|(id, trace)| (*id, trace))
    }

    /// One of them.
    pub fn get(&self, id: TraceId) -> Option<&Trace> {
        self.traces.get(&id).filter(|trace| trace.start > self.cut)
    }

    /// The spans of a trace, in the order they came.
    pub fn spans<'a>(&'a self, trace: &'a Trace) -> impl Iterator<Item = Seen<'a>> {
        trace.spans.iter().filter_map(|place| self.seen(*place))
    }

    /// The span that a list names a trace by.
    pub fn root<'a>(&'a self, trace: &Trace) -> Option<Seen<'a>> {
        self.seen(trace.root)
    }

    /// All spans that are kept, the first that came first.
    pub fn all_spans(&self) -> impl Iterator<Item = Seen<'_>> {
        self.batches.iter().flat_map(|kept| {
            kept.batch.spans.iter().map(|span| Seen { batch: &kept.batch, span, service: self.service(span) })
        })
    }

    /// Looks at all spans on all processors, in the order in which they are in memory. Each processor collects into a value of its
    /// own; they are returned in the order of the spans.
    pub fn collect<'a, C: Default + Send>(&'a self, look: impl Fn(&mut C, Seen<'a>) + Sync) -> Vec<C> {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let share = self.batches.len().div_ceil(workers).max(1);
        let starts = (0..self.batches.len()).step_by(share);
        let work = |start: usize| {
            let mut collected = C::default();
            for kept in self.batches.range(start..self.batches.len().min(start + share)) {
                for span in &kept.batch.spans {
                    look(&mut collected, Seen { batch: &kept.batch, span, service: self.service(span) });
                }
            }
            collected
        };
        thread::scope(|scope| {
            let workers: Vec<_> = starts.map(|start| scope.spawn(move || work(start))).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, C>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        })
    }

    /// Processes of a service.
    pub fn processes(&self, service: &str) -> HashSet<ProcessId> {
        self.services.iter().filter(|(_, name)| ***name == *service).map(|(process, _)| *process).collect()
    }

    fn service(&self, span: &Span) -> &str {
        self.services.get(&span.process).map_or("unknown_service", |name| name)
    }

    fn seen(&self, place: Place) -> Option<Seen<'_>> {
        let batch = &self.batches.get(place.batch.checked_sub(self.first)? as usize)?.batch;
        let span = batch.spans.get(place.at as usize)?;
        Some(Seen { batch, span, service: self.service(span) })
    }
}

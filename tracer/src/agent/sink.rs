//! Where a session's items go: to the correlator and the exporters, or into a recording as well.

use std::mem;
use std::sync::Arc;

use tracer_common::map::Advice;

use crate::capture::Item;
use crate::capture::recording::{RecordingError, Writer};
use crate::export::Handle;
use crate::trace::{Correlator, Counts, Durations, Wait};

/// Spans that are given to the exporters at once, where as many come before the next tick.
const AT_ONCE: usize = 256;

/// Takes the items of a session in order.
pub trait Sink {
    /// The next item.
    fn item(&mut self, item: &Item<'_>);
    /// Time has passed; `now_ns` is a time of the records' clock.
    fn tick(&mut self, now_ns: u64);
    /// What the eBPF programs should know of connections.
    fn take_advice(&mut self) -> Vec<(u64, Advice)>;
    /// Connections that are gone.
    fn take_closed(&mut self) -> Vec<u64>;

    /// Servers of databases whose connections turned out to be encrypted since the last call, with the process.
    fn take_encrypted(&mut self) -> Vec<(u32, Arc<str>)>;
}

/// Makes spans and gives them to the exporters.
pub struct SpanSink {
    correlator: Correlator,
    exporters: Handle,
}

impl SpanSink {
    /// Spans of `correlator` go to `exporters`.
    pub fn new(correlator: Correlator, exporters: Handle) -> Self {
        Self { correlator, exporters }
    }

    /// Ends what is open and exports it.
    pub fn end(&mut self) {
        self.correlator.finish();
        self.export();
    }

    /// The same; returns what became of the records.
    pub fn finish(mut self) -> Counts {
        self.end();
        self.correlator.counts()
    }

    /// Commands that waited for others since the last call, if the correlator collects them.
    pub fn take_waits(&mut self) -> Vec<Wait> {
        mem::take(&mut self.correlator.output().waits)
    }

    /// What became of the records so far.
    pub fn counts(&self) -> Counts {
        self.correlator.counts()
    }

    /// How long commands took so far.
    pub fn durations(&self) -> &Durations {
        self.correlator.durations()
    }

    fn export(&mut self) {
        let output = self.correlator.output();
        for resource in output.resources.drain(..) {
            self.exporters.resource(resource);
        }
        if !output.spans.is_empty() {
            self.exporters.spans(output.spans.drain(..));
        }
    }
}

impl Sink for SpanSink {
    fn item(&mut self, item: &Item<'_>) {
        self.correlator.feed(item);
        if self.correlator.output().spans.len() >= AT_ONCE {
            self.export();
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.correlator.is_held_elsewhere(self.exporters.bytes());
        self.correlator.tick(now_ns);
        self.export();
    }

    fn take_advice(&mut self) -> Vec<(u64, Advice)> {
        mem::take(&mut self.correlator.output().advice)
    }

    fn take_closed(&mut self) -> Vec<u64> {
        mem::take(&mut self.correlator.output().closed)
    }

    fn take_encrypted(&mut self) -> Vec<(u32, Arc<str>)> {
        mem::take(&mut self.correlator.output().encrypted)
    }
}

/// Writes a recording. A correlator runs along, because the programs need its advice; its spans are dropped.
pub struct Recorder {
    writer: Writer,
    correlator: Correlator,
    error: Option<RecordingError>,
}

impl Recorder {
    /// Writes to `writer`.
    pub fn new(writer: Writer, correlator: Correlator) -> Self {
        Self { writer, correlator, error: None }
    }

    /// Whether writing has failed; nothing is written any more then.
    pub fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// What became of the records so far.
    pub fn counts(&self) -> Counts {
        self.correlator.counts()
    }

    /// The writer, to end the recording, and what became of the records.
    ///
    /// # Errors
    /// The first error of writing.
    pub fn finish(self) -> Result<(Writer, Counts), RecordingError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok((self.writer, self.correlator.counts())),
        }
    }
}

impl Sink for Recorder {
    fn item(&mut self, item: &Item<'_>) {
        self.correlator.feed(item);
        let output = self.correlator.output();
        output.spans.clear();
        output.resources.clear();
        if self.error.is_none() {
            self.error = self.writer.write(item).err();
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.correlator.tick(now_ns);
        self.correlator.output().spans.clear();
    }

    fn take_advice(&mut self) -> Vec<(u64, Advice)> {
        mem::take(&mut self.correlator.output().advice)
    }

    fn take_closed(&mut self) -> Vec<u64> {
        mem::take(&mut self.correlator.output().closed)
    }

    fn take_encrypted(&mut self) -> Vec<(u32, Arc<str>)> {
        mem::take(&mut self.correlator.output().encrypted)
    }
}

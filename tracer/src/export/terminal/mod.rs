//! Traces as trees, for people who watch.
//!
//! A trace is held until nothing has come for a moment, then printed whole. What comes later is printed as a continuation.
//! Nobody reads thousands of lines a second, so on a terminal the lines are limited, and the rest is counted.

mod line;
mod tree;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Batch, Cause, Exporter, Feed, Tally};
use crate::model::{Span, SpanId, TraceId};

/// A trace is printed when nothing came for this long.
const QUIET: Duration = Duration::from_millis(400);
/// Or, while the parent of one of its spans has not come, for this long: the handling of a message ends when nothing has happened in
/// it for two seconds, later than all that is below it.
const QUIET_WITHOUT_PARENT: Duration = Duration::from_millis(2_600);
/// Or when its first span came this long ago.
const MAX_HELD: Duration = Duration::from_secs(5);
/// How often held traces are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Spans held; beyond it the oldest traces are printed early.
const MAX_HELD_SPANS: usize = 32_768;
/// Printed traces that are remembered, to tell what continues.
const MAX_REMEMBERED: usize = 4_096;
/// Spans printed of one trace.
const MAX_LINES_PER_TRACE: usize = 200;
/// Lines printed in a second on a terminal.
const LINES_PER_SECOND: usize = 60;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of a line.
    pub width: usize,
    /// ANSI colours.
    pub colour: bool,
    /// Lines in a second, `None` for all.
    pub lines_per_second: Option<usize>,
}

impl Look {
    /// Fits the standard output: a terminal has a width, colours (unless `NO_COLOR` is set) and a reader with limits.
    pub fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self { width: 4_096, colour: false, lines_per_second: None };
        }
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0).max(40));
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width, colour, lines_per_second: Some(LINES_PER_SECOND) }
    }
}

/// Prints traces.
#[derive(Debug)]
pub struct TerminalExporter<W> {
    out: W,
    look: Look,
}

impl TerminalExporter<io::Stdout> {
    /// To the standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout(), Look::of_stdout())
    }
}

impl<W: Write + Send + 'static> TerminalExporter<W> {
    /// To anything.
    pub fn new(out: W, look: Look) -> Self {
        Self { out, look }
    }
}

impl<W: Write + Send + 'static> Exporter for TerminalExporter<W> {
    fn name(&self) -> String {
        "terminal".into()
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let mut traces = Traces::default();
            let mut printer = Printer::new(self.out, self.look, Arc::clone(feed.tally()));
            loop {
                let next = if traces.held.is_empty() && printer.is_quiet() {
                    Ok(feed.next().await)
                } else {
                    timeout(TICK, feed.next()).await
                };
                let now = Instant::now();
                let ended = matches!(next, Ok(None));
                let released = match next {
                    Ok(Some(batch)) => {
                        traces.add(&batch, now);
                        traces.release(now)
                    }
                    Ok(None) => traces.release_all(),
                    Err(_) => traces.release(now),
                };
                if printer.print(&released, now, ended).is_err() || ended {
                    return;
                }
            }
        })
    }
}

/// One trace as a tree, from the batches that hold its spans; empty if none does.
pub fn trace_text(batches: impl Iterator<Item = Arc<Batch>>, trace_id: TraceId, look: Look) -> String {
    let mut spans = Vec::new();
    for batch in batches {
        let own = batch.spans.iter().enumerate().filter(|(_, span)| span.trace_id == trace_id);
        spans.extend(own.map(|(index, _)| Held { batch: Arc::clone(&batch), index }));
    }
    if spans.is_empty() {
        return String::new();
    }
    tree::render(&Part { trace_id, spans, continued: false }, look, MAX_LINES_PER_TRACE)
}

/// A span where it lies.
#[derive(Clone, Debug)]
struct Held {
    batch: Arc<Batch>,
    index: usize,
}

impl Held {
    fn span(&self) -> &Span {
        &self.batch.spans[self.index]
    }
}

/// The spans of a trace that came so far.
#[derive(Debug)]
struct HeldTrace {
    spans: Vec<Held>,
    first: Instant,
    last: Instant,
}

impl HeldTrace {
    fn is_ready(&self, now: Instant) -> bool {
        let quiet = now - self.last;
        now - self.first >= MAX_HELD || quiet >= QUIET_WITHOUT_PARENT || (quiet >= QUIET && !self.lacks_parents())
    }

    /// A span has a parent in its own process that has not come.
    fn lacks_parents(&self) -> bool {
        let own: HashSet<SpanId> = self.spans.iter().map(|held| held.span().span_id).collect();
        let lacks = |span: &Span| !span.parent_remote && span.parent.is_some_and(|parent| !own.contains(&parent));
        self.spans.iter().any(|held| lacks(held.span()))
    }
}

/// Some spans of one trace, to be printed.
#[derive(Debug)]
struct Part {
    trace_id: TraceId,
    spans: Vec<Held>,
    /// Spans of this trace were printed before.
    continued: bool,
}

#[derive(Debug, Default)]
struct Traces {
    held: HashMap<TraceId, HeldTrace>,
    held_spans: usize,
    released: Remembered,
}

impl Traces {
    fn add(&mut self, batch: &Arc<Batch>, now: Instant) {
        for (index, span) in batch.spans.iter().enumerate() {
            let trace = self.held.entry(span.trace_id).or_insert_with(|| HeldTrace {
                spans: Vec::new(),
                first: now,
                last: now,
            });
            trace.last = now;
            trace.spans.push(Held { batch: Arc::clone(batch), index });
        }
        self.held_spans += batch.spans.len();
    }

    /// What is quiet, too old, or too much, oldest first.
    fn release(&mut self, now: Instant) -> Vec<Part> {
        let mut ready: Vec<_> =
            self.held.iter().filter(|(_, trace)| trace.is_ready(now)).map(|(&id, trace)| (trace.first, id)).collect();
        let ready_spans: usize = ready.iter().map(|(_, id)| self.held[id].spans.len()).sum();
        if self.held_spans - ready_spans > MAX_HELD_SPANS {
            return self.release_all();
        }
        ready.sort_unstable();
        ready.into_iter().filter_map(|(_, id)| self.take(id)).collect()
    }

    fn release_all(&mut self) -> Vec<Part> {
        let mut ids: Vec<_> = self.held.iter().map(|(&id, trace)| (trace.first, id)).collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|(_, id)| self.take(id)).collect()
    }

    fn take(&mut self, trace_id: TraceId) -> Option<Part> {
        let trace = self.held.remove(&trace_id)?;
        self.held_spans -= trace.spans.len();
        let continued = !self.released.insert(trace_id);
        Some(Part { trace_id, spans: trace.spans, continued })
    }
}

/// The last trace ids, within a bound.
#[derive(Debug, Default)]
struct Remembered {
    ids: HashSet<TraceId>,
    order: VecDeque<TraceId>,
}

impl Remembered {
    /// False when it was there.
    fn insert(&mut self, id: TraceId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// Writes within the limits, and counts.
struct Printer<W> {
    out: W,
    look: Look,
    tally: Arc<Tally>,
    second: Instant,
    /// Lines of this second.
    lines: usize,
    /// Traces and spans left out in this second.
    left_out: (usize, usize),
}

impl<W: Write> Printer<W> {
    fn new(out: W, look: Look, tally: Arc<Tally>) -> Self {
        Self { out, look, tally, second: Instant::now(), lines: 0, left_out: (0, 0) }
    }

    /// Nothing waits to be said.
    fn is_quiet(&self) -> bool {
        self.left_out == (0, 0)
    }

    /// An error means that nobody reads any more; everything given is counted.
    fn print(&mut self, parts: &[Part], now: Instant, last: bool) -> io::Result<()> {
        let mut broken = None;
        if now - self.second >= Duration::from_secs(1) {
            broken = self.start_second(now).err();
        }
        for part in parts {
            let spans = part.spans.len();
            if broken.is_some() {
                self.tally.dropped(Cause::WriteFailed, spans as u64);
            } else if self.look.lines_per_second.is_some_and(|limit| self.lines >= limit) {
                self.left_out.0 += 1;
                self.left_out.1 += spans;
                self.tally.dropped(Cause::NotShown, spans as u64);
            } else {
                broken = self.print_part(part).err();
            }
        }
        if last && broken.is_none() {
            broken = self.start_second(now).err();
        }
        let Some(error) = broken.or_else(|| self.out.flush().err()) else {
            return Ok(());
        };
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.tally.failed(format!("cannot print spans: {error}"));
        }
        Err(error)
    }

    fn start_second(&mut self, now: Instant) -> io::Result<()> {
        self.second = now;
        self.lines = 0;
        let (traces, spans) = std::mem::take(&mut self.left_out);
        if traces > 0 {
            writeln!(self.out, "… {traces} more traces ({spans} spans)")?;
        }
        Ok(())
    }

    fn print_part(&mut self, part: &Part) -> io::Result<()> {
        let text = tree::render(part, self.look, MAX_LINES_PER_TRACE);
        let shown = part.spans.len().min(MAX_LINES_PER_TRACE);
        self.lines += text.lines().count();
        let result = self.out.write_all(text.as_bytes());
        match &result {
            Ok(()) => {
                self.tally.exported(shown as u64);
                if shown < part.spans.len() {
                    self.tally.dropped(Cause::NotShown, (part.spans.len() - shown) as u64);
                }
            }
            Err(_) => self.tally.dropped(Cause::WriteFailed, part.spans.len() as u64),
        }
        result
    }
}

#[cfg(test)]
mod tests;

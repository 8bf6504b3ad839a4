//! Figures of the last ten seconds, by service and operation, for a screen that somebody watches.

mod row;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

pub use row::Figures;
use row::{Row, SLOT_S, SLOTS};

use super::terminal::{Look, trace_text};
use super::{Batch, Cause, Exporter, Feed};
use crate::export::batch::service_name;
use crate::model::{Span, SpanKind, TraceId, Value};

/// Operations that are kept; a program whose span names have numbers in them does not fill the memory.
const MAX_ROWS: usize = 2_000;
/// Blockers that are kept.
const MAX_BLOCKERS: usize = 1_000;
/// Spans that are kept, so that a trace can be looked at.
const MAX_SPANS: usize = 200_000;

/// A command that made others wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// What held the server's thread.
    pub command: String,
    /// Whose it was.
    pub service: String,
    /// Commands that waited for it.
    pub waiting: u64,
    /// How long they waited for it, all together, in nanoseconds.
    pub total: u64,
}

/// What the exporter writes and the screen reads.
#[derive(Debug)]
pub struct Board {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<(Arc<str>, Arc<str>), Row>,
    /// By command and service.
    blockers: HashMap<(String, String), VecDeque<Waits>>,
    batches: VecDeque<(u64, Arc<Batch>)>,
    spans: usize,
}

/// What waited for a blocker in one slot.
#[derive(Debug)]
struct Waits {
    slot: u64,
    commands: u64,
    seconds: f64,
}

impl Default for Board {
    fn default() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }
}

impl Board {
    /// The figures of all operations, and the blockers, the worst first.
    pub fn figures(&self) -> (Vec<Figures>, Vec<Blocker>) {
        self.figures_at(Instant::now())
    }

    fn figures_at(&self, now: Instant) -> (Vec<Figures>, Vec<Blocker>) {
        let slot = self.slot(now);
        let mut state = self.state();
        state.forget((slot + 1).saturating_sub(SLOTS));
        // The current slot has just begun: what is shown lasted so long.
        let age = (now - self.begun).as_secs_f64();
        let seconds = age.min(((SLOTS - 1) * SLOT_S) as f64 + age % SLOT_S as f64).max(1.0);
        let figures = state.rows.iter().filter_map(|((service, name), row)| row.figures(service, name, seconds));
        let figures = figures.collect();
        let mut blockers: Vec<Blocker> = state
            .blockers
            .iter()
            .map(|((command, service), slots)| Blocker {
                command: command.clone(),
                service: service.clone(),
                waiting: slots.iter().map(|waits| waits.commands).sum(),
                total: (slots.iter().map(|waits| waits.seconds).sum::<f64>() * 1e9) as u64,
            })
            .collect();
        blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.total));
        (figures, blockers)
    }

    /// A trace of the last seconds as a tree, `width` columns wide.
    pub fn trace(&self, trace: TraceId, width: usize) -> String {
        let batches: Vec<Arc<Batch>> = self.state().batches.iter().map(|(_, batch)| Arc::clone(batch)).collect();
        trace_text(batches.into_iter(), trace, Look { width, colour: false, lines_per_second: None })
    }

    fn slot(&self, now: Instant) -> u64 {
        (now - self.begun).as_secs() / SLOT_S
    }

    fn add(&self, batch: &Arc<Batch>, now: Instant) -> u64 {
        let slot = self.slot(now);
        self.state().add(batch, slot)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The figures of a thread that panicked are still figures.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Returns how many spans were left out because there are too many operations.
    fn add(&mut self, batch: &Arc<Batch>, slot: u64) -> u64 {
        let mut left_out = 0;
        for span in &batch.spans {
            if is_servers_side(span) {
                continue;
            }
            let service = service_name(batch.resource(span.process));
            let key = (Arc::from(service), Arc::from(&*span.name));
            if self.rows.len() < MAX_ROWS || self.rows.contains_key(&key) {
                self.rows.entry(key).or_default().add(slot, span);
            } else {
                left_out += 1;
            }
            self.blame(slot, span);
        }
        self.spans += batch.spans.len();
        self.batches.push_back((slot, Arc::clone(batch)));
        while self.spans > MAX_SPANS
            && let Some((_, batch)) = self.batches.pop_front()
        {
            self.spans -= batch.spans.len();
        }
        left_out
    }

    /// The links of a command name those that it waited for.
    fn blame(&mut self, slot: u64, span: &Span) {
        for link in &span.links {
            let find = |name: &str| link.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            let Some(command) = find("tracer.redis.blocked_by").and_then(text) else { continue };
            let service = find("tracer.redis.blocked_by.service").and_then(text).unwrap_or_default();
            let seconds = match find("tracer.redis.blocked_by.duration") {
                Some(Value::Float(seconds)) => *seconds,
                _ => 0.0,
            };
            let key = (command, service);
            if self.blockers.len() >= MAX_BLOCKERS && !self.blockers.contains_key(&key) {
                continue;
            }
            let slots = self.blockers.entry(key).or_default();
            match slots.back_mut().filter(|waits| waits.slot == slot) {
                Some(waits) => (waits.commands, waits.seconds) = (waits.commands + 1, waits.seconds + seconds),
                None => slots.push_back(Waits { slot, commands: 1, seconds }),
            }
        }
    }

    fn forget(&mut self, oldest: u64) {
        self.rows.retain(|_, row| row.forget(oldest));
        self.blockers.retain(|_, slots| {
            slots.retain(|waits| waits.slot >= oldest);
            !slots.is_empty()
        });
        while self.batches.front().is_some_and(|(slot, _)| *slot < oldest)
            && let Some((_, batch)) = self.batches.pop_front()
        {
            self.spans -= batch.spans.len();
        }
    }
}

/// The server's part of a command, which has its row already.
fn is_servers_side(span: &Span) -> bool {
    span.kind == SpanKind::Server && span.attributes.iter().any(|(name, _)| name == "db.system.name")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Keeps the board up to date.
#[derive(Debug)]
pub struct TopExporter {
    board: Arc<Board>,
}

impl TopExporter {
    /// Writes to `board`.
    pub fn new(board: Arc<Board>) -> Self {
        Self { board }
    }
}

impl Exporter for TopExporter {
    fn name(&self) -> String {
        "top".into()
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            while let Some(batch) = feed.next().await {
                let left_out = self.board.add(&batch, Instant::now());
                feed.tally().exported(batch.spans.len() as u64 - left_out);
                feed.tally().dropped(Cause::NotShown, left_out);
            }
        })
    }
}

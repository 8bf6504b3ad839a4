//! What one operation of one service did in the last seconds.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::model::{Span, Status, TraceId, Value};

/// Seconds of one slot.
pub(super) const SLOT_S: u64 = 2;
/// Slots that are shown: the last ten seconds.
pub(super) const SLOTS: u64 = 5;
/// Significant digits of the percentiles.
const DIGITS: u8 = 2;

/// One operation in one slot of time.
#[derive(Debug)]
struct Slot {
    number: u64,
    durations: Histogram<u32>,
    errors: u64,
    waited_s: f64,
    served_s: f64,
    split: u64,
    slowest: (u64, TraceId),
}

/// One operation of one service.
#[derive(Debug, Default)]
pub(super) struct Row {
    slots: VecDeque<Slot>,
}

/// Figures of one operation of one service over the window. Durations are in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// `service.name`
    pub service: String,
    /// Span name.
    pub operation: String,
    /// Spans per second.
    pub rate: f64,
    /// Spans with an error status.
    pub errors: u64,
    /// Median duration.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Longest.
    pub max: u64,
    /// Mean time in the Redis server's queue, where the server is attached to.
    pub waited: Option<u64>,
    /// Mean time that the Redis server worked.
    pub served: Option<u64>,
    /// Trace of the longest one.
    pub slowest: TraceId,
}

impl Row {
    pub(super) fn add(&mut self, number: u64, span: &Span) {
        if self.slots.back().is_none_or(|slot| slot.number != number) {
            self.slots.push_back(Slot {
                number,
                durations: Histogram::new(DIGITS).expect("between 0 and 5 digits"),
                errors: 0,
                waited_s: 0.0,
                served_s: 0.0,
                split: 0,
                slowest: (0, span.trace_id),
            });
        }
        let slot = self.slots.back_mut().expect("it was just pushed");
        let duration = span.end_ns.saturating_sub(span.start_ns);
        // It grows as it has to, so every number fits.
        let _ = slot.durations.record(duration);
        slot.errors += u64::from(matches!(span.status, Status::Error(_)));
        if duration >= slot.slowest.0 {
            slot.slowest = (duration, span.trace_id);
        }
        let seconds = |name| match span.attributes.iter().find(|(key, _)| key == name) {
            Some((_, Value::Float(seconds))) => Some(*seconds),
            _ => None,
        };
        if let (Some(waited), Some(served)) = (seconds("tracer.redis.queue"), seconds("tracer.redis.service")) {
            slot.waited_s += waited;
            slot.served_s += served;
            slot.split += 1;
        }
    }

    /// Forgets slots before `oldest`; says whether anything is left.
    pub(super) fn forget(&mut self, oldest: u64) -> bool {
        while self.slots.front().is_some_and(|slot| slot.number < oldest) {
            self.slots.pop_front();
        }
        !self.slots.is_empty()
    }

    /// The figures over `seconds`, none if nothing happened.
    pub(super) fn figures(&self, service: &str, operation: &str, seconds: f64) -> Option<Figures> {
        let mut all: Histogram<u32> = Histogram::new(DIGITS).expect("between 0 and 5 digits");
        let (mut errors, mut waited, mut served, mut split) = (0, 0.0, 0.0, 0);
        for slot in &self.slots {
            all.add(&slot.durations).ok()?;
            errors += slot.errors;
            waited += slot.waited_s;
            served += slot.served_s;
            split += slot.split;
        }
        let (_, slowest) = self.slots.iter().map(|slot| slot.slowest).max_by_key(|(duration, _)| *duration)?;
        let mean = |sum: f64| (split > 0).then(|| (sum / split as f64 * 1e9) as u64);
        Some(Figures {
            service: service.to_owned(),
            operation: operation.to_owned(),
            rate: all.len() as f64 / seconds,
            errors,
            p50: all.value_at_quantile(0.5),
            p90: all.value_at_quantile(0.9),
            p99: all.value_at_quantile(0.99),
            max: all.max(),
            waited: mean(waited),
            served: mean(served),
            slowest,
        })
    }
}

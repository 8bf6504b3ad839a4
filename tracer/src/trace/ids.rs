//! Trace and span ids: random, but the same for the same seed, so that a recording replays to the same spans.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::model::{SpanId, TraceId};

/// Source of ids.
#[derive(Debug)]
pub struct Ids(SmallRng);

impl Ids {
    /// The same seed gives the same ids.
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A new trace id; its low 56 bits are random, as W3C Trace Context level 2 asks.
    pub fn trace(&mut self) -> TraceId {
        loop {
            let id = TraceId(self.0.random());
            if id.is_valid() {
                return id;
            }
        }
    }

    /// A new span id.
    pub fn span(&mut self) -> SpanId {
        loop {
            let id = SpanId(self.0.random());
            if id.is_valid() {
                return id;
            }
        }
    }
}

//! How long messages are on their way: from the end of the encode in one process to the start of the decode in another.
//!
//! The header of a message names the encode span, so its end is found by the decode's parent. Both processes must be of this
//! host: their clock is the same.

use crate::model::HashMap;

use crate::model::{SpanId, TraceId};
use crate::trace::memory::Ages;

/// Bytes of an entry, with the map's own.
const BYTES: usize = size_of::<((TraceId, SpanId), u64)>() + 1;
/// Ends of encodes kept in each of two halves: about 40 bytes each, and some seconds at the highest rates.
const HALF: usize = 1 << 16;

/// Ends of recent encodes.
#[derive(Debug, Default)]
pub struct Encodes {
    recent: HashMap<(TraceId, SpanId), u64>,
    /// What was recent before; forgotten as a whole, so that no entry has to be looked for.
    older: HashMap<(TraceId, SpanId), u64>,
    /// End of the last one of these.
    older_ns: u64,
}

impl Encodes {
    /// An encode has ended.
    pub fn ended(&mut self, trace: TraceId, span: SpanId, end_ns: u64) {
        if self.recent.len() == HALF {
            self.older = std::mem::take(&mut self.recent);
            self.older_ns = end_ns;
        }
        self.recent.insert((trace, span), end_ns);
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        (self.recent.capacity() + self.older.capacity()) * BYTES
    }

    /// When the older half was complete: the other one is needed.
    pub fn ages(&self, ages: &mut Ages) {
        ages.add(self.older_ns, self.older.capacity() * BYTES);
    }

    /// Forgets the older half if it was complete before `before_ns`; returns how many that were.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        if self.older_ns >= before_ns {
            return 0;
        }
        std::mem::take(&mut self.older).len() as u64
    }

    /// Nanoseconds from the end of the encode `parent` to `start_ns`; `None` if it is not known, or not before that.
    pub fn transit(&self, trace: TraceId, parent: SpanId, start_ns: u64) -> Option<u64> {
        let key = (trace, parent);
        let end = self.recent.get(&key).or_else(|| self.older.get(&key))?;
        start_ns.checked_sub(*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> (TraceId, SpanId) {
        (TraceId([1; 16]), SpanId((n as u64 + 1).to_be_bytes()))
    }

    #[test]
    fn from_encode_to_decode() {
        let mut encodes = Encodes::default();
        let (trace, span) = ids(0);
        encodes.ended(trace, span, 100);
        assert_eq!(encodes.transit(trace, span, 130), Some(30));
        assert_eq!(encodes.transit(trace, span, 130), Some(30), "a message may have several receivers");
        assert_eq!(encodes.transit(trace, span, 99), None, "no message arrives before it is sent");
        assert_eq!(encodes.transit(TraceId([2; 16]), span, 130), None);
        assert_eq!(encodes.transit(trace, ids(1).1, 130), None);
    }

    #[test]
    fn memory_is_bounded_and_the_recent_ones_stay() {
        let mut encodes = Encodes::default();
        for n in 0..5 * HALF {
            encodes.ended(ids(n).0, ids(n).1, n as u64);
        }
        assert!(encodes.recent.len() + encodes.older.len() <= 2 * HALF);
        let known = |n: usize| encodes.transit(ids(n).0, ids(n).1, u64::MAX).is_some();
        assert!(known(5 * HALF - 1) && known(4 * HALF) && !known(0));
    }
}

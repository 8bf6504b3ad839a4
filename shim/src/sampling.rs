//! Which traces are recorded. A span with a parent follows the parent's sampled flag; the first span of a trace is decided
//! here, by consistent probability: it is kept when the low 56 bits of its trace id reach a threshold.
//!
//! The thresholds are in a page of shared memory that the agent may write at any time, without stopping the process. It
//! is the mapping `/memfd:tracer_sampling` in `/proc/PID/maps`, to be opened through `/proc/PID/map_files`. All
//! numbers are little-endian `u64`:
//!
//! | offset | field |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 8 | sequence: odd while the agent writes |
//! | 16 | threshold of what no rule names: 0 keeps all, [`DROP_ALL`] keeps nothing |
//! | 24 | number of rules, at most [`MAX_RULES`] |
//! | 32 | rules: `{ hash, threshold }`, where `hash` is [`name_hash`] of a span's name |
//!
//! The agent writes: sequence + 1, the rest, sequence + 1.

use crate::os::{NamedMemory, Sharing};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};

/// First word of the page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TRCRSMP1");
/// Most rules that the page holds.
pub const MAX_RULES: usize = 252;
/// Threshold that no trace id reaches.
pub const DROP_ALL: u64 = 1 << 56;
/// Name of the mapping.
pub const PAGE_NAME: &str = "tracer_sampling";
/// Size of the page in bytes.
pub const PAGE_LEN: usize = size_of::<Page>();

#[repr(C)]
struct Page {
    magic: AtomicU64,
    sequence: AtomicU64,
    threshold: AtomicU64,
    rules_len: AtomicU64,
    rules: [[AtomicU64; 2]; MAX_RULES],
}

const _: () = assert!(size_of::<Page>() <= 4096);

static PAGE: AtomicPtr<Page> = AtomicPtr::new(std::ptr::null_mut());

/// What rules call a span: FNV-1a, 64 bits, of its name. For messages the name is the Rust type, `my_crate::pb::Order`.
pub const fn name_hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// The threshold for this share of traces: 1 keeps all, 0 none.
pub fn threshold_of(ratio: f64) -> u64 {
    let kept = (ratio.clamp(0.0, 1.0) * DROP_ALL as f64).round() as u64;
    DROP_ALL - kept.min(DROP_ALL)
}

/// What the program asked for with [`set_ratio`].
static DEFAULT: AtomicU64 = AtomicU64::new(0);

/// Makes the page that the agent writes to. A page made before is left alone: another thread may be reading it.
pub(crate) fn publish() {
    let Ok(memory) = NamedMemory::new(c"tracer_sampling", PAGE_LEN, Sharing::Shared) else {
        return;
    };
    let page: *mut Page = memory.leak().cast();
    // SAFETY: a new mapping of this size, page-aligned, kept for good; atomics may hold any value.
    let new = unsafe { &*page };
    new.threshold.store(DEFAULT.load(Ordering::Relaxed), Ordering::Relaxed);
    new.magic.store(MAGIC, Ordering::Release);
    PAGE.store(page, Ordering::Release);
}

/// Keeps this share of the traces that begin in this process, until the agent says otherwise.
pub fn set_ratio(ratio: f64) {
    let threshold = threshold_of(ratio);
    DEFAULT.store(threshold, Ordering::Relaxed);
    if let Some(page) = page() {
        page.threshold.store(threshold, Ordering::Relaxed);
    }
}

fn page() -> Option<&'static Page> {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: null, or a mapping that `publish` made and that is kept for good.
    unsafe { page.as_ref() }
}

/// The threshold for a trace that begins with a span of this name.
pub(crate) fn threshold(name: &str) -> u64 {
    page().map_or_else(|| DEFAULT.load(Ordering::Relaxed), |page| page.threshold(name))
}

impl Page {
    fn threshold(&self, name: &str) -> u64 {
        // The writer is another process: after a few tries take what is there. Any value is safe to act on.
        for _ in 0..3 {
            let before = self.sequence.load(Ordering::Acquire);
            let threshold = self.look_up(name);
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return threshold;
            }
        }
        self.threshold.load(Ordering::Relaxed)
    }

    fn look_up(&self, name: &str) -> u64 {
        let len = (self.rules_len.load(Ordering::Relaxed) as usize).min(MAX_RULES);
        if len > 0 {
            let hash = name_hash(name);
            for [rule, threshold] in &self.rules[..len] {
                if rule.load(Ordering::Relaxed) == hash {
                    return threshold.load(Ordering::Relaxed);
                }
            }
        }
        self.threshold.load(Ordering::Relaxed)
    }
}

/// The 56 bits of a trace id that are compared with a threshold.
pub(crate) fn randomness(trace_id: crate::TraceId) -> u64 {
    let [_, _, _, _, _, _, _, _, low @ ..] = trace_id.to_bytes();
    u64::from_be_bytes(low) & (DROP_ALL - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_the_specification() {
        assert_eq!(threshold_of(1.0), 0);
        assert_eq!(threshold_of(0.25), 0xc0_0000_0000_0000);
        assert_eq!(threshold_of(0.0), DROP_ALL);
        assert_eq!(threshold_of(f64::NAN), DROP_ALL);
        assert_eq!(threshold_of(0.01) >> 36, 0xfd70a);
    }

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(name_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(name_hash("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn rules_go_before_the_default_and_garbage_is_bounded() {
        let page = Page {
            magic: AtomicU64::new(MAGIC),
            sequence: AtomicU64::new(0),
            threshold: AtomicU64::new(7),
            rules_len: AtomicU64::new(1),
            rules: [const { [const { AtomicU64::new(0) }; 2] }; MAX_RULES],
        };
        page.rules[0][0].store(name_hash("a::Order"), Ordering::Relaxed);
        page.rules[0][1].store(DROP_ALL, Ordering::Relaxed);
        assert_eq!((page.threshold("a::Order"), page.threshold("b")), (DROP_ALL, 7));
        page.rules_len.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(page.threshold("b"), 7);
        page.sequence.store(1, Ordering::Relaxed);
        assert_eq!(page.threshold("a::Order"), 7);
    }
}

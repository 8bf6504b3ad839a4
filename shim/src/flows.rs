//! Flows of tokio tasks: the context of the message that a task decoded last, outside of any scope.
//!
//! A fixed table, found by the task's number, which tokio never gives twice. An entry may be pushed out by another task's:
//! then the flow is lost and what follows begins a new trace. It is never another task's flow. No lock, no allocation.

use crate::context::Context;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Tasks with an open flow at a time, roughly. 48 KiB, touched where used.
pub(crate) const SLOTS: usize = 1024;

/// Written by one task at a time, read by any: a sequence lock whose writers give up instead of waiting. The agent's programs read
/// it too: its layout is that of [`crate::record::FLOWS_VERSION`].
#[repr(C)]
pub(crate) struct Slot {
    /// Odd while it is written.
    sequence: AtomicU64,
    task: AtomicU64,
    context: [AtomicU64; 4],
}

pub(crate) static FLOWS: [Slot; SLOTS] = [const {
    Slot { sequence: AtomicU64::new(0), task: AtomicU64::new(0), context: [const { AtomicU64::new(0) }; 4] }
}; SLOTS];

const _: () = assert!(size_of::<Slot>() == crate::record::FLOW_LEN && SLOTS.is_power_of_two());

fn slot(task: NonZeroU64) -> &'static Slot {
    // Numbers are given in sequence, so neighbours do not collide.
    &FLOWS[task.get() as usize % SLOTS]
}

/// The flow of a task, [`Context::NONE`] if it has none.
pub(crate) fn get(task: NonZeroU64) -> Context {
    slot(task).get(task.get()).unwrap_or(Context::NONE)
}

/// Moves the flow of a task.
pub(crate) fn set(task: NonZeroU64, context: Context) {
    slot(task).set(task.get(), context);
}

impl Slot {
    fn get(&self, task: u64) -> Option<Context> {
        let before = self.sequence.load(Ordering::Acquire);
        let found = self.task.load(Ordering::Relaxed);
        let words = self.context.each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let whole = before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before;
        (whole && found == task).then(|| Context::from_words(words))
    }

    fn set(&self, task: u64, context: Context) {
        let before = self.sequence.load(Ordering::Relaxed);
        let lock = |before: u64| {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            before & 1 == 0 && self.sequence.compare_exchange(before, before + 1, success, failure).is_ok()
        };
        if !lock(before) {
            return;
        }
        fence(Ordering::Release);
        self.task.store(task, Ordering::Relaxed);
        for (word, value) in self.context.iter().zip(context.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence.store(before + 2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SpanId, TraceId};

    fn context(n: u64) -> Context {
        let bytes = n.to_ne_bytes();
        Context::new(TraceId::from_bytes([bytes, bytes].concat().try_into().expect("16")), SpanId::from_bytes(bytes), 1)
    }

    #[test]
    fn a_task_that_pushes_another_out_does_not_lend_it_its_flow() {
        let (a, b) = (NonZeroU64::MIN, NonZeroU64::MIN.saturating_add(SLOTS as u64));
        set(a, context(1));
        assert_eq!((get(a), get(b)), (context(1), Context::NONE));
        set(b, context(2));
        assert_eq!((get(a), get(b)), (Context::NONE, context(2)));
    }

    #[test]
    fn readers_never_see_half_of_a_flow_or_anothers() {
        let slot =
            Slot { sequence: AtomicU64::new(0), task: AtomicU64::new(0), context: [const { AtomicU64::new(0) }; 4] };
        std::thread::scope(|scope| {
            for task in [1, 2] {
                let slot = &slot;
                scope.spawn(move || (0..100_000).for_each(|_| slot.set(task, context(task))));
                scope.spawn(move || {
                    for _ in 0..100_000 {
                        let seen = slot.get(task);
                        assert!(seen.is_none_or(|seen| seen == context(task)), "{seen:?}");
                    }
                });
            }
        });
    }
}

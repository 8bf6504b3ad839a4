//! Records on their way to the agent. Each is counted before it is written: due = delivered + ring full.

use core::intrinsics::AtomicOrdering;

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_PROD_POS};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use tracer_common::map::Counter;
use tracer_common::record::{Head, Lifecycle, Short};

use crate::maps::{COUNTERS, EVENTS, LIFECYCLE};

/// The agent drains on a timer: a wake-up per record costs more than the record.
pub const QUIET: u64 = BPF_RB_NO_WAKEUP as u64;
/// For what the agent must act on at once.
const WAKE: u64 = BPF_RB_FORCE_WAKEUP as u64;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    count_all(counter, 1);
}

/// Adds a number to a counter of this CPU.
#[inline(always)]
pub fn count_all(counter: Counter, number: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // Atomic, because a uprobe program can be preempted by another one on its CPU.
        // SAFETY: the pointer is to an aligned, live map value.
        unsafe { core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, number) };
    }
}

/// Reserves room for a `T`; counts it as due, and as lost when the ring is full.
#[inline(always)]
pub fn reserve<T: 'static>(due: Counter, lost: Counter) -> Option<RingBufEntry<T>> {
    count(due);
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        count(lost);
    }
    entry
}

/// Head of a record of the current thread.
#[inline(always)]
pub fn head(kind: u16, start_ns: u64, end_ns: u64) -> Head {
    let pid_tgid = bpf_get_current_pid_tgid();
    Head { kind, pid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, start_ns, end_ns, ..Head::default() }
}

/// Tells the agent about the current process, and wakes it. `about` has what is special to the kind.
#[inline(always)]
pub fn lifecycle(kind: u16, flags: u16, about: Lifecycle) {
    lifecycle_with(kind, flags, about, WAKE);
}

/// Tells the agent about the current process; `wake` says whether that is urgent.
#[inline(always)]
pub fn lifecycle_with(kind: u16, flags: u16, about: Lifecycle, wake: u64) {
    count(Counter::Lifecycle);
    let Some(mut entry) = LIFECYCLE.reserve::<Lifecycle>(0) else {
        count(Counter::LifecycleRingFull);
        return;
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    // SAFETY: reading the clock has no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let position = EVENTS.query(BPF_RB_PROD_POS as u64);
    entry.write(Lifecycle { head: Short { kind, flags, payload_len: 0, pid, tid }, at_ns, position, ..about });
    entry.submit(wake);
}

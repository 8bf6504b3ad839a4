//! Spans of the shim: its one USDT site hands over a finished record.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::Counter;
use tracer_common::record::{Head, KIND_SHIM, SHIM_RECORD};

use crate::emit::{QUIET, count, head, reserve};
use crate::maps::TARGETS;
use crate::memory::copy_user;

#[repr(C)]
struct Slot<const N: usize> {
    head: Head,
    bytes: [u8; N],
}

/// rdi: address of the record; rsi: its length.
#[uprobe]
pub fn shim_span(ctx: ProbeContext) -> u32 {
    if TARGETS.get_ptr((bpf_get_current_pid_tgid() >> 32) as u32).is_none() {
        return 0;
    }
    let (Some(record), Some(len)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return 0 };
    // Most spans are short, and the ring buffer holds four times as many of them.
    if len <= 256 {
        send::<256>(record, len);
    } else {
        send::<SHIM_RECORD>(record, len);
    }
    0
}

#[inline(always)]
fn send<const N: usize>(record: u64, len: u64) {
    let Some(mut entry) = reserve::<Slot<N>>(Counter::Shim, Counter::ShimRingFull) else { return };
    let place = entry.as_mut_ptr();
    // SAFETY: `place` is the reserved entry: live, aligned, and ours until it is submitted.
    let copied = unsafe {
        (&raw mut (*place).head).write(head(KIND_SHIM, 0, 0));
        let bytes = (&raw mut (*place).bytes).cast::<u8>();
        match N {
            256 => copy_user::<256>(bytes, len, record),
            _ => copy_user::<{ SHIM_RECORD as u64 }>(bytes, len, record),
        }
    };
    if !copied {
        count(Counter::UserReadFailed);
    }
    // SAFETY: as above.
    unsafe { (*place).head.payload_len = if copied { len as u32 } else { 0 } };
    entry.submit(QUIET);
}

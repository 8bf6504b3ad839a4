//! Spans of the shim: its one USDT site hands over a finished record.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::Counter;
use tracer_common::record::{KIND_SHIM, SHIM_RECORD, Short};

use crate::emit::{QUIET, count, reserve};
use crate::maps::TARGETS;
use crate::memory::copy_user;
use crate::stack;

#[repr(C)]
struct Slot<const N: usize> {
    head: Short,
    bytes: [u8; N],
}

/// rdi: address of the record; rsi: its length.
#[uprobe]
pub fn shim_span(ctx: ProbeContext) -> u32 {
    span(&ctx);
    stack::of_the_kernel(&ctx);
    0
}

#[inline(always)]
fn span(ctx: &ProbeContext) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    TARGETS.get_ptr((pid_tgid >> 32) as u32)?;
    let (record, len) = (ctx.arg::<u64>(0)?, ctx.arg::<u64>(1)?);
    // Most spans are short: every cache line that a record touches in the ring costs.
    if len <= SMALL {
        send::<{ SMALL as usize }>(pid_tgid, record, len);
    } else if len <= MIDDLE {
        send::<{ MIDDLE as usize }>(pid_tgid, record, len);
    } else {
        send::<SHIM_RECORD>(pid_tgid, record, len);
    }
    Some(())
}

/// With its head and the ring's own this is 160 bytes.
const SMALL: u64 = 136;
const MIDDLE: u64 = 296;

#[inline(always)]
fn send<const N: usize>(pid_tgid: u64, record: u64, len: u64) {
    let Some(mut entry) = reserve::<Slot<N>>(Counter::Shim, Counter::ShimRingFull) else { return };
    let place = entry.as_mut_ptr();
    // SAFETY: `place` is the reserved entry: live, aligned, and ours until it is submitted.
    let copied = unsafe {
        let bytes = (&raw mut (*place).bytes).cast::<u8>();
        match N as u64 {
            SMALL => copy_user::<SMALL>(bytes, len, record),
            MIDDLE => copy_user::<MIDDLE>(bytes, len, record),
            _ => copy_user::<{ SHIM_RECORD as u64 }>(bytes, len, record),
        }
    };
    if !copied {
        count(Counter::UserReadFailed);
    }
    let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    let head = Short { kind: KIND_SHIM, flags: 0, payload_len: if copied { len as u32 } else { 0 }, pid, tid };
    // SAFETY: as above.
    unsafe { (&raw mut (*place).head).write(head) };
    entry.submit(QUIET);
}

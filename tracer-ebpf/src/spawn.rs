//! Which task spawns which: what a message's handler spawns belongs to the message.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::Counter;
use tracer_common::record::{KIND_TASK_SPAWN, TaskSpawn};

use crate::emit::{QUIET, head, reserve};
use crate::maps::TARGETS;
use crate::memory::user;
use crate::{context, stack};

/// Where a task's header has its table of functions. The header begins so since tokio 1.18: state, next, table.
const VTABLE: u64 = 16;
/// Where that table says how far behind the header's beginning the id is: behind seven functions and two other places.
const ID_OFFSET: u64 = 72;
/// The id is in front of the future, so it is near.
const MAX_ID_OFFSET: u64 = 1024;

/// `OwnedTasks<S>::bind_inner(&self, task: NonNull<Header>, ...)` and all others that have a new task in the second register.
#[uprobe]
pub fn task_spawn(ctx: ProbeContext) -> u32 {
    spawn(&ctx);
    stack::of_the_kernel(&ctx);
    0
}

#[inline(always)]
fn spawn(ctx: &ProbeContext) -> Option<()> {
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let target = unsafe { TARGETS.get((bpf_get_current_pid_tgid() >> 32) as u32) }?;
    // SAFETY: the kernel passes the interrupted thread's registers, valid while the program runs.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let child = task_id(regs.rsi).unwrap_or(0);
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut head = head(KIND_TASK_SPAWN, now, now);
    context::fill(&mut head, target);
    let mut entry = reserve::<TaskSpawn>(Counter::TaskSpawns, Counter::TaskSpawnsRingFull)?;
    entry.write(TaskSpawn { head, child });
    entry.submit(QUIET);
    Some(())
}

#[inline(always)]
fn task_id(header: u64) -> Option<u64> {
    let vtable = user::<u64>(header.wrapping_add(VTABLE))?;
    let offset = user::<u64>(vtable.wrapping_add(ID_OFFSET))?;
    if offset >= MAX_ID_OFFSET || offset % 8 != 0 {
        return None;
    }
    user::<u64>(header.wrapping_add(offset))
}

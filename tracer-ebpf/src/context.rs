//! What the interrupted thread was doing: its active trace context (OTEP 4947) and its tokio task.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tracer_common::map::{KernelOffsets, TLS_DTV, TLS_STATIC, Target, TaskFlow, Tls};
use tracer_common::record::{FLAG_CONTEXT, Head};

use crate::maps::OFFSETS;
use crate::memory::{kernel, user};

/// The OTEP 4947 record up to its attributes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ThreadContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    valid: u8,
    trace_flags: u8,
    attrs_size: u16,
}

/// Fills in the context fields of a record. Costs nothing for targets that publish no context.
#[inline(always)]
pub fn fill(head: &mut Head, target: &Target) {
    if target.thread_context.kind == 0 && target.tokio_context.kind == 0 {
        return;
    }
    let Some(offsets) = OFFSETS.get(0) else { return };
    let Some(thread_pointer) = thread_pointer(offsets) else { return };
    if let Some(slot) = slot(thread_pointer, &target.thread_context)
        && let Some(record) = user::<u64>(slot)
        && record != 0
        && let Some(context) = user::<ThreadContext>(record)
        && context.valid == 1
    {
        head.trace_id = context.trace_id;
        head.span_id = context.span_id;
        head.trace_flags = context.trace_flags as u32;
        head.flags |= FLAG_CONTEXT;
    }
    if let Some(slot) = slot(thread_pointer, &target.tokio_context)
        && let Some(task) = user::<u64>(slot + target.task_id_offset as u64)
    {
        head.task_id = task;
        if head.flags & FLAG_CONTEXT == 0 && task != 0 && target.flows != 0 {
            task_flow(head, target, task);
        }
    }
}

/// What the task has decoded last, as the shim knows it: outside of any scope the thread publishes nothing.
#[inline(always)]
fn task_flow(head: &mut Head, target: &Target, task: u64) {
    let Some(table) = user::<u64>(target.flows) else { return };
    let slot = table.wrapping_add((task & target.flows_mask) * size_of::<TaskFlow>() as u64);
    let Some(flow) = user::<TaskFlow>(slot) else { return };
    // Another thread may write it, for another task, while it is copied: then the sequence is another one after that.
    if flow.task != task || flow.sequence & 1 == 1 || user::<u64>(slot) != Some(flow.sequence) {
        return;
    }
    // A task's flow may be none: after a scope in which there was none.
    if flow.trace_id == [0; 16] {
        return;
    }
    head.trace_id = flow.trace_id;
    head.span_id = flow.span_id;
    head.trace_flags = flow.flags as u8 as u32;
    head.flags |= FLAG_CONTEXT;
}

/// The x86-64 thread pointer of the current thread.
#[inline(always)]
fn thread_pointer(offsets: &KernelOffsets) -> Option<u64> {
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    kernel::<u64>(task + offsets.task_fsbase as u64)
}

/// Address of a thread-local variable.
#[inline(always)]
fn slot(thread_pointer: u64, tls: &Tls) -> Option<u64> {
    match tls.kind {
        TLS_STATIC => Some(thread_pointer.wrapping_add_signed(tls.offset)),
        TLS_DTV => {
            let dtv = user::<u64>(thread_pointer + 8)?;
            let block = user::<u64>(dtv + 16 * tls.module as u64)?;
            // glibc writes -1 where a thread has not used the module yet.
            if block == u64::MAX { None } else { Some(block.wrapping_add_signed(tls.offset)) }
        }
        _ => None,
    }
}

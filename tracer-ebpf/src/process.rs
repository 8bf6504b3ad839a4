//! Processes that begin, change their program and end.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::map::{Executable, TARGET_SERVER};
use tracer_common::record::{FLAG_WATCHED, KIND_EXEC, KIND_EXIT, KIND_FORK};

use crate::emit::lifecycle;
use crate::maps::{EXECUTABLES, OFFSETS, TARGETS};
use crate::memory::kernel;
use crate::{message, server, stream};

/// `sched_process_exec(task, old_pid, binprm)`: a restarted target is one from its first instruction on.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let executable = executable(ctx.arg::<u64>(2)).unwrap_or_default();
    server::forget(pid);
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let flags = match unsafe { EXECUTABLES.get(executable) } {
        Some(target) => {
            let _ = TARGETS.insert(pid, target, 0);
            FLAG_WATCHED
        }
        // What was forked from a target is none once it runs another program.
        None => {
            let _ = TARGETS.remove(pid);
            0
        }
    };
    lifecycle(KIND_EXEC, flags, executable.inode, executable.device);
    0
}

/// `sched_process_exit(task)`: runs for each thread.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    if TARGETS.get_ptr(pid).is_none() {
        return 0;
    }
    message::thread_exit(pid_tgid);
    stream::thread_exit(pid_tgid);
    if pid == pid_tgid as u32 {
        server::forget(pid);
        lifecycle(KIND_EXIT, 0, 0, 0);
    }
    0
}

/// `sched_process_fork(parent, child)`: the child of a target is one until it runs another program.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: a copy torn by the agent's update would still be plain numbers.
    let Some(target) = (unsafe { TARGETS.get(pid) }) else { return 0 };
    let Some(offsets) = OFFSETS.get(0) else { return 0 };
    // A server's child writes a file and ends (BGSAVE, BGREWRITEAOF): it serves nobody.
    if target.flags & TARGET_SERVER != 0 {
        return 0;
    }
    let child: u64 = ctx.arg(1);
    let Some(child) = kernel::<u32>(child + offsets.task_tgid as u64) else { return 0 };
    if child != pid {
        let target = *target;
        let _ = TARGETS.insert(child, target, 0);
        lifecycle(KIND_FORK, 0, child as u64, 0);
    }
    0
}

/// The executable that is being started.
#[inline(always)]
fn executable(binprm: u64) -> Option<Executable> {
    let offsets = OFFSETS.get(0)?;
    let file = kernel::<u64>(binprm + offsets.binprm_file as u64)?;
    let inode = kernel::<u64>(file + offsets.file_inode as u64)?;
    let superblock = kernel::<u64>(inode + offsets.inode_superblock as u64)?;
    Some(Executable {
        inode: kernel::<u64>(inode + offsets.inode_number as u64)?,
        device: kernel::<u32>(superblock + offsets.superblock_device as u64)?,
        reserved: 0,
    })
}

//! Processes that begin, change their program and end.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::map::{Executable, TARGET_FOLLOW, TARGET_IF_FOLLOWED, TARGET_SERVER, TARGET_SOCKETS, Target};
use tracer_common::record::{FLAG_FOLLOWED, FLAG_WATCHED, KIND_EXEC, KIND_EXIT, KIND_FORK};

use crate::emit::lifecycle;
use crate::maps::{EXECUTABLES, IDENTIFIED, OFFSETS, TARGETS};
use crate::memory::kernel;
use crate::{message, server, socket, stream};

/// `sched_process_exec(task, old_pid, binprm)`: a restarted target is one from its first instruction on, and what a followed
/// process runs is followed.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let executable = executable(ctx.arg::<u64>(2)).unwrap_or_default();
    server::forget(pid);
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let follow = unsafe { TARGETS.get(pid) }.map_or(0, |target| target.flags & TARGET_FOLLOW);
    // SAFETY: as above.
    let watched = unsafe { EXECUTABLES.get(executable) }
        .filter(|target| follow != 0 || target.flags & TARGET_IF_FOLLOWED == 0);
    let mut flags = if follow != 0 { FLAG_FOLLOWED } else { 0 };
    if let Some(target) = watched {
        let mut target = *target;
        target.flags = target.flags & !TARGET_IF_FOLLOWED | follow;
        let _ = TARGETS.insert(pid, target, 0);
        flags |= FLAG_WATCHED;
    } else if follow != 0 {
        // What its threads publish is not known yet; its sockets are watched.
        let _ = TARGETS.insert(pid, Target { flags: TARGET_SOCKETS | follow, ..Target::default() }, 0);
    } else {
        // What was forked from a target is none once it runs another program.
        let _ = TARGETS.remove(pid);
    }
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
        let flags = if target.flags & TARGET_FOLLOW != 0 { FLAG_FOLLOWED } else { 0 };
        lifecycle(KIND_FORK, flags, child as u64, 0);
    }
    0
}

/// Run by the agent on itself: which executable is open as descriptor `fd`? `stat` has other device numbers than the kernel on
/// btrfs and overlayfs, so the agent asks those who will meet it.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn identify(ctx: RawTracePointContext) -> i32 {
    let fd: u64 = ctx.arg(0);
    let identified = socket::file(fd as u32).and_then(identity).unwrap_or_default();
    let _ = IDENTIFIED.set(0, &identified, 0);
    0
}

/// The executable that is being started.
#[inline(always)]
fn executable(binprm: u64) -> Option<Executable> {
    let offsets = OFFSETS.get(0)?;
    identity(kernel::<u64>(binprm + offsets.binprm_file as u64)?)
}

/// What tells the inode of a `struct file` from others.
#[inline(always)]
fn identity(file: u64) -> Option<Executable> {
    let offsets = OFFSETS.get(0)?;
    let inode = kernel::<u64>(file + offsets.file_inode as u64)?;
    let superblock = kernel::<u64>(inode + offsets.inode_superblock as u64)?;
    Some(Executable {
        inode: kernel::<u64>(inode + offsets.inode_number as u64)?,
        device: kernel::<u32>(superblock + offsets.superblock_device as u64)?,
        reserved: 0,
    })
}

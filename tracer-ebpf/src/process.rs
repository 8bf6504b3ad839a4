//! Processes that begin, change their program and end.
//!
//! `TARGETS` holds numbers of processes, and the kernel gives a number to another process as soon as its owner is gone. So the
//! programs themselves take a number out at the end of its process, and make sure at each fork and exec that it stands for
//! what the process is now. The agent can be late, and its records can be lost.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::map::{
    Counter, Executable, TARGET_FOLLOW, TARGET_IF_FOLLOWED, TARGET_SERVER, TARGET_SOCKETS, Target,
};
use tracer_common::record::{
    FLAG_FOLLOWED, FLAG_THREADS_LEFT, FLAG_WATCHED, KIND_EXEC, KIND_EXIT, KIND_FORK, Lifecycle,
};

use crate::emit::{count, lifecycle};
use crate::maps::{EXECUTABLES, IDENTIFIED, OFFSETS, TARGETS};
use crate::memory::kernel;
use crate::{message, server, socket, stream};

/// `signal_struct.flags`: all threads are being ended.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `sched_process_exec(task, old_pid, binprm)`: a restarted target is one from its first instruction on, and what a followed
/// process runs is followed.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    // Any thread can start a program. It becomes the main thread, and the others have ended.
    forget_thread((pid as u64) << 32 | ctx.arg::<u64>(1) as u32 as u64);
    forget_thread(pid_tgid);
    server::forget(pid);
    let executable = executable(ctx.arg::<u64>(2)).unwrap_or_default();
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let follow = unsafe { TARGETS.get(pid) }.map_or(0, |target| target.flags & TARGET_FOLLOW);
    // SAFETY: as above.
    let watched =
        unsafe { EXECUTABLES.get(executable) }.filter(|target| follow != 0 || target.flags & TARGET_IF_FOLLOWED == 0);
    let mut flags = if follow != 0 { FLAG_FOLLOWED } else { 0 };
    if let Some(target) = watched {
        insert(pid, &Target { flags: target.flags & !TARGET_IF_FOLLOWED | follow, ..*target });
        flags |= FLAG_WATCHED;
    } else if follow != 0 {
        // What its threads publish is not known yet; its sockets are watched.
        insert(pid, &Target { flags: TARGET_SOCKETS | follow, ..Target::default() });
    } else {
        // What was forked from a target is none once it runs another program.
        let _ = TARGETS.remove(pid);
    }
    let Executable { inode, device, .. } = executable;
    lifecycle(KIND_EXEC, flags, Lifecycle { inode, device, ..Lifecycle::default() });
    0
}

/// `sched_process_exit(task)`: runs for each thread.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    // Also of processes that are no targets any more: the next thread with this number begins without a past.
    forget_thread(pid_tgid);
    if TARGETS.get_ptr(pid).is_none() {
        return 0;
    }
    match threads().unwrap_or(Threads::Gone) {
        Threads::Gone => {
            server::forget(pid);
            let _ = TARGETS.remove(pid);
            lifecycle(KIND_EXIT, 0, Lifecycle::default());
        }
        Threads::GoOn if pid == pid_tgid as u32 => lifecycle(KIND_EXIT, FLAG_THREADS_LEFT, Lifecycle::default()),
        Threads::GoOn | Threads::Ending => {}
    }
    0
}

/// `sched_process_fork(parent, child)`: the child of a target is one until it runs another program.
///
/// A child that borrows its parent's memory (`vfork`, `posix_spawn`) is none: it is only there to run another program, and until
/// then the parent's probes are its own.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(offsets) = OFFSETS.get(0) else { return 0 };
    let task: u64 = ctx.arg(1);
    let Some(child) = kernel::<u32>(task + offsets.task_tgid as u64) else { return 0 };
    // A thread.
    if child == pid {
        return 0;
    }
    // SAFETY: a copy torn by the agent's update would still be plain numbers.
    let target = unsafe { TARGETS.get(pid) };
    match target {
        // A server's child writes a file and ends (BGSAVE, BGREWRITEAOF): it serves nobody.
        Some(target) if target.flags & TARGET_SERVER == 0 && !borrows_memory(task) => {
            insert(child, target);
            let flags = if target.flags & TARGET_FOLLOW != 0 { FLAG_FOLLOWED } else { 0 };
            lifecycle(KIND_FORK, flags, Lifecycle { child, ..Lifecycle::default() });
        }
        // The agent hears of it when it runs its program.
        Some(target) if target.flags & TARGET_FOLLOW != 0 => {
            insert(child, &Target { flags: TARGET_FOLLOW, ..Target::default() });
        }
        // The number may have been that of a target whose end was not seen: of one that the agent took for alive.
        _ => {
            let _ = TARGETS.remove(child);
        }
    }
    0
}

#[inline(always)]
fn insert(pid: u32, target: &Target) {
    let target = *target;
    if TARGETS.insert(pid, target, 0).is_err() {
        count(Counter::TargetsMapFull);
    }
}

/// The thread is gone, or another one has its number.
#[inline(always)]
fn forget_thread(pid_tgid: u64) {
    message::thread_exit(pid_tgid);
    stream::thread_exit(pid_tgid);
}

/// What becomes of the other threads of a process when one ends.
enum Threads {
    /// There are none, or they have ended.
    Gone,
    /// They are about to end.
    Ending,
    /// They go on. The main thread can end before them.
    GoOn,
}

/// What becomes of the other threads of the current process. The kernel has taken the current one off their number.
#[inline(always)]
fn threads() -> Option<Threads> {
    let offsets = OFFSETS.get(0)?;
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    let signal = kernel::<u64>(task + offsets.task_signal as u64)?;
    if kernel::<u32>(signal + offsets.signal_live as u64)? == 0 {
        return Some(Threads::Gone);
    }
    let flags = kernel::<u32>(signal + offsets.signal_flags as u64)?;
    // A thread that starts a program ends the others, and becomes the main one.
    let executing = kernel::<u64>(signal + offsets.signal_exec as u64)? != 0;
    Some(if executing || flags & SIGNAL_GROUP_EXIT != 0 { Threads::Ending } else { Threads::GoOn })
}

/// Whether a new process runs in the memory of the current one.
#[inline(always)]
fn borrows_memory(child: u64) -> bool {
    let Some(offsets) = OFFSETS.get(0) else { return false };
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let parent = unsafe { bpf_get_current_task() };
    let memory = |task: u64| kernel::<u64>(task + offsets.task_mm as u64);
    memory(child) == memory(parent)
}

/// Run by the agent on itself: which executable is open as descriptor `fd`? `stat` has other device numbers than the kernel on
/// btrfs and overlayfs, so the agent asks those who will meet it.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn identify(ctx: RawTracePointContext) -> i32 {
    let fd: u64 = ctx.arg(0);
    let identified = socket::file(fd as u32).and_then(identity).unwrap_or_default();
    let _ = IDENTIFIED.set(0, identified, 0);
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

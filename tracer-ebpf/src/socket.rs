//! Socket calls of targets, seen at the system-call boundary.
//!
//! A call that sends is timed from its entry, a call that receives at its exit: a command lasts from the first to the
//! second. Bytes are taken at the exit, when it is known how many there were. Tracepoints cost a traced call about a
//! third of two uprobes in libc, and see static binaries and direct system calls too.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::map::*;

use crate::copy::Buffers;
use crate::maps::{CONNECTIONS, TARGETS};
use crate::memory::user;
use crate::server;
use crate::stream;

// x86-64 system-call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
pub const READ: u64 = 0;
pub const WRITE: u64 = 1;
pub const CLOSE: u64 = 3;
pub const READV: u64 = 19;
pub const WRITEV: u64 = 20;
pub const DUP2: u64 = 33;
pub const CONNECT: u64 = 42;
pub const SENDTO: u64 = 44;
pub const RECVFROM: u64 = 45;
pub const SENDMSG: u64 = 46;
pub const RECVMSG: u64 = 47;
pub const DUP3: u64 = 292;

/// Bytes stay in the socket's queue: the next call returns them again.
const MSG_PEEK: u64 = 2;

/// A register as the thread brought it into the kernel.
///
/// A plain load: the verifier knows from BTF that the argument is a `struct pt_regs`, and a helper call for each would be
/// what most system calls pay. It must stay a load at a constant offset, so it is volatile.
macro_rules! saved {
    ($regs:ident, $register:ident) => {
        // SAFETY: the kernel's own pointer to the saved registers of the current thread, checked by the verifier.
        unsafe { (&raw const (*$regs).$register).read_volatile() }
    };
}

/// `sys_enter(regs, id)`: remembers when a send began, and sees descriptors go.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    let concerns_client = matches!(number, WRITE | WRITEV | SENDTO | SENDMSG | CLOSE | CONNECT | DUP2 | DUP3);
    if !concerns_client && !server::ends_execution(number) {
        return 0;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let regs: *const pt_regs = ctx.arg(0);
    let placed = server::placed(pid_tgid);
    let is_server = match placed {
        Some(_) => true,
        None => match target(pid_tgid) {
            Some(target) => target.flags & TARGET_SERVER != 0,
            None => return 0,
        },
    };
    if is_server {
        let fd = if matches!(number, DUP2 | DUP3) { saved!(regs, rsi) } else { saved!(regs, rdi) };
        if let Some(server) = placed.or_else(|| server::unplaced(pid_tgid)) {
            server::enter(server, (pid_tgid >> 32) as u32, number, fd);
        }
        return 0;
    }
    if !concerns_client {
        return 0;
    }
    let fd = if matches!(number, DUP2 | DUP3) { saved!(regs, rsi) } else { saved!(regs, rdi) };
    let key = ConnectionKey { pid: (pid_tgid >> 32) as u32, fd: fd as u32 };
    if matches!(number, CLOSE | CONNECT | DUP2 | DUP3) {
        stream::close(key);
        if number == CONNECT {
            stream::connecting(key);
        }
        return 0;
    }
    if let Some(state) = CONNECTIONS.get_ptr(key)
        // SAFETY: map values stay readable while the program runs.
        && unsafe { (*state).verdict } == VERDICT_IGNORED
    {
        return 0;
    }
    if let Some(call) = stream::call() {
        // SAFETY: reading the clock has no preconditions.
        call.start_ns = unsafe { bpf_ktime_get_ns() };
    }
    0
}

/// `sys_exit(regs, result)`: the call's number and arguments are still in the saved registers.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const pt_regs = ctx.arg(0);
    // Before anything else: an optimised uprobe is a system call as well, and most calls are none of these.
    let number = saved!(regs, orig_rax);
    let sent = match number {
        WRITE | WRITEV | SENDTO | SENDMSG => true,
        READ | READV | RECVFROM | RECVMSG => false,
        // Of servers only.
        _ if server::ends_execution(number) => false,
        _ => return 0,
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    let placed = server::placed(pid_tgid);
    let target = match placed {
        Some(_) => None,
        None => match target(pid_tgid) {
            Some(target) => Some(target),
            None => return 0,
        },
    };
    let (fd, buffer, len) = (saved!(regs, rdi), saved!(regs, rsi), saved!(regs, rdx));
    let key = ConnectionKey { pid: (pid_tgid >> 32) as u32, fd: fd as u32 };
    let result: i64 = ctx.arg::<u64>(1) as i64;
    let target = match target {
        Some(target) if target.flags & TARGET_SERVER == 0 => target,
        _ => {
            match placed.or_else(|| server::unplaced(pid_tgid)) {
                Some(server) => server::exit(server, number, key, buffer, result),
                None => server::exit_elsewhere(number, key, result),
            }
            return 0;
        }
    };
    if !sent && !matches!(number, READ | READV | RECVFROM | RECVMSG) {
        return 0;
    }
    // SAFETY: reading the clock has no preconditions.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let mut start_ns = end_ns;
    if sent {
        let Some(call) = stream::call() else { return 0 };
        start_ns = call.start_ns;
        call.start_ns = 0;
        if start_ns == 0 {
            return 0;
        }
    }
    let peek = match number {
        RECVFROM => saved!(regs, r10) & MSG_PEEK != 0,
        RECVMSG => len & MSG_PEEK != 0,
        _ => false,
    };
    if peek {
        return 0;
    }
    let buffers = match number {
        READV | WRITEV => Some(Buffers::Vector { vector: buffer, count: len }),
        SENDMSG | RECVMSG => message_vector(buffer),
        _ => Some(Buffers::One { pointer: buffer }),
    };
    if let Some(buffers) = buffers {
        stream::passed(key, target, sent, &buffers, result, start_ns, end_ns);
    }
    0
}

/// `msg_iov` and `msg_iovlen` of a `struct msghdr`.
#[inline(always)]
fn message_vector(header: u64) -> Option<Buffers> {
    let [vector, count] = user::<[u64; 2]>(header + 16)?;
    Some(Buffers::Vector { vector, count })
}

#[inline(always)]
fn target(pid_tgid: u64) -> Option<&'static Target> {
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let target = unsafe { TARGETS.get((pid_tgid >> 32) as u32) }?;
    (target.flags & TARGET_SOCKETS != 0).then_some(target)
}

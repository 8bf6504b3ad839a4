//! Socket calls at the boundary of the system call: what clients send and receive on kernels that have no better place, and what
//! servers do.
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
use crate::memory::user;
use crate::stream::{self, Transfer};
use crate::{server, socket};

// x86-64 system-call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
pub const READ: u64 = 0;
pub const WRITE: u64 = 1;
pub const CLOSE: u64 = 3;
pub const READV: u64 = 19;
pub const WRITEV: u64 = 20;
pub const DUP2: u64 = 33;
pub const SENDFILE: u64 = 40;
pub const CONNECT: u64 = 42;
pub const SENDTO: u64 = 44;
pub const RECVFROM: u64 = 45;
pub const SENDMSG: u64 = 46;
pub const RECVMSG: u64 = 47;
pub const SPLICE: u64 = 275;
pub const DUP3: u64 = 292;
pub const RECVMMSG: u64 = 299;
pub const SENDMMSG: u64 = 307;
pub const PREADV2: u64 = 327;
pub const PWRITEV2: u64 = 328;

/// Bytes stay in the socket's queue: the next call returns them again.
pub const MSG_PEEK: u64 = 2;
/// Bytes of another queue: urgent ones, and notices of errors.
pub const MSG_ASIDE: u64 = 0x1 | 0x2000;
/// Bytes are thrown away.
pub const MSG_TRUNC: u64 = 0x20;

/// Size of a `struct msghdr`, and of a `struct mmsghdr`: a message and its length.
const MSGHDR: u64 = 56;
pub const MMSGHDR: u64 = 64;

/// 1 if the programs of `transfers` see what clients do. Set by the agent when it loads the programs.
#[unsafe(no_mangle)]
static TRANSFERS: u32 = 0;

/// A register as the thread brought it into the kernel.
///
/// A plain load: the verifier knows from BTF that the argument is a `struct pt_regs`, and a helper call for each would be
/// what most system calls pay. It must stay a load at a constant offset, so it is volatile.
#[macro_export]
macro_rules! saved {
    ($regs:ident, $register:ident) => {
        // SAFETY: the kernel's own pointer to the saved registers of the current thread, checked by the verifier.
        unsafe { (&raw const (*$regs).$register).read_volatile() }
    };
}

/// `sys_enter(regs, id)`: remembers when a send began.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    let concerns_client = sends(number) || number == CONNECT;
    if !concerns_client && !server::ends_execution(number) {
        return 0;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let regs: *const pt_regs = ctx.arg(0);
    let placed = server::placed(pid_tgid);
    let is_server = match placed {
        Some(_) => true,
        None => match stream::target() {
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
    if number == CONNECT {
        // Those of TCP have their own tracepoint, which is right as well when the call fails.
        if let Some(key) = socket::of_descriptor(saved!(regs, rdi) as u32)
            && socket::is_unix(key)
        {
            socket::connecting(key);
        }
        return 0;
    }
    if sends(number)
        && let Some(call) = stream::call()
    {
        // SAFETY: reading the clock has no preconditions.
        call.start_ns = unsafe { bpf_ktime_get_ns() };
        call.sock = 0;
    }
    0
}

/// `sys_exit(regs, result)`: the call's number and arguments are still in the saved registers.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const pt_regs = ctx.arg(0);
    // Before anything else: an optimised uprobe is a system call as well, and most calls are none of these.
    let number = saved!(regs, orig_rax);
    if !sends(number) && !receives(number) && !server::ends_execution(number) {
        return 0;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let placed = server::placed(pid_tgid);
    let target = match placed {
        Some(_) => None,
        None => match stream::target() {
            Some(target) => Some(target),
            None => return 0,
        },
    };
    let (fd, buffer) = (saved!(regs, rdi), saved!(regs, rsi));
    let result: i64 = ctx.arg::<u64>(1) as i64;
    let target = match target {
        Some(target) if target.flags & TARGET_SERVER == 0 => target,
        _ => {
            let key = DescriptorKey { pid: (pid_tgid >> 32) as u32, fd: fd as u32 };
            match placed.or_else(|| server::unplaced(pid_tgid)) {
                Some(server) => server::exit(server, number, key, buffer, result),
                None => server::exit_unfollowed(pid_tgid, number, key, result),
            }
            return 0;
        }
    };
    // SAFETY: a live static; volatile, because the agent has changed it since it was compiled.
    if unsafe { (&raw const TRANSFERS).read_volatile() } != 0 {
        return 0;
    }
    let arguments = Arguments { number, a: fd, b: buffer, c: saved!(regs, rdx), d: saved!(regs, r10) };
    passed(target, &arguments, result);
    0
}

/// A call's number and its first four arguments.
pub struct Arguments {
    pub number: u64,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
}

/// A call of a client ends.
#[inline(always)]
fn passed(target: &Target, call: &Arguments, result: i64) {
    let number = call.number;
    // SAFETY: reading the clock has no preconditions.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let mut transfer = Transfer { sent: sends(number), result, start_ns: end_ns, end_ns };
    if transfer.sent {
        if let Some(state) = stream::call() {
            transfer.start_ns = state.start_ns;
            state.start_ns = 0;
            if transfer.start_ns == 0 {
                return;
            }
        }
    } else if !receives(number) || flags(call) & (MSG_PEEK | MSG_ASIDE) != 0 {
        return;
    }
    let Some(key) = socket::of_descriptor(if number == SPLICE { call.c } else { call.a } as u32) else { return };
    let mut several = false;
    if matches!(number, SENDMMSG | RECVMMSG) && result > 0 {
        several = result > 1;
        transfer.result = messages(call.b, result as u64) as i64;
    }
    let sent = transfer.sent;
    stream::passed(key, target, &transfer, |_| if several { Buffers::UNKNOWN } else { buffers(call, sent) });
}

/// Bytes that several messages moved: the kernel writes the length of each behind its header. Of more messages than these, TCP's
/// numbers tell at the next call.
#[inline(always)]
fn messages(headers: u64, count: u64) -> u32 {
    const MAX_MESSAGES: u64 = 8;
    let mut sum = 0_u32;
    for index in 0..MAX_MESSAGES {
        if index >= count {
            break;
        }
        sum = sum.wrapping_add(user::<u32>(headers + MMSGHDR * index + MSGHDR).unwrap_or(0));
    }
    // The verifier must forget after how many rounds it got here, or it follows what comes next once for each.
    // SAFETY: the address of a live local.
    unsafe { (&raw const sum).read_volatile() }
}

/// Where the bytes of a call are.
#[inline(always)]
pub fn buffers(call: &Arguments, sent: bool) -> Buffers {
    if !sent && flags(call) & MSG_TRUNC != 0 {
        return Buffers::UNKNOWN;
    }
    match call.number {
        READ | WRITE | SENDTO | RECVFROM => Buffers::one(call.b),
        READV | WRITEV | PREADV2 | PWRITEV2 => Buffers { pointer: call.b, count: call.c },
        SENDMSG | RECVMSG | SENDMMSG | RECVMMSG => message_vector(call.b),
        _ => Buffers::UNKNOWN,
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct msghdr`.
#[inline(always)]
pub fn message_vector(header: u64) -> Buffers {
    let [pointer, count] = user(header + 16).unwrap_or_default();
    Buffers { pointer, count }
}

/// `MSG_*` flags of a call.
#[inline(always)]
fn flags(call: &Arguments) -> u64 {
    match call.number {
        RECVFROM | SENDTO | RECVMMSG | SENDMMSG => call.d,
        RECVMSG | SENDMSG => call.c,
        _ => 0,
    }
}

/// Calls by which bytes can get into a socket: `splice` by its third argument, the others by their first.
#[inline(always)]
pub fn sends(number: u64) -> bool {
    matches!(number, WRITE | WRITEV | SENDFILE | SENDTO | SENDMSG | SPLICE | SENDMMSG | PWRITEV2)
}

/// Calls by which bytes can get out of a socket. `splice` from one is noticed by TCP's numbers only.
#[inline(always)]
pub fn receives(number: u64) -> bool {
    matches!(number, READ | READV | RECVFROM | RECVMSG | RECVMMSG | PREADV2)
}

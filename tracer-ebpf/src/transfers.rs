//! Socket calls as the socket layer reports them: what clients send and receive on Linux 6.3 and later.
//!
//! These tracepoints fire in calls on sockets and nowhere else, so a process that is not traced pays nothing for its other system
//! calls. They name the socket itself, whatever descriptor and whatever call led to it, io_uring's too. Where the bytes are is in
//! the registers that the thread brought into the kernel.
//!
//! They fire at the end of a call. When a send began is known from `tcp_sendmsg_locked` (Linux 6.16), else from the entry of the
//! system call.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::map::*;

use crate::copy::Buffers;
use crate::emit::count;
use crate::maps::OFFSETS;
use crate::memory::kernel;
use crate::stream::{self, SocketCall, Transfer};
use crate::syscalls::*;
use crate::{saved, socket, syscalls};

/// `task_struct.flags`: a thread that works for io_uring.
const PF_IO_WORKER: u32 = 0x10;

/// `sock_send_length(sk, result, flags)`
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_sent(ctx: RawTracePointContext) -> i32 {
    transfer(ctx.arg(0), ctx.arg::<u64>(1) as i32 as i64, true, 0);
    0
}

/// `sock_recv_length(sk, result, flags)`
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn socket_received(ctx: RawTracePointContext) -> i32 {
    transfer(ctx.arg(0), ctx.arg::<u64>(1) as i32 as i64, false, ctx.arg(2));
    0
}

/// `tcp_sendmsg_locked(sk, ...)`: before each piece of a send is taken over.
#[raw_tracepoint(tracepoint = "tcp_sendmsg_locked")]
pub fn tcp_send_begins(ctx: RawTracePointContext) -> i32 {
    let sock: u64 = ctx.arg(0);
    if stream::client().is_some()
        && let Some(call) = stream::call()
        && (call.start_ns == 0 || (call.sock != 0 && call.sock != sock))
    {
        // SAFETY: reading the clock has no preconditions.
        call.start_ns = unsafe { bpf_ktime_get_ns() };
        call.sock = sock;
    }
    0
}

#[inline(always)]
fn transfer(sock: u64, result: i64, sent: bool, flags: u64) {
    let Some(target) = stream::client() else { return };
    // SAFETY: reading the clock has no preconditions.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let mut transfer = Transfer { sent, result, start_ns: end_ns, end_ns };
    if sent {
        if let Some(call) = stream::call() {
            if call.start_ns != 0 && (call.sock == 0 || call.sock == sock) {
                transfer.start_ns = call.start_ns;
            }
            call.start_ns = 0;
        }
    } else if flags & (MSG_PEEK | MSG_ASIDE) != 0 {
        return;
    }
    let Some(key) = socket::of_sock(sock) else { return };
    stream::passed(key, target, &transfer, |known| {
        if flags & MSG_TRUNC != 0 { Buffers::UNKNOWN } else { buffers(key, known, sent, result) }
    });
}

/// Where the bytes of the current call are.
#[inline(always)]
fn buffers(key: SocketKey, known: bool, sent: bool, result: i64) -> Buffers {
    // SAFETY: the kernel's own pointers to the current task and to its saved registers, checked by the verifier.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const pt_regs;
    let call = Arguments {
        number: saved!(regs, orig_rax),
        a: saved!(regs, rdi),
        b: saved!(regs, rsi),
        c: saved!(regs, rdx),
        d: saved!(regs, r10),
    };
    let of_socket = if sent { sends(call.number) } else { receives(call.number) };
    // The thread may be here for another reason than its system call: io_uring works in any of them, and the kernel has sockets of
    // its own (NFS). Then the call is not on this socket.
    let uring = uses_uring();
    if (!known || uring) && !(of_socket && socket::of_descriptor(call.a as u32) == Some(key)) {
        if uring && result > 0 {
            count(Counter::SocketCallsUring);
        }
        return Buffers::UNKNOWN;
    }
    match call.number {
        _ if !of_socket => Buffers::UNKNOWN,
        SENDMMSG | RECVMMSG => match stream::call() {
            Some(state) => message(state, &call, result),
            None => Buffers::UNKNOWN,
        },
        _ => syscalls::buffers(&call, sent),
    }
}

/// The message of `sendmmsg` or `recvmmsg` that was passed just now: one event comes for each.
#[inline(always)]
fn message(state: &mut SocketCall, call: &Arguments, result: i64) -> Buffers {
    if state.messages != call.b || state.message >= call.c {
        state.messages = call.b;
        state.message = 0;
    }
    let header = call.b + MMSGHDR * state.message;
    state.message += 1;
    // The call ends before its last message when one does not pass as a whole. Else only the kernel knows where it begins again.
    let buffers = syscalls::message_vector(header);
    let room = buffers.first().map_or(0, |[_, len]| len as i64);
    let whole =
        buffers.count == 1 && if call.number == SENDMMSG { room == result } else { result > 0 && room >= result };
    if !whole {
        state.message = 0;
        return Buffers::UNKNOWN;
    }
    buffers
}

/// The thread has used io_uring, or works for it.
#[inline(always)]
fn uses_uring() -> bool {
    let Some(offsets) = OFFSETS.get(0) else { return false };
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    offsets.task_uring != 0
        && (kernel::<u64>(task + offsets.task_uring as u64) != Some(0)
            || kernel::<u32>(task + offsets.task_flags as u64).is_some_and(|flags| flags & PF_IO_WORKER != 0))
}

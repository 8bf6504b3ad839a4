//! Sockets: which one a call is about, who its peer is, and when it ends.
//!
//! A connection is a socket, not a descriptor. Descriptors are names of it that programs copy (`dup`, `fork`), hand to other
//! processes (`SCM_RIGHTS`) and use again for other files. So a connection is named by [`SocketKey`]: the address of its `struct
//! sock`, which is one read away from every path by which a call reaches it, and the number of its inode, because the kernel uses
//! the address again. The number is the one in `/proc/PID/fd` (`socket:[NUMBER]`).
//!
//! The end of a TCP connection is a change of state that the kernel announces, whoever closed the last descriptor, and however. For
//! Unix sockets it announces nothing: the agent asks ten times a second which of the followed ones are gone.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::map::*;
use tracer_common::record::*;

use crate::emit::{QUIET, head, reserve};
use crate::maps::{CONNECTIONS, OFFSETS};
use crate::memory::kernel;
use crate::stream::{client, connection_number};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;

// States of TCP (include/net/tcp_states.h).
const TCP_SYN_SENT: i32 = 2;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_FIN_WAIT2: i32 = 5;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;
const TCP_CLOSING: i32 = 11;
/// `sk_shutdown`: nothing is received any more.
const RCV_SHUTDOWN: u8 = 1;
/// `sk_shutdown`: nothing is sent or received any more.
const SHUTDOWN_MASK: u8 = 3;

/// The `struct file` of a descriptor of the current task.
#[inline(always)]
pub fn file(fd: u32) -> Option<u64> {
    let offsets = OFFSETS.get(0)?;
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    let files = kernel::<u64>(task + offsets.task_files as u64)?;
    let table = kernel::<u64>(files + offsets.files_fdt as u64)?;
    if fd >= kernel::<u32>(table + offsets.fdtable_max as u64)? {
        return None;
    }
    let array = kernel::<u64>(table + offsets.fdtable_fd as u64)?;
    kernel::<u64>(array + 8 * fd as u64)
}

/// The socket behind a descriptor of the current task.
#[inline(always)]
pub fn of_descriptor(fd: u32) -> Option<SocketKey> {
    let offsets = OFFSETS.get(0)?;
    let file = file(fd)?;
    let inode = kernel::<u64>(file + offsets.file_inode as u64)?;
    if kernel::<u16>(inode + offsets.inode_mode as u64)? & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = kernel::<u64>(file + offsets.file_private as u64)?;
    let sock = kernel::<u64>(socket + offsets.socket_sk as u64)?;
    Some(SocketKey { sock, inode: kernel::<u64>(inode + offsets.inode_number as u64)? })
}

/// The socket of a `struct sock`; `None` once nobody has it open.
#[inline(always)]
pub fn of_sock(sock: u64) -> Option<SocketKey> {
    let offsets = OFFSETS.get(0)?;
    let socket = kernel::<u64>(sock + offsets.sock_socket as u64)?;
    if socket == 0 {
        return None;
    }
    let inode = socket - offsets.socket_in_alloc as u64 + offsets.inode_in_alloc as u64;
    Some(SocketKey { sock, inode: kernel::<u64>(inode + offsets.inode_number as u64)? })
}

/// It is a stream socket of a family that servers use.
#[inline(always)]
pub fn is_stream(key: SocketKey) -> bool {
    let Some(offsets) = OFFSETS.get(0) else { return false };
    kernel::<u16>(key.sock + offsets.sock_type as u64) == Some(SOCK_STREAM)
        && matches!(family(key.sock, offsets), AF_INET | AF_INET6 | AF_UNIX)
}

/// It is a Unix socket.
#[inline(always)]
pub fn is_unix(key: SocketKey) -> bool {
    OFFSETS.get(0).is_some_and(|offsets| family(key.sock, offsets) == AF_UNIX)
}

#[inline(always)]
fn family(sock: u64, offsets: &KernelOffsets) -> u16 {
    kernel::<u16>(sock + offsets.sock_family as u64).unwrap_or(0)
}

/// From here on, bytes that pass unseen are noticed. `result` bytes of the current call are still to be accounted.
#[inline(always)]
pub fn expect(key: SocketKey, state: &mut ConnectionState, sent: bool, result: i64) {
    let Some(offsets) = OFFSETS.get(0) else { return };
    // The numbers are those of the user's bytes only on plain TCP: not with MPTCP, nor with TLS in the kernel.
    if !matches!(family(key.sock, offsets), AF_INET | AF_INET6)
        || kernel::<u16>(key.sock + offsets.sock_protocol as u64) != Some(IPPROTO_TCP)
        || kernel::<u64>(key.sock + offsets.tcp_upper as u64) != Some(0)
    {
        return;
    }
    if let Some(written) = kernel::<u32>(key.sock + offsets.tcp_written as u64)
        && let Some(read) = kernel::<u32>(key.sock + offsets.tcp_read as u64)
    {
        state.written = if sent { written.wrapping_sub(result as u32) } else { written };
        state.read = if sent { read } else { read.wrapping_sub(result as u32) };
        state.numbered = 1;
    }
}

/// Bytes that passed since the last call that was seen and before this one of `len` bytes: by a process that is not traced, by a
/// call that the programs do not know, or while they could not follow. TCP numbers all bytes, so they cannot go unnoticed.
#[inline(always)]
pub fn unseen(key: SocketKey, state: &mut ConnectionState, sent: bool, len: u64) -> u64 {
    if state.numbered == 0 {
        return 0;
    }
    let Some(offsets) = OFFSETS.get(0) else { return 0 };
    let (offset, before) = if sent { (offsets.tcp_written, state.written) } else { (offsets.tcp_read, state.read) };
    let Some(now) = kernel::<u32>(key.sock + offset as u64) else { return 0 };
    if sent {
        state.written = now;
    } else {
        state.read = now;
    }
    let passed = now.wrapping_sub(before);
    let unseen = passed.wrapping_sub(len as u32);
    if unseen == 1 && !sent && is_ended(key.sock, offsets) {
        return 0;
    }
    if unseen > i32::MAX as u32 {
        // Fewer than the call moved: something below the socket has its own numbers.
        state.numbered = 0;
        return 0;
    }
    unseen as u64
}

/// The peer sends nothing any more: its last word, which has a number like a byte, may have come with the bytes of a call.
#[inline(always)]
fn is_ended(sock: u64, offsets: &KernelOffsets) -> bool {
    kernel::<u8>(sock + offsets.sock_shutdown as u64).is_some_and(|shutdown| shutdown & RCV_SHUTDOWN != 0)
}

/// Begins a connection: gives it a number and tells the agent of it.
#[inline(always)]
pub fn begin(key: SocketKey, state: &mut ConnectionState, protocol: u16, flags: u16) -> bool {
    let Some(number) = connection_number() else { return false };
    state.connection = number;
    state.protocol = protocol as u32;
    announce(key, state, flags);
    true
}

/// Tells the agent of a connection and its addresses.
#[inline(always)]
pub fn announce(key: SocketKey, state: &ConnectionState, flags: u16) {
    let Some(offsets) = OFFSETS.get(0) else { return };
    let Some(mut entry) = reserve::<Connection>(Counter::Connections, Counter::ConnectionsRingFull) else { return };
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let sock = key.sock;
    let record = entry.write(Connection {
        head: head(KIND_OPEN, now, now),
        connection: state.connection,
        inode: key.inode as u32,
        sock,
        ..Connection::default()
    });
    record.head.flags = flags;
    if state.fresh == 1 {
        record.head.flags |= FLAG_FRESH;
    }
    let family = family(sock, offsets);
    record.family = family;
    record.protocol = state.protocol as u16;
    record.local_port = kernel::<u16>(sock + offsets.sock_num as u64).unwrap_or(0) as u32;
    record.peer_port = u16::from_be(kernel::<u16>(sock + offsets.sock_dport as u64).unwrap_or(0)) as u32;
    if family == AF_INET6 {
        record.local_addr = kernel(sock + offsets.sock_saddr6 as u64).unwrap_or_default();
        record.peer_addr = kernel(sock + offsets.sock_daddr6 as u64).unwrap_or_default();
    } else if family == AF_INET {
        let local: [u8; 4] = kernel(sock + offsets.sock_saddr as u64).unwrap_or_default();
        let peer: [u8; 4] = kernel(sock + offsets.sock_daddr as u64).unwrap_or_default();
        record.local_addr[..4].copy_from_slice(&local);
        record.peer_addr[..4].copy_from_slice(&peer);
    } else {
        record.peer_sock = kernel(sock + offsets.unix_peer as u64).unwrap_or(0);
    }
    if let Some(net) = kernel::<u64>(sock + offsets.sock_net as u64) {
        record.netns = kernel(net + offsets.net_number as u64).unwrap_or(0);
    }
    entry.submit(QUIET);
}

/// A socket is being connected: it carries nothing yet.
#[inline(always)]
pub fn connecting(key: SocketKey) {
    end(key);
    let fresh = ConnectionState { fresh: 1, ..ConnectionState::default() };
    // Where there is no room, what is sent is counted.
    let _ = CONNECTIONS.insert(key, fresh, 0);
}

/// A socket has ended.
#[inline(always)]
pub fn end(key: SocketKey) {
    let Some(state) = CONNECTIONS.get_ptr(key) else { return };
    // SAFETY: map values stay readable while the program runs.
    let connection = unsafe { (*state).connection };
    // Two CPUs may see the end: the one that removes it tells.
    if CONNECTIONS.remove(key).is_ok() {
        closed(connection, key.inode as u32);
    }
}

/// Tells the agent that a connection is no more; it was none if it has no number.
#[inline(always)]
pub fn closed(connection: u64, inode: u32) {
    if connection == 0 {
        return;
    }
    let Some(mut entry) = reserve::<Connection>(Counter::Connections, Counter::ConnectionsRingFull) else { return };
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // A socket ends in any context, also that of the agent: it is nobody's call.
    let head = Head { kind: KIND_CLOSE, start_ns: now, end_ns: now, ..Head::default() };
    entry.write(Connection { head, connection, inode, ..Connection::default() });
    entry.submit(QUIET);
}

/// `inet_sock_set_state(sk, old, new)`: connections of TCP begin and end.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state(ctx: RawTracePointContext) -> i32 {
    let new = ctx.arg::<u64>(2) as i32;
    if !matches!(new, TCP_SYN_SENT | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE | TCP_LAST_ACK | TCP_CLOSING) {
        return 0;
    }
    let sock: u64 = ctx.arg(0);
    let Some(key) = of_sock(sock) else { return 0 };
    if new == TCP_SYN_SENT {
        // In the task that connects.
        if client().is_some() {
            connecting(key);
        }
        return 0;
    }
    if new != TCP_CLOSE {
        // After shutdown(SHUT_WR) replies can still come.
        let Some(offsets) = OFFSETS.get(0) else { return 0 };
        if kernel::<u8>(sock + offsets.sock_shutdown as u64) != Some(SHUTDOWN_MASK) {
            return 0;
        }
    }
    end(key);
    0
}

/// Ends the connections whose sockets are gone. Never attached: the agent runs it, with pairs of `sock` and `inode` as arguments.
#[raw_tracepoint(tracepoint = "sockets_gone")]
pub fn sockets_gone(ctx: RawTracePointContext) -> i32 {
    // One by one: the verifier wants to see each argument's place.
    check(ctx.arg(0), ctx.arg(1));
    check(ctx.arg(2), ctx.arg(3));
    check(ctx.arg(4), ctx.arg(5));
    check(ctx.arg(6), ctx.arg(7));
    check(ctx.arg(8), ctx.arg(9));
    check(ctx.arg(10), ctx.arg(11));
    0
}

/// Ends one connection if its socket is gone.
#[inline(always)]
fn check(sock: u64, inode: u64) {
    let key = SocketKey { sock, inode };
    if sock != 0 && of_sock(sock) != Some(key) {
        end(key);
    }
}

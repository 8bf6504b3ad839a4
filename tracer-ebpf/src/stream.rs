//! Which descriptors are connections worth following, and the bytes that pass them.
//!
//! A descriptor is followed once it is a stream socket and its bytes look like RESP or MySQL; the agent, which knows more, then
//! confirms or rejects it. What is rejected costs one map look-up a call from then on.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_smp_processor_id};
use tracer_common::map::*;
use tracer_common::record::*;

use crate::context;
use crate::copy::{self, Buffers, Walk};
use crate::emit::{QUIET, count, head, reserve};
use crate::maps::{ADVICE, CONNECTION_NUMBERS, CONNECTIONS, OFFSETS, SOCKET_CALLS, ZERO_SOCKET_CALL};
use crate::memory::{kernel, user};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;
const EINTR: i64 = 4;
const EAGAIN: i64 = 11;
/// Writes of other things before a descriptor is given up: an old connection may be in the middle of a long value.
const MAX_MISSES: u32 = 64;
/// Shortest greeting of a MySQL server: version, challenge and what it can do.
const MIN_GREETING: u8 = 40;
/// Version of the MySQL protocol that every greeting begins with.
const MYSQL_VERSION: u8 = 10;
/// Calls longer than this ask whether their bytes are needed at all.
const ASK_ADVICE: u64 = 4096;

/// A socket call of a thread, between its entry and its exit.
#[repr(C)]
pub struct SocketCall {
    /// When it began; 0 outside a call that sends.
    pub start_ns: u64,
    walk: Walk,
}

/// Some bytes passed, or the call failed.
#[inline(always)]
pub fn passed(
    key: ConnectionKey,
    target: &Target,
    sent: bool,
    buffers: &Buffers,
    result: i64,
    start_ns: u64,
    end_ns: u64,
) {
    let state = match CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: calls of one direction of a connection follow each other, and each direction has its own field.
        Some(state) => unsafe { &mut *state },
        None => {
            let server = target.flags & TARGET_SERVER != 0;
            // The first to speak is the client.
            if result <= 0 || sent == server {
                return;
            }
            let Some(state) = adopt(key) else { return };
            state
        }
    };
    if state.verdict == VERDICT_IGNORED {
        return;
    }
    if state.verdict == 0 && !recognise(key, state, sent, target, buffers, result) {
        return;
    }
    if state.verdict == VERDICT_CANDIDATE
        && let Some(advice) = advice(state.connection)
        && advice.verdict != 0
    {
        state.verdict = advice.verdict;
        if advice.verdict == VERDICT_IGNORED {
            return;
        }
    }
    if result < 0 && (result == -EAGAIN || result == -EINTR || result < -4095) {
        return;
    }
    let Some(call) = call() else { return };
    let offset = if sent { state.sent } else { state.received };
    let walk = &mut call.walk;
    walk.record = Socket {
        head: head(KIND_SOCKET, start_ns, end_ns),
        connection: state.connection,
        offset,
        len: 0,
        direction: if sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
        errno: 0,
    };
    context::fill(&mut walk.record.head, target);
    if result < 0 || (result == 0 && !sent) {
        // An end of file is a failure with errno 0.
        walk.record.head.flags |= FLAG_FAILED;
        walk.record.errno = (-result) as u32;
        copy::without_bytes(&walk.record, 0);
        return;
    }
    let len = result as u64;
    if sent {
        state.sent = offset + len;
    } else {
        state.received = offset + len;
    }
    let unneeded = unneeded(&walk.record, len);
    copy::send(walk, buffers, len, unneeded);
}

/// The current thread's [`SocketCall`], made at its first use.
#[inline(always)]
pub fn call() -> Option<&'static mut SocketCall> {
    let pid_tgid = bpf_get_current_pid_tgid();
    if let Some(call) = SOCKET_CALLS.get_ptr_mut(pid_tgid) {
        // SAFETY: the entry belongs to the current thread, which is inside the kernel: nobody else uses it.
        return Some(unsafe { &mut *call });
    }
    let zero = ZERO_SOCKET_CALL.get_ptr(0)?;
    // SAFETY: the map value lives as long as the map and is never written.
    if SOCKET_CALLS.insert(pid_tgid, unsafe { &*zero }, 0).is_err() {
        count(Counter::SocketCallsMapFull);
        return None;
    }
    // SAFETY: as above.
    SOCKET_CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// The thread is ending.
#[inline(always)]
pub fn thread_exit(pid_tgid: u64) {
    let _ = SOCKET_CALLS.remove(pid_tgid);
}

/// A descriptor goes away, or starts anew.
#[inline(always)]
pub fn close(key: ConnectionKey) {
    let Some(state) = CONNECTIONS.get_ptr(key) else { return };
    // SAFETY: map values stay readable while the program runs.
    let connection = unsafe { (*state).connection };
    let _ = CONNECTIONS.remove(key);
    if connection != 0
        && let Some(mut entry) = reserve::<Connection>(Counter::Lifecycle, Counter::LifecycleRingFull)
    {
        // SAFETY: reading the clock has no preconditions.
        let now = unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() };
        entry.write(Connection { head: head(KIND_CLOSE, now, now), connection, fd: key.fd, ..Connection::default() });
        entry.submit(QUIET);
    }
}

/// A descriptor is being connected: it carries nothing yet.
#[inline(always)]
pub fn connecting(key: ConnectionKey) {
    let fresh = ConnectionState { fresh: 1, ..ConnectionState::default() };
    if CONNECTIONS.insert(key, fresh, 0).is_err() {
        count(Counter::ConnectionsMapFull);
    }
}

/// Starts to look at a descriptor that was not seen before.
#[inline(always)]
fn adopt(key: ConnectionKey) -> Option<&'static mut ConnectionState> {
    let verdict = if stream_socket(key.fd).is_some() { 0 } else { VERDICT_IGNORED };
    let fresh = ConnectionState { verdict, ..ConnectionState::default() };
    if CONNECTIONS.insert(key, fresh, 0).is_err() {
        count(Counter::ConnectionsMapFull);
        return None;
    }
    // SAFETY: as in `passed`.
    CONNECTIONS.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// Decides whether the bytes could be of a protocol that the agent knows, and announces the connection if so.
#[inline(always)]
fn recognise(
    key: ConnectionKey,
    state: &mut ConnectionState,
    sent: bool,
    target: &Target,
    buffers: &Buffers,
    result: i64,
) -> bool {
    let server = target.flags & TARGET_SERVER != 0;
    if result <= 0 {
        return false;
    }
    let protocol = if sent != server {
        let protocol = match first_bytes(buffers) {
            Some([b'*', b'0'..=b'9', ..]) => Some(PROTOCOL_RESP),
            // An inline command: at least four letters. The agent looks closer.
            Some(bytes) if bytes.iter().all(u8::is_ascii_alphabetic) => Some(PROTOCOL_RESP),
            // A MySQL server would have greeted on a new connection.
            Some(bytes) if state.fresh == 0 && !server && mysql_command(bytes, buffers, result) => Some(PROTOCOL_MYSQL),
            _ => None,
        };
        if protocol.is_none() {
            state.misses += 1;
            if state.misses >= MAX_MISSES {
                state.verdict = VERDICT_IGNORED;
            }
        }
        protocol
    } else if state.fresh == 1 && state.heard == 0 && state.misses == 0 && !server {
        state.heard = 1;
        mysql_greeting(buffers, result).then_some(PROTOCOL_MYSQL)
    } else {
        None
    };
    let Some(protocol) = protocol else { return false };
    let Some(socket) = stream_socket(key.fd) else {
        state.verdict = VERDICT_IGNORED;
        return false;
    };
    let Some(number) = connection_number() else { return false };
    state.connection = number;
    state.verdict = VERDICT_CANDIDATE;
    announce(key, state, protocol, socket, 0);
    true
}

/// A number for a connection that no other one has.
#[inline(always)]
pub fn connection_number() -> Option<u64> {
    let number = CONNECTION_NUMBERS.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value, used with preemption off (tracepoint) or by a rare first write.
    let next = unsafe {
        *number += 1;
        *number
    };
    // SAFETY: the helper has no preconditions.
    Some(((unsafe { bpf_get_smp_processor_id() } as u64 + 1) << 40) | next)
}

/// A server's first words: three bytes of length, the number 0, and protocol version 10. The header may come alone.
#[inline(always)]
fn mysql_greeting(buffers: &Buffers, result: i64) -> bool {
    match first_bytes(buffers) {
        Some([len, more, 0, 0]) if result >= 5 => {
            len as i64 + 256 * more as i64 + 4 == result && fifth_byte(buffers) == Some(MYSQL_VERSION)
        }
        Some([len, 0, 0, 0]) => result == 4 && len >= MIN_GREETING,
        _ => false,
    }
}

/// One command that fills the call, of which no other packet is: its length, the number 0, and its code.
#[inline(always)]
fn mysql_command([low, middle, high, number]: [u8; 4], buffers: &Buffers, result: i64) -> bool {
    let len = low as i64 + 256 * middle as i64 + 65_536 * high as i64;
    if number != 0 || len == 0 || (result != len + 4 && result != 4) {
        return false;
    }
    result == 4 || matches!(fifth_byte(buffers), Some(1..=0x1f | 0xfa))
}

/// The fifth byte of a call, if it is in the same buffer as the first; 10, which begins a greeting and is a command too, if not:
/// the agent looks closer.
#[inline(always)]
fn fifth_byte(buffers: &Buffers) -> Option<u8> {
    match *buffers {
        Buffers::One { pointer } => user::<u8>(pointer + 4),
        Buffers::Vector { vector, .. } => {
            let [pointer, len] = user::<[u64; 2]>(vector)?;
            if len > 4 { user::<u8>(pointer + 4) } else { Some(MYSQL_VERSION) }
        }
    }
}

/// The first four bytes of a call; two are enough where there are no more.
#[inline(always)]
fn first_bytes(buffers: &Buffers) -> Option<[u8; 4]> {
    let pointer = match *buffers {
        Buffers::One { pointer } => pointer,
        Buffers::Vector { vector, .. } => user::<u64>(vector)?,
    };
    user::<[u8; 4]>(pointer)
}

/// The `struct sock` of a descriptor, if it is a stream socket of a family that servers use.
#[inline(always)]
pub fn stream_socket(fd: u32) -> Option<u64> {
    let offsets = OFFSETS.get(0)?;
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    let files = kernel::<u64>(task + offsets.task_files as u64)?;
    let table = kernel::<u64>(files + offsets.files_fdt as u64)?;
    if fd >= kernel::<u32>(table + offsets.fdtable_max as u64)? {
        return None;
    }
    let array = kernel::<u64>(table + offsets.fdtable_fd as u64)?;
    let file = kernel::<u64>(array + 8 * fd as u64)?;
    let inode = kernel::<u64>(file + offsets.file_inode as u64)?;
    if kernel::<u16>(inode + offsets.inode_mode as u64)? & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = kernel::<u64>(file + offsets.file_private as u64)?;
    if kernel::<u16>(socket + offsets.socket_type as u64)? != SOCK_STREAM {
        return None;
    }
    let sock = kernel::<u64>(socket + offsets.socket_sk as u64)?;
    let family = kernel::<u16>(sock + offsets.sock_family as u64)?;
    matches!(family, AF_INET | AF_INET6 | AF_UNIX).then_some(sock)
}

/// Tells the agent of a connection and its addresses.
#[inline(always)]
pub fn announce(key: ConnectionKey, state: &ConnectionState, protocol: u16, sock: u64, flags: u16) {
    let Some(offsets) = OFFSETS.get(0) else { return };
    let Some(mut entry) = reserve::<Connection>(Counter::Lifecycle, Counter::LifecycleRingFull) else { return };
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() };
    let record = entry.write(Connection {
        head: head(KIND_OPEN, now, now),
        connection: state.connection,
        fd: key.fd,
        ..Connection::default()
    });
    record.head.flags = flags;
    if state.fresh == 1 {
        record.head.flags |= FLAG_FRESH;
    }
    record.sock = sock;
    let family = kernel::<u16>(sock + offsets.sock_family as u64).unwrap_or(0);
    record.family = family;
    record.protocol = protocol;
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

#[inline(always)]
fn advice(connection: u64) -> Option<Advice> {
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    unsafe { ADVICE.get(connection) }.copied()
}

/// Bytes at the start of a call of `total` that the agent does not need.
#[inline(always)]
fn unneeded(record: &Socket, total: u64) -> u64 {
    if total <= ASK_ADVICE {
        return 0;
    }
    let Some(advice) = advice(record.connection) else { return 0 };
    let wanted = if record.direction == DIRECTION_SENT { advice.sent } else { advice.received };
    let skip = wanted.saturating_sub(record.offset);
    if skip > total { total } else { skip }
}

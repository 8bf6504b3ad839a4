//! Which sockets are connections worth following, and the bytes that pass them.
//!
//! A socket is followed once its bytes look like RESP, MySQL or PostgreSQL; the agent, which knows more, then confirms or rejects it. What is
//! rejected costs one map look-up a call from then on.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use tracer_common::map::*;
use tracer_common::record::*;

use crate::context;
use crate::copy::{self, Buffers, Walk};
use crate::emit::{count, count_all, head};
use crate::maps::{ADVICE, CONNECTION_NUMBERS, CONNECTIONS, SOCKET_CALLS, TARGETS, ZERO_SOCKET_CALL};
use crate::memory::user;
use crate::socket;

const EINTR: i64 = 4;
const EAGAIN: i64 = 11;
/// Writes of other things before a socket is given up: an old connection may be in the middle of a long value.
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
    /// The socket that it sends to, 0 where that is not known.
    pub sock: u64,
    /// Where the headers of a call with several messages are, and the next message.
    pub messages: u64,
    pub message: u64,
    pub walk: Walk,
}

/// One call on a socket.
pub struct Transfer {
    /// Towards the peer.
    pub sent: bool,
    /// Bytes that passed, or a negative errno.
    pub result: i64,
    /// When it began; of a call that receives, when it ended.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// The current process, if the sockets of which it is the client are watched.
#[inline(always)]
pub fn client() -> Option<&'static Target> {
    let target = target()?;
    (target.flags & TARGET_SERVER == 0).then_some(target)
}

/// The current process, if its sockets are watched.
#[inline(always)]
pub fn target() -> Option<&'static Target> {
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let target = unsafe { TARGETS.get((bpf_get_current_pid_tgid() >> 32) as u32) }?;
    (target.flags & TARGET_SOCKETS != 0).then_some(target)
}

/// Some bytes passed, or the call failed. `buffers` is asked where the bytes are, if they matter; it is told whether the socket is
/// known already to be a connection.
#[inline(always)]
pub fn passed(key: SocketKey, target: &Target, transfer: &Transfer, buffers: impl FnOnce(bool) -> Buffers) {
    let Transfer { sent, result, start_ns, end_ns } = *transfer;
    let state = match CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: calls of one direction of a connection follow each other, and each direction has its own field.
        Some(state) => unsafe { &mut *state },
        None => {
            // The first to speak is the client, but for a greeting, and that a Unix socket was connected may not have been seen.
            if result <= 0 || !(sent || socket::is_unix(key)) {
                return;
            }
            let Some(state) = adopt(key, sent) else { return };
            state
        }
    };
    if state.verdict == VERDICT_IGNORED || state.encrypted != 0 {
        return;
    }
    let buffers = buffers(state.verdict != 0);
    if state.verdict == 0 && !recognise(key, state, sent, &buffers, result) {
        return;
    }
    if state.verdict == VERDICT_CANDIDATE
        && let Some(advice) = advice(state.connection)
        && advice.verdict != 0
    {
        state.verdict = advice.verdict;
        if advice.announce != 0 {
            socket::announce(key, state, 0);
        }
        if advice.verdict == VERDICT_IGNORED {
            return;
        }
    }
    if result < 0 && (result == -EAGAIN || result == -EINTR || result < -4095) {
        return;
    }
    let Some(call) = call() else {
        count(Counter::SocketCallsMapFull);
        return;
    };
    let walk = &mut call.walk;
    walk.record = Socket {
        head: head(KIND_SOCKET, start_ns, end_ns),
        connection: state.connection,
        offset: if sent { state.sent } else { state.received },
        len: 0,
        direction: if sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
        protocol: state.protocol as u16,
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
    if sent && state.sent == 0 && state.numbered == 0 {
        // The reply came first: what the command's call had written by then is not known.
        socket::expect(key, state, sent, result);
    }
    let unseen = socket::unseen(key, state, sent, len);
    if unseen > 0 {
        count_all(Counter::SocketBytesUnseen, unseen);
        copy::without_bytes(&walk.record, unseen);
        walk.record.offset += unseen;
    }
    let end = walk.record.offset + len;
    if sent {
        state.sent = end;
    } else {
        state.received = end;
    }
    if buffers.count == 0 {
        count_all(Counter::SocketBytesUnseen, len);
    }
    let skip = unneeded(&walk.record, len);
    // SAFETY: it is that of this thread's call, and not used after this.
    unsafe { copy::send(walk, &buffers, len, skip) };
}

/// The current thread's [`SocketCall`], made at its first use. Without room there is none: [`passed`] counts that.
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
        return None;
    }
    // SAFETY: as above.
    SOCKET_CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// The thread is ending.
#[inline(always)]
pub fn thread_exit(pid_tgid: u64) {
    // Looking is cheap, removing takes a lock, and most threads have nothing here.
    if SOCKET_CALLS.get_ptr(pid_tgid).is_some() {
        let _ = SOCKET_CALLS.remove(pid_tgid);
    }
}

/// Starts to look at a socket that was not seen before. What is no stream is left alone: it costs these reads at each call.
#[inline(always)]
fn adopt(key: SocketKey, sent: bool) -> Option<&'static mut ConnectionState> {
    if !socket::is_stream(key) {
        return None;
    }
    let fresh = if sent { 0 } else { FRESH_PERHAPS };
    let state = ConnectionState { fresh, ..ConnectionState::default() };
    if CONNECTIONS.insert(key, state, 0).is_err() {
        count(Counter::ConnectionsMapFull);
        return None;
    }
    // SAFETY: as in `passed`.
    CONNECTIONS.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// Decides whether the bytes could be of a protocol that the agent knows, and announces the connection if so.
#[inline(always)]
fn recognise(key: SocketKey, state: &mut ConnectionState, sent: bool, buffers: &Buffers, result: i64) -> bool {
    if result <= 0 {
        return false;
    }
    if buffers.count == 0 {
        state.heard = 1;
        return false;
    }
    let protocol = if sent {
        let protocol = match first_bytes(buffers) {
            Some([b'*', b'0'..=b'9', ..]) => Some(PROTOCOL_RESP),
            // An inline command: at least four letters. The agent looks closer.
            Some(bytes) if bytes.iter().all(u8::is_ascii_alphabetic) => Some(PROTOCOL_RESP),
            Some(bytes) if postgres_startup(bytes, buffers, result) => {
                // Nothing passes a connection before this.
                state.fresh = 1;
                Some(PROTOCOL_POSTGRES)
            }
            Some(bytes) if state.fresh == 0 && postgres_request(bytes, buffers, result) => Some(PROTOCOL_POSTGRES),
            // A MySQL server would have greeted on a new connection.
            Some(bytes) if state.fresh == 0 && mysql_command(bytes, buffers, result) => Some(PROTOCOL_MYSQL),
            Some(bytes) if is_encrypted(bytes) => {
                state.encrypted = 1;
                count(Counter::TlsConnections);
                socket::begin(key, state, PROTOCOL_UNKNOWN, FLAG_ENCRYPTED);
                return false;
            }
            _ => None,
        };
        if protocol.is_none() {
            state.misses += 1;
            if state.misses >= MAX_MISSES {
                state.verdict = VERDICT_IGNORED;
                count(Counter::SocketsGivenUp);
            }
        }
        protocol
    } else if state.fresh != 0 && state.heard == 0 && state.misses == 0 {
        state.heard = 1;
        let greets = mysql_greeting(buffers, result);
        // Who greets has said nothing before.
        state.fresh = if greets { 1 } else { state.fresh & 1 };
        if greets {
            Some(PROTOCOL_MYSQL)
        } else if resp_reply(buffers, result) {
            // Another thread is still in the call that sends the command.
            Some(PROTOCOL_RESP)
        } else {
            None
        }
    } else {
        None
    };
    let Some(protocol) = protocol else { return false };
    if sent || protocol == PROTOCOL_MYSQL {
        socket::expect(key, state, sent, result);
    }
    state.verdict = VERDICT_CANDIDATE;
    if !socket::begin(key, state, protocol, 0) {
        state.verdict = VERDICT_IGNORED;
        return false;
    }
    true
}

/// A record of TLS 1.0 to 1.3: part of the handshake, or data of a connection that was open before. They are no longer than 2^14
/// bytes and what encryption adds.
#[inline(always)]
fn is_encrypted(bytes: [u8; 4]) -> bool {
    matches!(bytes, [0x16 | 0x17, 3, 1..=3, 0..=0x48])
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

/// A reply, or the marker of one that is read byte by byte.
#[inline(always)]
fn resp_reply(buffers: &Buffers, result: i64) -> bool {
    match first_bytes(buffers) {
        Some([b'+' | b'-' | b':' | b'$' | b'*' | b'%', ..]) if result == 1 => true,
        Some([b'+' | b'-', b'A'..=b'Z', ..]) => true,
        Some([b':' | b'$' | b'*' | b'%' | b'~' | b'>', b'0'..=b'9' | b'-', ..]) => true,
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

/// A client's first message, which fills the call: its length, and the protocol's version or one of the numbers that ask for
/// encryption or for the end of a command.
#[inline(always)]
fn postgres_startup([first, second, high, low]: [u8; 4], buffers: &Buffers, result: i64) -> bool {
    if first != 0 || second != 0 || 256 * high as i64 + low as i64 != result {
        return false;
    }
    let Some([pointer, len]) = buffers.first() else { return false };
    len >= 8 && matches!(user::<[u8; 4]>(pointer + 4), Some([0, 3, 0, _] | [4, 0xd2, 0x16, 0x2e..=0x30]))
}

/// A message that begins a request and is whole: its kind and its length, which does not count the kind. A query is alone in its call.
#[inline(always)]
fn postgres_request([kind, high, middle, low]: [u8; 4], buffers: &Buffers, result: i64) -> bool {
    if !matches!(kind, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S') || high != 0 || result < 5 {
        return false;
    }
    let Some(last) = fifth_byte(buffers) else { return false };
    let len = 65_536 * middle as i64 + 256 * low as i64 + last as i64;
    len >= 4 && if kind == b'Q' { len + 1 == result } else { len < result }
}

/// The fifth byte of a call, if it is in the same buffer as the first; 10, which begins a greeting and is a command too, if not:
/// the agent looks closer.
#[inline(always)]
fn fifth_byte(buffers: &Buffers) -> Option<u8> {
    let [pointer, len] = buffers.first()?;
    if len > 4 { user::<u8>(pointer + 4) } else { Some(MYSQL_VERSION) }
}

/// The first four bytes of a call; two are enough where there are no more.
#[inline(always)]
fn first_bytes(buffers: &Buffers) -> Option<[u8; 4]> {
    let [pointer, _] = buffers.first()?;
    user::<[u8; 4]>(pointer)
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

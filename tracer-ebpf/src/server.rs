//! What the main thread of a server does, call by call.
//!
//! A Redis server executes what a read brought between that read's exit and its next system call, so the boundaries of the
//! system calls are those of the executions. Steps are collected in a map and leave together when the server goes to sleep:
//! a record per call would cost more than the call's own work.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_common::map::*;
use tracer_common::record::*;

use crate::emit::{QUIET, count, count_all, head};
use crate::maps::{EVENTS, SERVED, SERVER_OWNERS, SERVER_STATES, SERVERS, ZERO_SERVER};
use crate::memory::{copy_user, user};
use crate::socket;
use crate::syscalls::*;

// x86-64 system-call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
const OPEN: u64 = 2;
const ACCEPT: u64 = 43;
const CLONE: u64 = 56;
const FORK: u64 = 57;
const VFORK: u64 = 58;
const FSYNC: u64 = 74;
const FDATASYNC: u64 = 75;
const FTRUNCATE: u64 = 77;
const RENAME: u64 = 82;
const UNLINK: u64 = 87;
const EPOLL_WAIT: u64 = 232;
const EPOLL_CTL: u64 = 233;
const OPENAT: u64 = 257;
const EPOLL_PWAIT: u64 = 281;
const ACCEPT4: u64 = 288;
const CLONE3: u64 = 435;

/// Other calls that took less are nobody's delay.
const OWN_NS: u64 = 20_000;

/// A server between two records.
#[repr(C)]
pub struct Server {
    /// Directly followed by the steps: they leave as one piece.
    head: Head,
    steps: [Step; MAX_STEPS],
    count: u64,
    /// 1 while what the last step read is being executed.
    executing: u64,
    /// Entry of the call that the thread is in; 0 outside one.
    call_ns: u64,
    /// The process that this is about, where it has a place.
    owner: u64,
}

/// Calls that a command does not make while it is executed. Memory, sleep and fork are not among them.
#[inline(always)]
pub fn ends_execution(number: u64) -> bool {
    matches!(
        number,
        READ | WRITE
            | OPEN
            | CLOSE
            | READV
            | WRITEV
            | SENDFILE
            | ACCEPT
            | SENDTO
            | RECVFROM
            | SENDMSG
            | RECVMSG
            | FSYNC
            | FDATASYNC
            | FTRUNCATE
            | RENAME
            | UNLINK
            | EPOLL_WAIT
            | EPOLL_CTL
            | OPENAT
            | EPOLL_PWAIT
            | ACCEPT4
    ) || is_fork(number)
}

#[inline(always)]
fn is_fork(number: u64) -> bool {
    matches!(number, CLONE | FORK | VFORK | CLONE3)
}

/// The server whose main thread this is, if it has a place.
#[inline(always)]
pub fn placed(pid_tgid: u64) -> Option<&'static mut Server> {
    let pid = main_thread(pid_tgid)?;
    let owner = SERVER_OWNERS.get_ptr(pid % SERVER_PLACES)?;
    // SAFETY: map values stay readable while the program runs.
    if unsafe { owner.read_volatile() } != pid {
        return None;
    }
    let server = SERVER_STATES.get_ptr_mut(pid % SERVER_PLACES)?;
    // SAFETY: only the main thread of the process gets here, and it is in one call at a time.
    let server = unsafe { &mut *server };
    if server.owner != pid as u64 {
        server.owner = pid as u64;
        server.count = 0;
        server.executing = 0;
        server.call_ns = 0;
        // It was started as a server, and has the place since the agent knows of it.
        if let Some(before) = SERVERS.get_ptr_mut(pid) {
            // SAFETY: as above.
            flush(unsafe { &mut *before });
            let _ = SERVERS.remove(pid);
        }
    }
    Some(server)
}

/// The same for one without a place, made at its first use.
#[inline(always)]
pub fn unplaced(pid_tgid: u64) -> Option<&'static mut Server> {
    let pid = main_thread(pid_tgid)?;
    if let Some(server) = SERVERS.get_ptr_mut(pid) {
        // SAFETY: only the main thread of the process gets here, and it is in one call at a time.
        return Some(unsafe { &mut *server });
    }
    let zero = ZERO_SERVER.get_ptr(0)?;
    // SAFETY: the map value lives as long as the map and is never written.
    if SERVERS.insert(pid, unsafe { &*zero }, 0).is_err() {
        return None;
    }
    // SAFETY: as above.
    SERVERS.get_ptr_mut(pid).map(|server| unsafe { &mut *server })
}

/// The process has ended, or runs another program.
#[inline(always)]
pub fn forget(pid: u32) {
    if SERVERS.get_ptr(pid).is_some() {
        let _ = SERVERS.remove(pid);
    }
    if let Some(owner) = SERVER_OWNERS.get_ptr_mut(pid % SERVER_PLACES)
        && let Some(server) = SERVER_STATES.get_ptr_mut(pid % SERVER_PLACES)
    {
        // SAFETY: map values stay writable while the program runs, and nobody else uses those of a process.
        unsafe {
            if *owner == pid {
                (*server).owner = 0;
                *owner = 0;
            }
        }
    }
}

/// The process, if this is its main thread.
#[inline(always)]
fn main_thread(pid_tgid: u64) -> Option<u32> {
    let pid = (pid_tgid >> 32) as u32;
    (pid == pid_tgid as u32).then_some(pid)
}

/// A call begins.
#[inline(always)]
pub fn enter(server: &mut Server, pid: u32, number: u64, fd: u64) {
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    server.call_ns = now;
    if server.executing != 0 {
        if is_fork(number) {
            // A command's own: BGSAVE.
            server.call_ns = 0;
            return;
        }
        server.executing = 0;
        if let Some(step) = step(server, server.count.wrapping_sub(1)) {
            step.done_ns = now;
        }
    }
    match number {
        EPOLL_WAIT | EPOLL_PWAIT => flush(server),
        CLOSE | CONNECT | DUP2 | DUP3 => {
            let key = DescriptorKey { pid, fd: fd as u32 };
            if let Some(state) = SERVED.get_ptr(key) {
                // SAFETY: map values stay readable while the program runs.
                let connection = unsafe { (*state).connection };
                // What passed the connection comes before its end.
                flush(server);
                let _ = SERVED.remove(key);
                socket::closed(connection, 0);
            }
        }
        _ => {}
    }
}

/// A call ends that is not followed: of another thread than the main one, or of a server for which there is no room.
#[inline(always)]
pub fn exit_unfollowed(pid_tgid: u64, number: u64, key: DescriptorKey, result: i64) {
    if !(is_read(number) || is_write(number)) || result <= 0 {
        return;
    }
    if main_thread(pid_tgid).is_none() {
        if SERVED.get_ptr(key).is_some() {
            count(Counter::ServerOtherThreads);
        }
    } else if socket::of_descriptor(key.fd).is_some_and(socket::is_stream) {
        count(Counter::ServersMapFull);
    }
}

#[inline(always)]
fn is_read(number: u64) -> bool {
    matches!(number, READ | READV | RECVFROM | RECVMSG)
}

#[inline(always)]
fn is_write(number: u64) -> bool {
    matches!(number, WRITE | WRITEV | SENDTO | SENDMSG)
}

/// A call ends.
#[inline(always)]
pub fn exit(server: &mut Server, number: u64, key: DescriptorKey, buffer: u64, result: i64) {
    let (reads, writes) = (is_read(number), is_write(number));
    let start_ns = server.call_ns;
    server.call_ns = 0;
    if start_ns == 0 {
        return;
    }
    // SAFETY: reading the clock has no preconditions.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let mut made = Made { start_ns, end_ns, connection: 0, offset: 0, len: 0, kind: STEP_OWN, call: number as u16 };
    if matches!(number, EPOLL_WAIT | EPOLL_PWAIT) {
        made.kind = STEP_IDLE;
    } else if (reads || writes) && result > 0 {
        let len = result as u64;
        if let Some(state) = connection(key, reads) {
            made.connection = state.connection;
            made.len = len as u32;
            if reads {
                made.kind = STEP_READ;
                made.offset = state.received;
                state.received += len;
            } else {
                made.kind = STEP_WRITE;
                made.offset = state.sent;
                state.sent += len;
            }
        }
    }
    if made.kind == STEP_OWN && end_ns - start_ns < OWN_NS {
        return;
    }
    if server.count >= MAX_STEPS as u64 {
        flush(server);
    }
    let Some(step) = step(server, server.count) else { return };
    step.start_ns = made.start_ns;
    step.end_ns = made.end_ns;
    step.done_ns = 0;
    step.connection = made.connection;
    step.offset = made.offset;
    step.len = made.len;
    step.kind = made.kind;
    step.call = made.call;
    if made.kind == STEP_READ {
        let from = match number {
            READV => user::<u64>(buffer),
            RECVMSG => user::<u64>(buffer + 16).and_then(user::<u64>),
            _ => Some(buffer),
        };
        let kept = if (made.len as u64) < STEP_BYTES as u64 { made.len as u64 } else { STEP_BYTES as u64 };
        let read = from.is_some_and(|from| copy_user::<{ STEP_BYTES as u64 }>(step.bytes.as_mut_ptr(), kept, from));
        if !read {
            step.bytes[0] = 0;
            count(Counter::UserReadFailed);
        }
        server.executing = 1;
    }
    server.count += 1;
}

/// A step, but for its bytes: on the stack, so that the map value is written once.
struct Made {
    start_ns: u64,
    end_ns: u64,
    connection: u64,
    offset: u64,
    len: u32,
    kind: u16,
    call: u16,
}

/// A step by its index.
#[inline(always)]
fn step(server: &mut Server, index: u64) -> Option<&mut Step> {
    // The verifier must see the bound on the very number that is used.
    // SAFETY: the address of a live local.
    let index = unsafe { (&raw const index).read_volatile() };
    if index >= MAX_STEPS as u64 {
        return None;
    }
    // SAFETY: `index` is below the array's length.
    Some(unsafe { &mut *server.steps.as_mut_ptr().add(index as usize) })
}

/// The connection behind a descriptor; `None` for what is none. It begins with the first bytes that are read.
#[inline(always)]
fn connection(key: DescriptorKey, reads: bool) -> Option<&'static mut ConnectionState> {
    if let Some(state) = SERVED.get_ptr_mut(key) {
        // SAFETY: the descriptor is used by the server's main thread.
        let state = unsafe { &mut *state };
        return (state.verdict != VERDICT_IGNORED).then_some(state);
    }
    if !reads {
        return None;
    }
    let socket = socket::of_descriptor(key.fd).filter(|&socket| socket::is_stream(socket));
    let verdict = if socket.is_some() { VERDICT_TRACKED } else { VERDICT_IGNORED };
    if SERVED.insert(key, ConnectionState { verdict, ..ConnectionState::default() }, 0).is_err() {
        if socket.is_some() {
            count(Counter::ServedMapFull);
        }
        return None;
    }
    let socket = socket?;
    // SAFETY: as above.
    let state = SERVED.get_ptr_mut(key).map(|state| unsafe { &mut *state })?;
    if !socket::begin(socket, state, PROTOCOL_RESP, FLAG_SERVER) {
        let _ = SERVED.remove(key);
        return None;
    }
    Some(state)
}

/// Sends the steps.
#[inline(always)]
fn flush(server: &mut Server) {
    let count = server.count;
    server.count = 0;
    if count == 0 || count > MAX_STEPS as u64 {
        return;
    }
    let bytes = count * size_of::<Step>() as u64;
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    server.head = Head { payload_len: bytes as u32, ..head(KIND_STEPS, now, now) };
    count_all(Counter::ServerSteps, count);
    let len = size_of::<Head>() as u64 + bytes;
    // The verifier must see the bound on the very number that is used.
    // SAFETY: the address of a live local.
    let len = unsafe { (&raw const len).read_volatile() };
    if len > (size_of::<Head>() + MAX_STEPS * size_of::<Step>()) as u64 {
        return;
    }
    // SAFETY: the head and the steps follow each other without padding in the map value, and `len` is within them.
    let record = unsafe { core::slice::from_raw_parts((server as *const Server).cast::<u8>(), len as usize) };
    if EVENTS.output::<[u8]>(record, QUIET).is_err() {
        count_all(Counter::ServerStepsRingFull, count);
    }
}

//! Records in the two ring buffers: processes in one, everything else in the other. Each starts with a [`Head`] or with its
//! first fields ([`Short`]); `payload_len` bytes of payload follow the fixed part.

/// Bytes of a message kept from its start; a message up to twice as long as this is kept whole.
pub const MESSAGE_PREFIX: usize = 512;
/// Bytes of a longer message kept from its end, where trailers and late fields are.
pub const MESSAGE_TAIL: usize = 512;
/// Most bytes of one socket call in one record; longer calls make several records.
pub const SOCKET_CHUNK: usize = 16 * 1024;
/// Most bytes of one socket call that are captured; the rest is reported as a gap.
pub const SOCKET_CAPTURE: usize = 64 * SOCKET_CHUNK;
/// Most bytes of one record of the shim that are copied.
pub const SHIM_RECORD: usize = 1024;

/// `Head::kind`: a prost call that ended; a [`Message`] follows.
pub const KIND_MESSAGE: u16 = 1;
/// `Head::kind`: bytes that passed a socket; a [`Socket`] follows.
pub const KIND_SOCKET: u16 = 2;
/// `Head::kind`: a socket became a tracked connection; a [`Connection`] follows.
pub const KIND_OPEN: u16 = 3;
/// `Head::kind`: a tracked connection was closed; a [`Connection`] follows.
pub const KIND_CLOSE: u16 = 4;
/// `Head::kind`: a process started another program (`execve`): a [`Lifecycle`].
pub const KIND_EXEC: u16 = 5;
/// `Head::kind`: a target ended, which is when its last thread does: a [`Lifecycle`].
pub const KIND_EXIT: u16 = 6;
/// `Head::kind`: a span of the shim; its record is the payload.
pub const KIND_SHIM: u16 = 7;
/// `Head::kind`: a target forked: a [`Lifecycle`].
pub const KIND_FORK: u16 = 8;
/// `Head::kind`: what the main thread of a server did; the payload is an array of [`Step`], in order.
pub const KIND_STEPS: u16 = 9;
/// `Head::kind`: a target has made an io_uring; only the head.
pub const KIND_URING: u16 = 10;
/// `Head::kind`: a task makes a gRPC call; a [`GrpcCall`] follows.
pub const KIND_GRPC_CALL: u16 = 17;
/// `Head::kind`: a task is spawned; a [`TaskSpawn`] follows.
pub const KIND_TASK_SPAWN: u16 = 18;
/// `Head::kind`: the dynamic loader of a target has loaded libraries; a [`Lifecycle`].
pub const KIND_LOADED: u16 = 16;

/// `Head::flags`: `trace_id`, `span_id` and `trace_flags` hold the thread's active context.
pub const FLAG_CONTEXT: u16 = 1;
/// `Head::flags` of a message: the call returned an error.
pub const FLAG_ERROR: u16 = 2;
/// `Head::flags` of a message: the call ended by a panic.
pub const FLAG_PANIC: u16 = 4;
/// `Head::flags` of a message: the call never came back and its stack frame is gone; `end_ns` is when that was seen.
pub const FLAG_UNWOUND: u16 = 8;
/// `Head::flags` of a socket record: the call failed; [`Socket::len`] is 0 and [`Socket::errno`] says why.
pub const FLAG_FAILED: u16 = 16;
/// `Head::flags` of an open record: the connection was seen to be made, so nothing passed it before.
pub const FLAG_FRESH: u16 = 32;
/// `Head::flags` of an exec record: the executable is a watched one, so the process is a target already.
pub const FLAG_WATCHED: u16 = 64;
/// `Head::flags` of an open record: the process is the server of the connection.
pub const FLAG_SERVER: u16 = 128;
/// `Head::flags` of an exec or fork record: the process comes from one whose children are followed, so it is a target already.
pub const FLAG_FOLLOWED: u16 = 1024;

/// `Head::flags` of an exec or exit record: the programs' own record was lost, and the agent has noticed the event later.
pub const FLAG_NOTICED: u16 = 256;

/// `Head::flags` of an exit record: only the main thread has ended, and others go on.
pub const FLAG_THREADS_LEFT: u16 = 512;

/// `Head::flags` of an open record: what passes the connection is encrypted (TLS).
pub const FLAG_ENCRYPTED: u16 = 2048;

/// Fields that every record begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Head {
    /// One of the `KIND_*` constants.
    pub kind: u16,
    /// `FLAG_*` bits.
    pub flags: u16,
    /// Bytes of payload after the fixed part of the record.
    pub payload_len: u32,
    /// Process (thread group) number.
    pub pid: u32,
    /// Thread number.
    pub tid: u32,
    /// When the call began; `end_ns` where that was not seen.
    pub start_ns: u64,
    /// When the call ended.
    pub end_ns: u64,
    /// tokio task id at that time, 0 when there is none or it is not known.
    pub task_id: u64,
    /// Trace id of the thread's active context (OTEP 4947), with [`FLAG_CONTEXT`].
    pub trace_id: [u8; 16],
    /// Span id of the thread's active context, with [`FLAG_CONTEXT`].
    pub span_id: [u8; 8],
    /// W3C trace flags of the thread's active context, with [`FLAG_CONTEXT`].
    pub trace_flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// The first fields of [`Head`]: what records without its times and ids begin with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Short {
    /// One of the `KIND_*` constants.
    pub kind: u16,
    /// `FLAG_*` bits.
    pub flags: u16,
    /// Bytes of payload after these fields.
    pub payload_len: u32,
    /// Process (thread group) number.
    pub pid: u32,
    /// Thread number.
    pub tid: u32,
}

/// A process began to run a program, forked or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Lifecycle {
    /// Common fields; without a payload.
    pub head: Short,
    /// When it happened.
    pub at_ns: u64,
    /// Bytes that had been written to the ring of all other records by then: what stands in them came before.
    pub position: u64,
    /// Of an exec: inode number of the executable.
    pub inode: u64,
    /// Of an exec: the kernel's number of the executable's device.
    pub device: u32,
    /// Of a fork: the child's process number.
    pub child: u32,
}

/// A task hands a request to a gRPC channel; the connection's task will encode the message in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct GrpcCall {
    /// Common fields.
    pub head: Head,
    /// Address of the request's body, 0 if it was not found. A [`Message::buffer`] of the call is inside of it.
    pub body: u64,
    /// Its size in bytes.
    pub body_len: u64,
}

/// A task (or, in a thread outside of any, whoever runs there) spawns another one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct TaskSpawn {
    /// Common fields; [`Head::task_id`] is who spawns.
    pub head: Head,
    /// tokio's id of the new task, 0 if it was not found.
    pub child: u64,
}

/// [`Message::size`] when the probe plan does not say where the size is.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// A prost call. The payload is the message's first `prefix_len` bytes and then its last `payload_len - prefix_len`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Message {
    /// Common fields.
    pub head: Head,
    /// Index of the [`crate::map::Probe`] at the call's entry.
    pub probe: u32,
    /// Payload bytes from the start of the message.
    pub prefix_len: u32,
    /// Bytes encoded, or given to the decoder; [`SIZE_UNKNOWN`] if not known.
    pub size: u64,
    /// Of a call by tonic's codec: the address of the buffer that it keeps with its stream, else 0.
    pub buffer: u64,
}

/// Towards the peer.
pub const DIRECTION_SENT: u16 = 0;
/// From the peer.
pub const DIRECTION_RECEIVED: u16 = 1;

/// Bytes of one direction of one connection: `[offset, offset + len)`, of which the payload is the first part.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Socket {
    /// Common fields.
    pub head: Head,
    /// Number of the connection, unique while the agent runs.
    pub connection: u64,
    /// Bytes of this direction before these.
    pub offset: u64,
    /// Bytes that the record stands for; more than the payload where bytes were not captured.
    pub len: u64,
    /// [`DIRECTION_SENT`] or [`DIRECTION_RECEIVED`].
    pub direction: u16,
    /// `PROTOCOL_*`: what the first bytes of the connection looked like. Each record has it, because the one of the connection's
    /// beginning may be lost.
    pub protocol: u16,
    /// Positive errno with [`FLAG_FAILED`].
    pub errno: u32,
}

/// [`Connection::protocol`]: RESP, Redis.
pub const PROTOCOL_RESP: u16 = 0;
/// [`Connection::protocol`]: MySQL.
pub const PROTOCOL_MYSQL: u16 = 1;
/// [`Connection::protocol`]: not known, as for an encrypted connection.
pub const PROTOCOL_UNKNOWN: u16 = 2;
/// [`Connection::protocol`]: PostgreSQL.
pub const PROTOCOL_POSTGRES: u16 = 3;

/// A connection that is tracked from here on, or no longer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Connection {
    /// Common fields.
    pub head: Head,
    /// Number of the connection, unique while the agent runs.
    pub connection: u64,
    /// Number of the socket's inode, as in `/proc/PID/fd`; 0 when not known.
    pub inode: u32,
    /// `AF_INET` (2), `AF_INET6` (10), `AF_UNIX` (1), or 0 when not known.
    pub family: u16,
    /// `PROTOCOL_*`: what the first bytes looked like.
    pub protocol: u16,
    /// Local address, network byte order, IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    /// Peer address, network byte order, IPv4 in the first four bytes.
    pub peer_addr: [u8; 16],
    /// Local port.
    pub local_port: u32,
    /// Peer port.
    pub peer_port: u32,
    /// Number of the network namespace (as in `/proc/PID/ns/net`), 0 when not known.
    pub netns: u32,
    /// Zero.
    pub reserved: u32,
    /// Names the socket while it exists: its address in the kernel.
    pub sock: u64,
    /// The same of the peer, of Unix sockets only.
    pub peer_sock: u64,
}

/// Most [`Step`]s of one record.
pub const MAX_STEPS: usize = 32;
/// Bytes of a read that are kept: enough for the command's name.
pub const STEP_BYTES: usize = 64;

/// `Step::kind`: waited for something to do (`epoll_wait`).
pub const STEP_IDLE: u16 = 1;
/// `Step::kind`: read from a connection, and then executed what was read.
pub const STEP_READ: u16 = 2;
/// `Step::kind`: wrote replies to a connection.
pub const STEP_WRITE: u16 = 3;
/// `Step::kind`: another call, for nobody's command, that took long.
pub const STEP_OWN: u16 = 4;

/// One thing that the main thread of a server did. The steps of a thread do not overlap.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Step {
    /// Entry of the system call.
    pub start_ns: u64,
    /// Its exit.
    pub end_ns: u64,
    /// Of a read: entry of the next system call that ends the execution of what was read; else 0.
    pub done_ns: u64,
    /// Number of the connection, of reads and writes.
    pub connection: u64,
    /// Bytes of this direction of the connection before these.
    pub offset: u64,
    /// Bytes that the call passed.
    pub len: u32,
    /// `STEP_*`.
    pub kind: u16,
    /// Number of the system call.
    pub call: u16,
    /// The first bytes of a read.
    pub bytes: [u8; STEP_BYTES],
}

const _: () = {
    assert!(size_of::<Head>() == 72);
    assert!(size_of::<Short>() == 16);
    assert!(size_of::<Lifecycle>() == 48);
    assert!(size_of::<Message>() == 96);
    assert!(size_of::<GrpcCall>() == 88);
    assert!(size_of::<TaskSpawn>() == 80);
    assert!(size_of::<Socket>() == 104);
    assert!(size_of::<Connection>() == 152);
    assert!(size_of::<Step>() == 112);
    assert!(align_of::<Head>() == 8 && align_of::<Connection>() == 8);
};

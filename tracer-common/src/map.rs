//! Keys and values of the eBPF maps.

/// Threads with an open call at once.
pub const MAX_THREADS: u32 = 65_536;
/// Processes traced at once.
pub const MAX_TARGETS: u32 = 8_192;
/// Attach points (entry sites) at once.
pub const MAX_PROBES: u32 = 65_536;
/// Executables watched at once.
pub const MAX_EXECUTABLES: u32 = 4_096;
/// Servers attached to at once.
pub const MAX_SERVERS: u32 = 1_024;
/// Of these, the ones that have a place of their own: that of their process number modulo this.
pub const SERVER_PLACES: u32 = 256;
/// Connections tracked at once.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// `Probe::operation`: `Message::encode`.
pub const OP_ENCODE: u8 = 1;
/// `Probe::operation`: `Message::encode_to_vec`.
pub const OP_ENCODE_TO_VEC: u8 = 2;
/// `Probe::operation`: `Message::encode_length_delimited`.
pub const OP_ENCODE_LENGTH_DELIMITED: u8 = 3;
/// `Probe::operation`: `Message::encode_length_delimited_to_vec`.
pub const OP_ENCODE_LENGTH_DELIMITED_TO_VEC: u8 = 4;
/// `Probe::operation`: `Message::decode`.
pub const OP_DECODE: u8 = 5;
/// `Probe::operation`: `Message::decode_length_delimited`.
pub const OP_DECODE_LENGTH_DELIMITED: u8 = 6;
/// `Probe::operation`: `Message::merge`.
pub const OP_MERGE: u8 = 7;
/// `Probe::operation`: `Message::merge_length_delimited`.
pub const OP_MERGE_LENGTH_DELIMITED: u8 = 8;

/// `Probe::buffer`: where the bytes are is not known.
pub const BUFFER_UNKNOWN: u8 = 0;
/// `Probe::buffer`: pointer in argument `reg_a`, length in argument `reg_b`, at entry.
pub const BUFFER_SLICE: u8 = 1;
/// `Probe::buffer`: argument `reg_a` points to a struct with pointer and length, to be read at entry (decode).
pub const BUFFER_INPUT: u8 = 2;
/// `Probe::buffer`: argument `reg_a` points to a struct with pointer and length that grows until the exit (encode).
pub const BUFFER_OUTPUT: u8 = 3;
/// `Probe::buffer`: argument `reg_a` points to the place where the call leaves a struct with pointer and length.
pub const BUFFER_RESULT: u8 = 4;

/// `Probe::flags`: the first argument points to a `Result<(), EncodeError>`: 1, required, remaining when it failed.
pub const PROBE_ENCODE_RESULT: u8 = 1;
/// `Probe::flags`: an inlined call. It is named by the frame of the function around it, which it shares with other calls.
pub const PROBE_INLINED: u8 = 2;
/// `Probe::flags`: argument `reg_a` points to a pointer to the struct of the buffer.
pub const PROBE_BEHIND: u8 = 4;
/// `Probe::flags`: in place of argument `reg_a`, the address of the call's frame plus `frame_offset`.
pub const PROBE_FRAME: u8 = 8;
/// `Probe::flags`: in place of argument `reg_a`, the word in memory at that address.
pub const PROBE_FRAME_WORD: u8 = 16;

/// What a prost entry site means. Argument registers count 0 to 5: rdi, rsi, rdx, rcx, r8, r9.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// `OP_*`.
    pub operation: u8,
    /// `BUFFER_*`.
    pub buffer: u8,
    /// First argument register of the buffer.
    pub reg_a: u8,
    /// Second argument register of the buffer.
    pub reg_b: u8,
    /// Offset of the pointer in the buffer's struct.
    pub ptr_offset: u8,
    /// Offset of the length in the buffer's struct.
    pub len_offset: u8,
    /// `PROBE_*` bits.
    pub flags: u8,
    /// Offset of a second length beside a [`PROBE_BEHIND`] pointer: the message is no longer. Zero where there is none.
    pub limit_offset: u8,
    /// For [`PROBE_FRAME`], in bytes; the frame is named by the address of the return address.
    pub frame_offset: i32,
}

/// Attach cookie: what to do at this site, and for which probe.
///
/// Bits 0..32 probe index, bits 32..64 signed stack delta. `rsp + delta` is the address of the call's return address, at the
/// entry and at every exit: it names the call. An inlined call has that of the function around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Index of the [`Probe`].
    pub probe: u32,
    /// Added to rsp to get the address of the return address.
    pub sp_delta: i32,
}

impl Cookie {
    /// Packs into the 64 bits that the kernel hands back at each hit.
    pub const fn pack(self) -> u64 {
        self.probe as u64 | ((self.sp_delta as u32 as u64) << 32)
    }

    /// Inverse of [`Cookie::pack`].
    pub const fn unpack(raw: u64) -> Self {
        Self { probe: raw as u32, sp_delta: (raw >> 32) as i32 }
    }
}

/// Sites of all executables together, where the kernel has no cookies.
pub const MAX_PLACES: u32 = 1 << 17;

/// Where a site is in an executable.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Inode number of the executable.
    pub inode: u64,
    /// From the beginning of its code, as the kernel has it in `mm_struct.start_code`.
    pub offset: u64,
}

/// Thread-local slot is not there.
pub const TLS_NONE: u32 = 0;
/// Slot at `fsbase + offset`.
pub const TLS_STATIC: u32 = 1;
/// Slot through the dynamic thread vector: module `module`, then `offset`.
pub const TLS_DTV: u32 = 2;

/// Where a thread-local variable of a process is, relative to the thread pointer (x86-64 `fsbase`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `TLS_*`.
    pub kind: u32,
    /// Module number for [`TLS_DTV`].
    pub module: u32,
    /// Signed offset.
    pub offset: i64,
}

/// `Target::flags`: capture socket calls.
pub const TARGET_SOCKETS: u32 = 1;
/// `Target::flags`: the process is a server of the protocol: classify by what it reads.
pub const TARGET_SERVER: u32 = 2;
/// `Target::flags`: its children are targets, and stay so when they run another program.
pub const TARGET_FOLLOW: u32 = 4;
/// `Target::flags` of a watched executable: only where a process with [`TARGET_FOLLOW`] runs it.
pub const TARGET_IF_FOLLOWED: u32 = 8;

/// A traced process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `TARGET_*` bits.
    pub flags: u32,
    /// Offset of the task id (u64) in tokio's thread-local context.
    pub task_id_offset: u32,
    /// `otel_thread_ctx_v1` (OTEP 4947).
    pub thread_context: Tls,
    /// tokio's `CONTEXT`.
    pub tokio_context: Tls,
    /// Where the address of the shim's table of task flows is, 0 if there is none. A process that has just been started may
    /// not have been relocated yet, so the address itself is read when it is used.
    pub flows: u64,
    /// Slots of that table less one.
    pub flows_mask: u64,
}

/// A slot of the shim's table of task flows (`FLOWS_VERSION` 1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFlow {
    /// Odd while it is written.
    pub sequence: u64,
    /// The task.
    pub task: u64,
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
    /// W3C trace flags in the low byte.
    pub flags: u64,
}

/// Names a socket while it exists, and no other one ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketKey {
    /// Address of its `struct sock`, which the kernel uses again.
    pub sock: u64,
    /// Number of its inode, as in `/proc/PID/fd`.
    pub inode: u64,
}

/// Sockets that one run of the `sockets_gone` program looks at: a raw tracepoint has twelve arguments.
pub const SWEEP_SOCKETS: usize = 6;

/// A descriptor of a server. Redis gives its sockets no second descriptor and closes them one by one, so they need no better name,
/// and a server would pay for it twice a command.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorKey {
    /// Process number.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
}

/// `ConnectionState::verdict`: looks like the protocol; capture until the agent has decided.
pub const VERDICT_CANDIDATE: u32 = 1;
/// `ConnectionState::verdict`: is the protocol.
pub const VERDICT_TRACKED: u32 = 2;
/// `ConnectionState::verdict`: is something else; ignore until closed.
pub const VERDICT_IGNORED: u32 = 3;

/// `ConnectionState::fresh`: the socket may have been connected just now; a greeting would prove it.
pub const FRESH_PERHAPS: u32 = 2;

/// State of a connection; written by the programs only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// Number of the connection, unique while the agent runs; 0 while nothing was captured.
    pub connection: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// Bytes received so far.
    pub received: u64,
    /// `VERDICT_*`, 0 while unknown.
    pub verdict: u32,
    /// Writes that did not look like the protocol while the verdict was unknown.
    pub misses: u32,
    /// 1 when the connection was seen to be made, or [`FRESH_PERHAPS`].
    pub fresh: u32,
    /// 1 when something was received while the verdict was unknown: only the very first bytes can be a greeting.
    pub heard: u32,
    /// `PROTOCOL_*` of the records, once there is a number.
    pub protocol: u32,
    /// 1 if the next two are known.
    pub numbered: u32,
    /// TCP's number of the byte after the last one that was sent.
    pub written: u32,
    /// TCP's number of the byte after the last one that was received.
    pub read: u32,
    /// 1 if what passes the socket is encrypted (TLS).
    pub encrypted: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the agent knows of a connection; written by the agent only, by connection number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Sent bytes below this offset are the inside of a long value: not needed.
    pub sent: u64,
    /// Received bytes below this offset are not needed.
    pub received: u64,
    /// `VERDICT_*`, 0 while the agent has not decided.
    pub verdict: u32,
    /// 1 if the agent has not heard of the connection's beginning: it should be announced again.
    pub announce: u32,
}

/// An executable (by file system and inode) whose processes are targets from their first instruction on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executable {
    /// Inode number.
    pub inode: u64,
    /// Kernel device number (`s_dev`).
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}

/// Offsets of kernel fields, from the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOffsets {
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`: threads that have not ended.
    pub signal_live: u32,
    /// `signal_struct.flags`
    pub signal_flags: u32,
    /// `signal_struct.group_exec_task`, of older kernels `group_exit_task`: a thread that waits for the end of all others.
    pub signal_exec: u32,
    /// `mm_struct.start_code`
    pub mm_start_code: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.io_uring`, 0 where the kernel has none.
    pub task_uring: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `task_struct.thread.fsbase`
    pub task_fsbase: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `fdtable.max_fds`
    pub fdtable_max: u32,
    /// `linux_binprm.file`
    pub binprm_file: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_superblock: u32,
    /// `super_block.s_dev`
    pub superblock_device: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `file.private_data`
    pub file_private: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `socket_alloc.socket`
    pub socket_in_alloc: u32,
    /// `socket_alloc.vfs_inode`
    pub inode_in_alloc: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_shutdown`
    pub sock_shutdown: u32,
    /// `tcp_sock.write_seq`
    pub tcp_written: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_read: u32,
    /// `inet_connection_sock.icsk_ulp_ops`
    pub tcp_upper: u32,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.__sk_common.skc_daddr`
    pub sock_daddr: u32,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub sock_saddr: u32,
    /// `sock.__sk_common.skc_dport`
    pub sock_dport: u32,
    /// `sock.__sk_common.skc_num`
    pub sock_num: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sock_daddr6: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub sock_saddr6: u32,
    /// `sock.__sk_common.skc_net`
    pub sock_net: u32,
    /// `net.ns.inum`
    pub net_number: u32,
    /// `unix_sock.peer`
    pub unix_peer: u32,
    /// Non-zero when the offsets are set.
    pub known: u32,
}

/// Index of a per-CPU counter. Each counts what its name says, once per event, and never twice for one event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Message calls that ended in any way (one record is due for each).
    Messages,
    /// Message calls inside another one: part of it, no record.
    MessagesNested,
    /// Message records that found the ring buffer full.
    MessagesRingFull,
    /// Calls not followed because the per-thread map was full.
    MessagesMapFull,
    /// Exit sites reached without an open call (the call began before the probes were attached).
    ExitsWithoutEntry,
    /// Hits of prost sites whose place is not known, on kernels without cookies.
    SitesUnknown,
    /// Socket records due.
    Sockets,
    /// Socket records that found the ring buffer full.
    SocketsRingFull,
    /// Calls on connections not followed because the per-thread map was full.
    SocketCallsMapFull,
    /// Calls on connections that are not followed because the map was full: those by which a client would have begun to be
    /// followed, which are its sends and, on a Unix socket, its receives too.
    ConnectionsMapFull,
    /// Sockets given up because much was sent that looked like no protocol that the agent knows.
    SocketsGivenUp,
    /// Connections that are encrypted (TLS).
    TlsConnections,
    /// Bytes of followed connections that passed where they could not be read: the records have a gap there.
    SocketBytesUnseen,
    /// Calls on sockets by io_uring whose bytes could not be read.
    SocketCallsUring,
    /// User memory that could not be read (not resident, or gone).
    UserReadFailed,
    /// Exec, exit and fork records due.
    Lifecycle,
    /// Exec, exit and fork records that found their ring buffer full.
    LifecycleRingFull,
    /// Records of connections that are followed from here on, or no longer, due.
    Connections,
    /// Those that found the ring buffer full.
    ConnectionsRingFull,
    /// Processes that run a watched executable, or children of targets, for which the map of targets had no room.
    TargetsMapFull,
    /// Reads and writes on sockets by servers that are not followed because the map was full.
    ServersMapFull,
    /// Reads of servers on connections that are not followed because the map was full.
    ServedMapFull,
    /// gRPC calls that tasks begin (one record is due for each).
    GrpcCalls,
    /// gRPC calls whose record found the ring buffer full.
    GrpcCallsRingFull,
    /// Tasks that are spawned (one record is due for each).
    TaskSpawns,
    /// Spawned tasks whose record found the ring buffer full.
    TaskSpawnsRingFull,
    /// Shim spans due.
    Shim,
    /// Shim spans that found the ring buffer full.
    ShimRingFull,
    /// Steps of servers due.
    ServerSteps,
    /// Steps of servers that found the ring buffer full.
    ServerStepsRingFull,
    /// Socket calls that a server made in other threads than its main one (I/O threads): when it executed is not known.
    ServerOtherThreads,
    /// Not a counter: how many there are.
    Count,
}

#[cfg(feature = "user")]
mod pod {
    use super::{Advice, ConnectionState, DescriptorKey, Executable, KernelOffsets, Place, Probe, SocketKey, Target};

    macro_rules! pod {
        ($($name:ident)*) => { $(
            // SAFETY: `repr(C)`, integers only and no padding, so that every bit pattern is a value and every byte is set.
            unsafe impl aya::Pod for $name {}
        )* };
    }
    pod!(Advice ConnectionState DescriptorKey Executable KernelOffsets Place Probe SocketKey Target);
}

const _: () = {
    assert!(size_of::<Probe>() == 12);
    assert!(size_of::<Tls>() == 16);
    assert!(size_of::<Target>() == 56);
    assert!(size_of::<TaskFlow>() == 48);
    assert!(size_of::<SocketKey>() == 16);
    assert!(size_of::<DescriptorKey>() == 8);
    assert!(size_of::<ConnectionState>() == 64);
    assert!(size_of::<Advice>() == 24);
    assert!(size_of::<Executable>() == 16);
    assert!(size_of::<KernelOffsets>() == 4 * 43);
};

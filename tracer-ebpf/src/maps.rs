//! The maps, all in one place: what the agent fills, what it reads, and what only the programs use.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use tracer_common::map::*;
use tracer_common::record::Message;

use crate::server::Server;
use crate::stream::SocketCall;

/// Processes that begin a program, fork and end. It is theirs alone, so that no amount of other records makes one of them lost:
/// what the agent knows of processes decides what all others mean. Tens of thousands fit.
#[map]
pub static LIFECYCLE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Everything else that the agent receives. The agent sets the size when it loads the programs.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// Counters by [`Counter`]; the agent sums the CPUs.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::Count as u32, 0);

/// Filled by the agent once, from the kernel's BTF.
#[map]
pub static OFFSETS: Array<KernelOffsets> = Array::with_max_entries(1, 0);

/// Traced processes by process number.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

/// Executables whose new processes are targets at once.
#[map]
pub static EXECUTABLES: HashMap<Executable, Target> = HashMap::with_max_entries(MAX_EXECUTABLES, BPF_F_NO_PREALLOC);

/// What the last run of [`crate::process::identify`] found.
#[map]
pub static IDENTIFIED: Array<Executable> = Array::with_max_entries(1, 0);

/// What each prost entry site means.
#[map]
pub static PROBES: Array<Probe> = Array::with_max_entries(MAX_PROBES, 0);

/// What the cookie of each prost site would be, where the kernel has no cookies.
#[cfg(feature = "old-kernel")]
#[map]
pub static PLACES: HashMap<Place, u64> = HashMap::with_max_entries(MAX_PLACES, BPF_F_NO_PREALLOC);

/// The open prost call of each thread, by `pid_tgid`. Kept between calls, removed when the thread ends.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// One zeroed [`Call`].
#[map]
pub static ZERO_CALL: Array<Call> = Array::with_max_entries(1, 0);

/// The socket call that each thread is in, by `pid_tgid`. Kept between calls, removed when the thread ends.
#[map]
pub static SOCKET_CALLS: HashMap<u64, SocketCall> = HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// One zeroed [`SocketCall`].
#[map]
pub static ZERO_SOCKET_CALL: Array<SocketCall> = Array::with_max_entries(1, 0);

/// The servers that have a place of their own, by process number; 0 where none has. The agent gives the places: a look-up of one
/// costs a tenth of that in a hash map, and a server pays for it four times a command.
#[map]
pub static SERVER_OWNERS: Array<u32> = Array::with_max_entries(SERVER_PLACES, 0);

/// What these do.
#[map]
pub static SERVER_STATES: Array<Server> = Array::with_max_entries(SERVER_PLACES, 0);

/// Attached servers that have no place, by process number. Removed when the process ends.
#[map]
pub static SERVERS: HashMap<u32, Server> = HashMap::with_max_entries(MAX_SERVERS, BPF_F_NO_PREALLOC);

/// One zeroed [`Server`].
#[map]
pub static ZERO_SERVER: Array<Server> = Array::with_max_entries(1, 0);

/// Sockets of targets that talk to a server, or that are known not to.
#[map]
pub static CONNECTIONS: HashMap<SocketKey, ConnectionState> =
    HashMap::with_max_entries(MAX_CONNECTIONS, BPF_F_NO_PREALLOC);

/// Descriptors of attached servers.
#[map]
pub static SERVED: HashMap<DescriptorKey, ConnectionState> =
    HashMap::with_max_entries(MAX_CONNECTIONS, BPF_F_NO_PREALLOC);

/// What the agent has to say about connections, by connection number.
#[map]
pub static ADVICE: HashMap<u64, Advice> = HashMap::with_max_entries(MAX_CONNECTIONS, BPF_F_NO_PREALLOC);

/// Last connection number given out on each CPU.
#[map]
pub static CONNECTION_NUMBERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A prost call in progress, and room for its record.
#[repr(C)]
pub struct Call {
    /// Address of the call's return address: names the call.
    pub frame: u64,
    /// What stood there at entry: if it has changed, the frame is gone.
    pub return_address: u64,
    /// Length of the output buffer at entry.
    pub len_at_entry: u64,
    /// Argument registers rdi, rsi, rdx at entry.
    pub args: [u64; 3],
    /// 1 while the call is open.
    pub open: u64,
    /// 1 if the call is inlined.
    pub inlined: u64,
    /// The record under construction; the payload follows it directly.
    pub record: Message,
    pub payload: [u8; tracer_common::record::MESSAGE_PREFIX + tracer_common::record::MESSAGE_TAIL],
}

//! The loaded programs and their maps.

use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _, UProbe};
use aya::{Ebpf, EbpfLoader};
use tracer_common::map::{
    Advice, ConnectionState, Cookie, Counter, DescriptorKey, Executable, KernelOffsets, Place, Probe, SERVER_PLACES,
    SWEEP_SOCKETS, SocketKey, TARGET_FOLLOW, TARGET_SERVER, Target,
};

use super::events::Events;
use super::features::Features;
use super::identify::IDENTIFY;
use super::link::{self, Way};
use super::map_sizes::MapSizes;
use super::multi::{self, MultiPrograms};
use super::sockets::{SWEEP, SocketProbe, Watching};
use super::{KernelError, KernelTypes};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRACER_EBPF_OBJECT"));
/// The same for kernels without `bpf_loop` or attach cookies.
static OLD_KERNEL_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRACER_EBPF_OLD_OBJECT"));

/// Why the programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused `bpf()`.
    #[error(
        "not permitted to load eBPF programs, which takes CAP_BPF and CAP_PERFMON; `tracer doctor` says what is missing"
    )]
    Permission(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel's types are not known.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's types are not understood.
    #[error("cannot read the kernel's type information")]
    Btf(#[source] aya::BtfError),
    /// The kernel has no uprobes of either kind.
    #[error("the kernel has no uprobes: one with CONFIG_UPROBE_EVENTS=y is needed")]
    NoUprobes(#[source] std::io::Error),
    /// The object could not be loaded.
    #[error("cannot load the eBPF object")]
    Object(#[source] aya::EbpfError),
    /// A program was rejected; the source holds the verifier's log.
    #[error("cannot load or attach the eBPF program `{name}`")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// The object is not the one that this agent was built for.
    #[error("the embedded eBPF object has no program `{0}`: run `cargo xtask build-ebpf` and build the agent again")]
    NoProgram(&'static str),
    /// The object is not the one that this agent was built for.
    #[error("the embedded eBPF object has no map `{0}`: run `cargo xtask build-ebpf` and build the agent again")]
    NoMap(&'static str),
    /// A map could not be used.
    #[error("cannot use the eBPF map `{name}`")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::maps::MapError,
    },
    /// The kernel's side of a ring buffer could not be mapped.
    #[error("cannot read how far the ring buffers are written")]
    Positions(#[source] std::io::Error),
}

/// What can be chosen at load time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the ring buffer, rounded up to a power of two.
    pub ring_bytes: u32,
    /// Other sizes of maps than the usual ones.
    pub map_sizes: MapSizes,
    /// How socket calls are seen.
    pub sockets: SocketProbe,
}

/// All programs, loaded; those that watch processes and sockets are attached as well.
pub struct Programs {
    pub(super) ebpf: Ebpf,
    uprobes: Uprobes,
    watching: Watching,
    targets: HashMap<MapData, u32, Target>,
    server_owners: Array<MapData, u32>,
    executables: HashMap<MapData, Executable, Target>,
    pub(super) identified: Array<MapData, Executable>,
    advice: HashMap<MapData, u64, Advice>,
    connections: HashMap<MapData, SocketKey, ConnectionState>,
    served: HashMap<MapData, DescriptorKey, ConnectionState>,
    probes: Array<MapData, Probe>,
    /// Where the kernel has no cookies.
    places: Option<HashMap<MapData, Place, u64>>,
    limits: Option<String>,
    counters: PerCpuArray<MapData, u64>,
    events: Option<Events>,
    full: FullMaps,
}

/// How the uprobe programs were loaded.
enum Uprobes {
    /// For `uprobe_multi`.
    Multi(MultiPrograms),
    /// By aya, for perf events of this kind.
    Events(u32),
}

/// Entries that the agent could not make because a map was full.
#[derive(Clone, Copy, Debug, Default)]
pub struct FullMaps {
    /// Of processes that should be targets.
    pub targets: u64,
    /// Of executables whose processes should be targets from their first instruction on.
    pub executables: u64,
    /// Of connections whose unneeded bytes the programs copy until they have heard better.
    pub advice: u64,
}

impl Programs {
    /// Loads everything and starts to watch processes (and sockets, if asked to).
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let features = Features::ask();
        let object = if features.old_kernel() { OLD_KERNEL_OBJECT } else { OBJECT };
        Ok(Self { limits: features.limits(), ..Self::load_object(object, options)? })
    }

    fn load_object(object: &[u8], options: &Options) -> Result<Self, LoadError> {
        let kernel = KernelTypes::read()?;
        let offsets = kernel.offsets()?;
        let ring_bytes = options.ring_bytes.next_power_of_two().max(1 << 16);
        let watching = Watching::choose(options.sockets, &kernel);
        drop(kernel);
        let transfers = watching.transfers();
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("EVENTS", ring_bytes).override_global("TRANSFERS", &transfers, true);
        for (name, size) in &options.map_sizes.0 {
            loader.map_max_entries(name, *size);
        }
        let mut ebpf = loader.load(object).map_err(object_error)?;
        let uprobes = uprobes(&mut ebpf, object)?;
        let identifier: &mut RawTracePoint = program(&mut ebpf, IDENTIFY)?;
        identifier.load().map_err(|source| LoadError::Program { name: IDENTIFY, source })?;
        let mut array: Array<_, KernelOffsets> = map(&mut ebpf, "OFFSETS")?;
        array.set(0, offsets, 0).map_err(|source| LoadError::Map { name: "OFFSETS", source })?;
        let programs = Self {
            targets: map(&mut ebpf, "TARGETS")?,
            server_owners: map(&mut ebpf, "SERVER_OWNERS")?,
            executables: map(&mut ebpf, "EXECUTABLES")?,
            identified: map(&mut ebpf, "IDENTIFIED")?,
            advice: map(&mut ebpf, "ADVICE")?,
            connections: map(&mut ebpf, "CONNECTIONS")?,
            served: map(&mut ebpf, "SERVED")?,
            probes: map(&mut ebpf, "PROBES")?,
            places: if ebpf.map("PLACES").is_some() { Some(map(&mut ebpf, "PLACES")?) } else { None },
            limits: None,
            counters: map(&mut ebpf, "COUNTERS")?,
            events: Some(
                Events::new(map(&mut ebpf, "LIFECYCLE")?, map(&mut ebpf, "EVENTS")?).map_err(LoadError::Positions)?,
            ),
            full: FullMaps::default(),
            uprobes,
            ebpf,
            watching,
        };
        programs.watch(options.sockets != SocketProbe::Off)
    }

    fn watch(mut self, sockets: bool) -> Result<Self, LoadError> {
        for (name, tracepoint) in PROCESS_PROGRAMS {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source })?;
            program.attach(tracepoint).map_err(|source| LoadError::Program { name, source })?;
        }
        if sockets {
            self.watching.begin(&mut self.ebpf)?;
        }
        Ok(self)
    }

    /// The tracepoints that show socket calls.
    pub fn watching(&self) -> Watching {
        self.watching
    }

    /// A connection is not of TCP: from now on it is known when a send begins.
    pub fn watch_sends(&mut self) -> Result<(), LoadError> {
        self.watching.sends_begin(&mut self.ebpf)
    }

    /// Ends the watching of processes and sockets; what is in the ring buffer can still be read.
    pub fn stop(&mut self) {
        // A program that was not loaded has nothing to unload.
        for (name, _) in PROCESS_PROGRAMS {
            let _ = program::<RawTracePoint>(&mut self.ebpf, name).map(|program| program.unload());
        }
        Watching::stop(&mut self.ebpf);
    }

    /// The ring buffers, once.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// A loaded uprobe program, to be attached with [`super::Link`].
    pub fn uprobe(&self, name: &'static str) -> Result<link::Program<'_>, LoadError> {
        let kind = match &self.uprobes {
            Uprobes::Multi(multi) => {
                let fd = multi.program(name).ok_or(LoadError::NoProgram(name))?;
                return Ok(link::Program { fd, way: Way::Multi });
            }
            Uprobes::Events(kind) => *kind,
        };
        let found = self.ebpf.program(name).and_then(|program| <&UProbe>::try_from(program).ok());
        let program = found.ok_or(LoadError::NoProgram(name))?;
        let fd = program.fd().map_err(|source| LoadError::Program { name, source })?.as_fd();
        Ok(link::Program { fd, way: Way::Events(kind) })
    }

    /// Whether a probe for a single process goes with the main thread of that process: a perf event does, a `uprobe_multi` link is
    /// for all threads as long as there are any.
    pub fn probes_end_with_a_thread(&self) -> bool {
        matches!(self.uprobes, Uprobes::Events(_))
    }

    /// Whether probes can be for single processes: others that run the same file then pay nothing.
    pub fn probes_filter_processes(&self) -> bool {
        match &self.uprobes {
            Uprobes::Multi(multi) => multi.filters_processes,
            Uprobes::Events(_) => true,
        }
    }

    /// Makes a process a target, or changes what is known of it.
    pub fn set_target(&mut self, pid: u32, target: Target) -> Result<(), LoadError> {
        let inserted = self.targets.insert(pid, target, 0);
        counted(inserted, "TARGETS", &mut self.full.targets)?;
        if target.flags & TARGET_SERVER != 0 {
            self.watching.system_calls(&mut self.ebpf)?;
            self.own_place(pid, 0, pid)?;
        }
        Ok(())
    }

    /// The place of a server changes its owner, if it has the expected one. A server whose place is taken does without.
    fn own_place(&mut self, pid: u32, from: u32, to: u32) -> Result<(), LoadError> {
        let place = pid % SERVER_PLACES;
        let error = |source| LoadError::Map { name: "SERVER_OWNERS", source };
        if self.server_owners.get(&place, 0).map_err(error)? == from {
            self.server_owners.set(place, to, 0).map_err(error)?;
        }
        Ok(())
    }

    /// A process has ended: if it was a server, its descriptors went without being closed one by one.
    pub fn forget_process(&mut self, pid: u32) {
        let keys: Vec<DescriptorKey> = self.served.keys().filter_map(Result::ok).filter(|key| key.pid == pid).collect();
        for key in keys {
            let _ = self.served.remove(&key);
        }
    }

    /// Ends the connections whose sockets are gone; the records of their ends are in the ring buffer afterwards.
    pub fn sweep_connections(&mut self) -> Result<(), LoadError> {
        let keys: Vec<SocketKey> = self.connections.keys().filter_map(Result::ok).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let program: &mut RawTracePoint = program(&mut self.ebpf, SWEEP)?;
        for keys in keys.chunks(SWEEP_SOCKETS) {
            let mut options = RawTracePointRunOptions::new();
            for (pair, key) in options.args.chunks_exact_mut(2).zip(keys) {
                pair.copy_from_slice(&[key.sock, key.inode]);
            }
            program.test_run(options).map_err(|source| LoadError::Program { name: SWEEP, source })?;
        }
        Ok(())
    }

    /// The processes that are targets now, and whether what they start is as well.
    pub fn followed_targets(&self) -> std::collections::HashMap<u32, bool> {
        self.targets
            .iter()
            .filter_map(Result::ok)
            .map(|(pid, target)| (pid, target.flags & TARGET_FOLLOW != 0))
            .collect()
    }

    /// The processes that are targets now.
    pub fn target_pids(&self) -> Vec<u32> {
        self.targets.keys().filter_map(Result::ok).collect()
    }

    /// A process is no target any more; it is fine if it was none.
    pub fn remove_target(&mut self, pid: u32) {
        let _ = self.targets.remove(&pid);
        let _ = self.own_place(pid, pid, 0);
    }

    /// Makes processes that start this executable targets from their first instruction on.
    pub fn watch_executable(&mut self, executable: Executable, target: Target) -> Result<(), LoadError> {
        if target.flags & TARGET_SERVER != 0 {
            self.watching.system_calls(&mut self.ebpf)?;
        }
        let inserted = self.executables.insert(executable, target, 0);
        counted(inserted, "EXECUTABLES", &mut self.full.executables)
    }

    /// An executable is watched no more.
    pub fn unwatch_executable(&mut self, executable: Executable) {
        let _ = self.executables.remove(&executable);
    }

    /// Functions that can be probed at once.
    pub fn probe_room(&self) -> u32 {
        self.probes.len()
    }

    /// Says what a prost entry site means.
    pub fn set_probe(&mut self, index: u32, probe: Probe) -> Result<(), LoadError> {
        self.probes.set(index, probe, 0).map_err(|source| LoadError::Map { name: "PROBES", source })
    }

    /// What is not seen on this kernel, in one line.
    pub fn limits(&self) -> Option<&str> {
        self.limits.as_deref()
    }

    /// Whether links carry cookies. Where they do not, the programs must be told of each site, and know those of executables only.
    pub fn has_cookies(&self) -> bool {
        self.places.is_none()
    }

    /// Says what a prost site means, where links do not.
    pub fn set_place(&mut self, place: Place, cookie: Cookie) -> Result<(), LoadError> {
        let Some(places) = &mut self.places else { return Ok(()) };
        places.insert(place, cookie.pack(), 0).map_err(|source| LoadError::Map { name: "PLACES", source })
    }

    /// Tells the programs what the agent knows of a connection.
    pub fn advise(&mut self, connection: u64, advice: Advice) -> Result<(), LoadError> {
        let inserted = self.advice.insert(connection, advice, 0);
        counted(inserted, "ADVICE", &mut self.full.advice)
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: u64) {
        let _ = self.advice.remove(&connection);
    }

    /// What the agent could not tell the programs.
    pub fn full_maps(&self) -> FullMaps {
        self.full
    }

    /// A counter, summed over the CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, LoadError> {
        let values =
            self.counters.get(&(counter as u32), 0).map_err(|source| LoadError::Map { name: "COUNTERS", source })?;
        Ok(values.iter().sum())
    }
}

/// Counts an entry for which there was no room.
fn counted(inserted: Result<(), aya::maps::MapError>, name: &'static str, full: &mut u64) -> Result<(), LoadError> {
    inserted.map_err(|source| {
        let is_full = matches!(&source, aya::maps::MapError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(libc::E2BIG));
        *full += u64::from(is_full);
        LoadError::Map { name, source }
    })
}

const UPROBES: [&str; 8] = [
    "message_entry",
    "message_exit",
    "message_error",
    "message_panic",
    "shim_span",
    "library_loaded",
    "grpc_call",
    "task_spawn",
];
const PROCESS_PROGRAMS: [(&str, &str); 3] = [
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("process_fork", "sched_process_fork"),
];

/// Set, to anything, it makes the agent use perf events where the kernel has `uprobe_multi`.
const PERF_EVENTS_ONLY: &str = "TRACER_PERF_UPROBES";

/// Whether attaching uprobes takes CAP_SYS_ADMIN as well: `uprobe_multi` does not, perf events do on many kernels. To be asked by a
/// thread that does not have it in effect.
pub fn uprobes_need_admin() -> bool {
    !uses_multi_links() && !link::events_are_allowed()
}

/// Whether the kernel has `uprobe_multi`, and nobody forbids it.
fn uses_multi_links() -> bool {
    std::env::var_os(PERF_EVENTS_ONLY).is_none() && multi::links_are_known()
}

/// Loads the uprobe programs in the best form that the kernel has.
fn uprobes(ebpf: &mut Ebpf, object: &[u8]) -> Result<Uprobes, LoadError> {
    // Asked first, and with a program of its own: an old kernel takes these programs with the attach type that it does not know,
    // and then refuses them with another one, because they share the map `NO_PROGRAM`.
    if uses_multi_links() {
        match MultiPrograms::load(object, ebpf, &UPROBES) {
            Ok(multi) => return Ok(Uprobes::Multi(multi)),
            Err(error) => tracing::warn!("using perf events for uprobes: {:#}", anyhow::Error::new(error)),
        }
    } else {
        tracing::debug!("no uprobe_multi links (Linux 6.6 has them): using perf events");
    }
    let kind = link::event_kind().map_err(LoadError::NoUprobes)?;
    for name in UPROBES {
        let program: &mut UProbe = program(ebpf, name)?;
        program.load().map_err(|source| LoadError::Program { name, source })?;
    }
    Ok(Uprobes::Events(kind))
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(LoadError::NoProgram(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}

fn map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::NoMap(name))?;
    map.try_into().map_err(|source| LoadError::Map { name, source })
}

/// A refusal for lack of privilege gets its own error: it has a remedy.
fn object_error(error: aya::EbpfError) -> LoadError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return LoadError::Permission(Box::new(error));
        }
        source = current.source();
    }
    LoadError::Object(error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd as _, BorrowedFd};

    use super::{OBJECT, OLD_KERNEL_OBJECT, Options, Programs, SocketProbe, UPROBES};

    const OPTIONS: Options =
        Options { ring_bytes: 1 << 20, map_sizes: super::MapSizes(Vec::new()), sockets: SocketProbe::Auto };

    /// Needs root: the end-to-end run sets TRACER_STRICT, and then it must not be missing.
    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn every_program_passes_the_verifier() {
        for sockets in [SocketProbe::Auto, SocketProbe::SystemCalls] {
            Programs::load(&Options { sockets, ..OPTIONS }).expect("load");
        }
    }

    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn every_program_for_old_kernels_passes_the_verifier() {
        let programs = Programs::load_object(OLD_KERNEL_OBJECT, &OPTIONS).expect("load");
        assert!(!programs.has_cookies());
        assert!(Programs::load_object(OBJECT, &OPTIONS).expect("load").has_cookies());
    }

    /// A program that has a stack of its own finds it, at its beginning, by adding the place of the processor's data to a register.
    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn no_uprobe_program_has_a_stack_that_another_run_writes_to() {
        const ADD_GS_R9: [u8; 5] = [0x65, 0x4c, 0x03, 0x0c, 0x25];
        for object in [OBJECT, OLD_KERNEL_OBJECT] {
            let programs = Programs::load_object(object, &OPTIONS).expect("load");
            for name in UPROBES {
                let code = machine_code(programs.uprobe(name).expect("it is loaded").fd);
                assert!(code.len() > 100, "{name}: {} bytes of machine code", code.len());
                assert!(memchr::memmem::find(&code, &ADD_GS_R9).is_none(), "{name} has a stack of its own");
            }
        }
    }

    /// What the kernel's compiler has made of a program.
    fn machine_code(program: BorrowedFd<'_>) -> Vec<u8> {
        /// The beginning of `struct bpf_prog_info`.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
            tag: [u8; 8],
            jited_len: u32,
            translated_len: u32,
            jited: u64,
        }
        /// The part of `union bpf_attr` that BPF_OBJ_GET_INFO_BY_FD reads.
        #[repr(C)]
        struct Attr {
            fd: u32,
            info_len: u32,
            info: u64,
        }
        const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
        let mut code = vec![0_u8; 1 << 20];
        let mut info = Info { jited_len: code.len() as u32, jited: code.as_mut_ptr() as u64, ..Info::default() };
        let attr =
            Attr { fd: program.as_raw_fd() as u32, info_len: size_of::<Info>() as u32, info: &raw mut info as u64 };
        // SAFETY: the kernel writes no more into `info` and `code` than the lengths given with them, and both outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        code.truncate(info.jited_len as usize);
        code
    }

    /// The same on a plain file system; where they differ, end-to-end tests tell.
    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn the_kernel_calls_a_file_what_stat_does() {
        let mut programs = Programs::load(&OPTIONS).expect("load");
        let file = std::fs::File::open("/proc/self/exe").expect("myself");
        let stat = rustix::fs::fstat(&file).expect("stat");
        let identified = programs.identify(std::os::fd::AsFd::as_fd(&file)).expect("it runs");
        assert_eq!(identified.inode, stat.st_ino);
    }
}

//! The loaded programs and their maps.

use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{BtfTracePoint, RawTracePoint, UProbe};
use aya::{Btf, Ebpf, EbpfLoader};
use tracer_common::map::{
    Advice, ConnectionKey, ConnectionState, Counter, Executable, KernelOffsets, Probe, SERVER_PLACES, TARGET_SERVER,
    Target,
};

use super::events::Events;
use super::link;
use super::multi::{self, MultiError, MultiPrograms};
use super::{KernelError, kernel_offsets};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRACER_EBPF_OBJECT"));

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
}

/// What can be chosen at load time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the ring buffer, rounded up to a power of two.
    pub ring_bytes: u32,
    /// Watch system calls for sockets.
    pub syscalls: bool,
}

/// All programs, loaded; those that watch processes and system calls are attached as well.
pub struct Programs {
    ebpf: Ebpf,
    /// The uprobe programs, where the kernel has `uprobe_multi`; else aya has loaded them.
    multi: Option<MultiPrograms>,
    targets: HashMap<MapData, u32, Target>,
    server_owners: Array<MapData, u32>,
    executables: HashMap<MapData, Executable, Target>,
    advice: HashMap<MapData, u64, Advice>,
    connections: HashMap<MapData, ConnectionKey, ConnectionState>,
    probes: Array<MapData, Probe>,
    counters: PerCpuArray<MapData, u64>,
    events: Option<Events>,
}

impl Programs {
    /// Loads everything and starts to watch processes (and system calls, if asked to).
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let offsets = kernel_offsets()?;
        let ring_bytes = options.ring_bytes.next_power_of_two().max(1 << 16);
        let mut ebpf = EbpfLoader::new().map_max_entries("EVENTS", ring_bytes).load(OBJECT).map_err(object_error)?;
        let multi = uprobes(&mut ebpf)?;
        let mut array: Array<_, KernelOffsets> = map(&mut ebpf, "OFFSETS")?;
        array.set(0, offsets, 0).map_err(|source| LoadError::Map { name: "OFFSETS", source })?;
        let programs = Self {
            targets: map(&mut ebpf, "TARGETS")?,
            server_owners: map(&mut ebpf, "SERVER_OWNERS")?,
            executables: map(&mut ebpf, "EXECUTABLES")?,
            advice: map(&mut ebpf, "ADVICE")?,
            connections: map(&mut ebpf, "CONNECTIONS")?,
            probes: map(&mut ebpf, "PROBES")?,
            counters: map(&mut ebpf, "COUNTERS")?,
            events: Some(Events(map(&mut ebpf, "EVENTS")?)),
            multi,
            ebpf,
        };
        programs.watch(options.syscalls)
    }

    fn watch(mut self, syscalls: bool) -> Result<Self, LoadError> {
        for (name, tracepoint) in PROCESS_PROGRAMS {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source })?;
            program.attach(tracepoint).map_err(|source| LoadError::Program { name, source })?;
        }
        if syscalls {
            let btf = Btf::from_sys_fs().map_err(LoadError::Btf)?;
            for (name, tracepoint) in SYSCALL_PROGRAMS {
                let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
                program.load(tracepoint, &btf).map_err(|source| LoadError::Program { name, source })?;
                program.attach().map_err(|source| LoadError::Program { name, source })?;
            }
        }
        Ok(self)
    }

    /// Ends the watching of processes and system calls; what is in the ring buffer can still be read.
    pub fn stop(&mut self) {
        // A program that was not loaded has nothing to unload.
        for (name, _) in PROCESS_PROGRAMS {
            let _ = program::<RawTracePoint>(&mut self.ebpf, name).map(|program| program.unload());
        }
        for (name, _) in SYSCALL_PROGRAMS {
            let _ = program::<BtfTracePoint>(&mut self.ebpf, name).map(|program| program.unload());
        }
    }

    /// The ring buffer, once.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// A loaded uprobe program, to be attached with [`super::Link`].
    pub fn uprobe(&self, name: &'static str) -> Result<link::Program<'_>, LoadError> {
        if let Some(multi) = &self.multi {
            return multi.program(name).map(|fd| link::Program { fd, multi: true }).ok_or(LoadError::NoProgram(name));
        }
        let found = self.ebpf.program(name).and_then(|program| <&UProbe>::try_from(program).ok());
        let program = found.ok_or(LoadError::NoProgram(name))?;
        let fd = program.fd().map_err(|source| LoadError::Program { name, source })?.as_fd();
        Ok(link::Program { fd, multi: false })
    }

    /// Whether probes can be for single processes: others that run the same file then pay nothing.
    pub fn probes_filter_processes(&self) -> bool {
        self.multi.as_ref().is_none_or(|multi| multi.filters_processes)
    }

    /// Makes a process a target, or changes what is known of it.
    pub fn set_target(&mut self, pid: u32, target: Target) -> Result<(), LoadError> {
        self.targets.insert(pid, target, 0).map_err(|source| LoadError::Map { name: "TARGETS", source })?;
        if target.flags & TARGET_SERVER != 0 {
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

    /// A process has ended: its descriptors went without being closed one by one.
    pub fn forget_process(&mut self, pid: u32) {
        let keys: Vec<ConnectionKey> =
            self.connections.keys().filter_map(Result::ok).filter(|key| key.pid == pid).collect();
        for key in keys {
            let _ = self.connections.remove(&key);
        }
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
        self.executables.insert(executable, target, 0).map_err(|source| LoadError::Map { name: "EXECUTABLES", source })
    }

    /// An executable is watched no more.
    pub fn unwatch_executable(&mut self, executable: Executable) {
        let _ = self.executables.remove(&executable);
    }

    /// Says what a prost entry site means.
    pub fn set_probe(&mut self, index: u32, probe: Probe) -> Result<(), LoadError> {
        self.probes.set(index, probe, 0).map_err(|source| LoadError::Map { name: "PROBES", source })
    }

    /// Tells the programs what the agent knows of a connection.
    pub fn advise(&mut self, connection: u64, advice: Advice) -> Result<(), LoadError> {
        self.advice.insert(connection, advice, 0).map_err(|source| LoadError::Map { name: "ADVICE", source })
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: u64) {
        let _ = self.advice.remove(&connection);
    }

    /// A counter, summed over the CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, LoadError> {
        let values =
            self.counters.get(&(counter as u32), 0).map_err(|source| LoadError::Map { name: "COUNTERS", source })?;
        Ok(values.iter().sum())
    }
}

const UPROBES: [&str; 5] = ["message_entry", "message_exit", "message_error", "message_panic", "shim_span"];
const PROCESS_PROGRAMS: [(&str, &str); 3] = [
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("process_fork", "sched_process_fork"),
];
const SYSCALL_PROGRAMS: [(&str, &str); 2] = [("syscall_enter", "sys_enter"), ("syscall_exit", "sys_exit")];

/// Set, to anything, it makes the agent use perf events where the kernel has `uprobe_multi`.
const PERF_EVENTS_ONLY: &str = "TRACER_PERF_UPROBES";

/// Whether attaching uprobes takes CAP_SYS_ADMIN as well: `uprobe_multi` does not, perf events do on many kernels. To be asked by a
/// thread that does not have it in effect.
pub fn uprobes_need_admin() -> bool {
    let multi = std::env::var_os(PERF_EVENTS_ONLY).is_none() && multi::links_are_known();
    !multi && !link::events_are_allowed()
}

/// Loads the uprobe programs in the best form that the kernel has.
fn uprobes(ebpf: &mut Ebpf) -> Result<Option<MultiPrograms>, LoadError> {
    if std::env::var_os(PERF_EVENTS_ONLY).is_none() {
        match MultiPrograms::load(OBJECT, ebpf, &UPROBES) {
            Ok(multi) => return Ok(Some(multi)),
            Err(error @ MultiError::NotSupported(_)) => tracing::debug!("{error}: using perf events"),
            Err(error) => tracing::warn!("using perf events for uprobes: {:#}", anyhow::Error::new(error)),
        }
    }
    for name in UPROBES {
        let program: &mut UProbe = program(ebpf, name)?;
        program.load().map_err(|source| LoadError::Program { name, source })?;
    }
    Ok(None)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
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
    use super::{Options, Programs};

    /// Needs root: the end-to-end run sets TRACER_STRICT, and then it must not be missing.
    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn every_program_passes_the_verifier() {
        Programs::load(&Options { ring_bytes: 1 << 20, syscalls: true }).expect("load");
    }
}

//! A live session: finds targets, attaches to them, and passes what their probes record to a [`Sink`].
//!
//! One thread does it all, in the order of the records: a process that starts is known before its first record is read. Only the
//! planning of files ([`planner`]) and the answer to those who write to attached files ([`guard`]) have threads of their own.

mod adopt;
mod attach;
mod balance;
mod descendants;
mod encrypted;
mod guard;
mod libraries;
mod lifecycle;
mod losses;
mod numbers;
mod planner;
mod plans;
mod servers;
mod sink;
mod sites;
mod sockets;
mod target_file;
mod usdt;

use crate::model::{HashMap, HashSet};
use std::collections::BTreeMap;

use rustix::event::Timespec;
use tracer_common::map::{Counter, TARGET_SOCKETS, Target};
use tracer_common::record::{self, FLAG_FRESH, FLAG_THREADS_LEFT, Head};

use crate::capture::{Event, Item};
use crate::inspect::Limit;
use crate::privilege;
use crate::probe::{Events, LoadError, MapSizes, Options as ProbeOptions, Programs, SocketProbe, descriptors};
use crate::target::{HostFacts, MappedFile, Process, ProcessError, Selector, process_info};

use adopt::{Start, Waiting};
pub use attach::AttachError;
use attach::{Attached, Attachments};
pub use balance::{Balance, KernelCounts};
use descendants::Descendants;
use libraries::Libraries;
use lifecycle::{Known, Sweep, is_stale};
pub use losses::{SaidLosses, remedy};
use servers::KnownServers;
pub use sink::{Recorder, Sink, SpanSink};
use sockets::Sockets;

/// How long records may wait in the ring buffer. A wake-up per record would cost more than the record.
const DRAIN_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Why a session cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The eBPF programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A process that was asked for by number.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process that was asked for by number cannot be attached to.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel's ring buffer cannot be waited for.
    #[error("waiting for the ring buffer failed")]
    Wait(#[source] std::io::Error),
}

/// What a session is about.
#[derive(Debug)]
pub struct Options {
    /// Which processes.
    pub selector: Selector,
    /// What their resources have in common.
    pub host: HostFacts,
    /// Bytes of the ring buffer.
    pub ring_bytes: u32,
    /// Other sizes of the eBPF maps than the usual ones.
    pub map_sizes: MapSizes,
    /// How socket calls are seen.
    pub sockets: SocketProbe,
    /// Attach to the Redis servers of this host that targets talk to.
    pub redis_servers: bool,
    /// A command will be started, and all that it starts is traced.
    pub command: bool,
    /// Once the programs are loaded, leave only the system calls of a session to this process.
    pub filter_calls: bool,
}

/// A live session.
pub struct Agent<S> {
    programs: Programs,
    ring: Events,
    options: Options,
    attachments: Attachments,
    /// Targets whose files are being planned.
    waiting: HashMap<u32, Waiting>,
    /// The session begins: a process that was asked for by number must be one that can be traced.
    starting: bool,
    refused: Option<AgentError>,
    processes: HashMap<u32, Known>,
    sweep: Sweep,
    own_executable: Option<(u64, u64)>,
    /// Processes whose shim has spoken.
    introduced: HashSet<u32>,
    known_servers: KnownServers,
    sockets: Sockets,
    descendants: Descendants,
    libraries: Libraries,
    /// Processes of which not all can be seen.
    limited: [u64; Limit::ALL.len()],
    sink: S,
}

impl<S: Sink> Agent<S> {
    /// Loads the programs and attaches to every process that fits and runs already.
    ///
    /// # Errors
    /// When the kernel refuses, or a process asked for by number is not there or cannot be attached to.
    pub fn start(options: Options, sink: S) -> Result<Self, AgentError> {
        descriptors::raise_limit();
        for &pid in options.selector.pids() {
            Process::read(pid)?;
        }
        let mut programs = Programs::load(&ProbeOptions {
            ring_bytes: options.ring_bytes,
            map_sizes: options.map_sizes.clone(),
            sockets: options.sockets,
        })?;
        if let Some(limits) = programs.limits() {
            tracing::warn!("{limits}");
        }
        tracing::debug!("socket calls are seen by tracepoints: {}", programs.watching());
        if options.filter_calls
            && let Err(error) = privilege::filter()
        {
            tracing::debug!("system calls are not filtered: {}", chain(&error));
        }
        let ring = programs.take_events().ok_or(LoadError::NoMap("EVENTS"))?;
        // Who comes from a command is not known when its files are attached to.
        let per_process = options.selector.only_pids() && !options.command && programs.probes_filter_processes();
        let attachments = Attachments::new(per_process, &programs).map_err(AttachError::from)?;
        let own_executable = MappedFile::at("/proc/self/exe".as_ref()).ok().map(|file| file.key);
        let mut agent = Self {
            programs,
            ring,
            options,
            attachments,
            waiting: HashMap::default(),
            starting: true,
            refused: None,
            processes: HashMap::default(),
            sweep: Sweep::default(),
            own_executable,
            introduced: HashSet::default(),
            known_servers: KnownServers::start(),
            sockets: Sockets::default(),
            descendants: Descendants::default(),
            libraries: Libraries::default(),
            limited: Default::default(),
            sink,
        };
        for path in agent.options.selector.executables_to_come() {
            if let Err(error) = agent.expect(&path, 0) {
                tracing::debug!("{}: {}", path.display(), chain(&error));
            }
        }
        for process in Process::all() {
            if agent.options.selector.matches(&process) && !agent.knows(process.id) {
                let asked_by_number = agent.options.selector.pids().contains(&process.id.pid);
                match agent.adopt(process, Start::Earlier) {
                    Err(error) if asked_by_number => return Err(error),
                    Err(error) => tracing::warn!("{}", chain(&error)),
                    Ok(()) => {}
                }
            }
        }
        agent.settle()?;
        agent.starting = false;
        // Reading the kernel's types and the targets' files took tens of megabytes that nothing needs again.
        give_back_memory();
        Ok(agent)
    }

    /// Number of targets now.
    pub fn targets(&self) -> usize {
        self.processes.len() - self.known_servers.attached(&self.processes)
    }

    /// Whether targets were asked for by number only and all of them have ended.
    pub fn is_over(&self) -> bool {
        self.targets() == 0 && self.options.selector.only_pids()
    }

    /// Waits a moment for records and passes them on.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub fn step(&mut self) -> Result<(), AgentError> {
        self.ring.wait(&DRAIN_EVERY).map_err(AgentError::Wait)?;
        self.drain();
        self.end_suspects();
        self.attach_planned();
        self.sweep_processes();
        Ok(())
    }

    /// Ends the recording: takes what is left in the ring buffer and says what the programs have counted.
    ///
    /// The probes stay until the last value is dropped, which takes a while for many: each detach waits for the
    /// kernel. They do nothing any more.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn finish(mut self) -> Result<(S, KernelCounts, impl Sized), AgentError> {
        self.programs.stop();
        for pid in self.programs.target_pids() {
            self.programs.remove_target(pid);
        }
        // Calls that were open are still recorded when they end: until a count is followed by no more records, it is not final.
        let mut counts = self.kernel_counts()?;
        loop {
            self.drain();
            let again = self.kernel_counts()?;
            if again == counts {
                break;
            }
            counts = again;
        }
        Ok((self.sink, counts, (self.attachments, self.programs)))
    }

    /// What the programs have counted so far.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn kernel_counts(&self) -> Result<KernelCounts, AgentError> {
        let get = |counter| self.programs.counter(counter);
        let full = self.programs.full_maps();
        let limited = Limit::ALL.map(|limit| (limit.counter(), self.limited[limit as usize]));
        let mut counts = BTreeMap::from([
            ("messages", get(Counter::Messages)?),
            ("messages_nested", get(Counter::MessagesNested)?),
            ("messages_ring_full", get(Counter::MessagesRingFull)?),
            ("messages_map_full", get(Counter::MessagesMapFull)?),
            ("sites_unknown", get(Counter::SitesUnknown)?),
            ("exits_without_entry", get(Counter::ExitsWithoutEntry)?),
            ("sockets", get(Counter::Sockets)?),
            ("sockets_ring_full", get(Counter::SocketsRingFull)?),
            ("socket_calls_map_full", get(Counter::SocketCallsMapFull)?),
            ("connections_map_full", get(Counter::ConnectionsMapFull)?),
            ("sockets_given_up", get(Counter::SocketsGivenUp)?),
            ("tls_connections", get(Counter::TlsConnections)?),
            ("redis_connections_encrypted", self.sockets.encrypted.redis()),
            ("socket_calls_uring", get(Counter::SocketCallsUring)?),
            ("socket_bytes_unseen", get(Counter::SocketBytesUnseen)?),
            ("user_read_failed", get(Counter::UserReadFailed)?),
            ("lifecycle", get(Counter::Lifecycle)?),
            ("lifecycle_ring_full", get(Counter::LifecycleRingFull)?),
            ("connections", get(Counter::Connections)?),
            ("connections_ring_full", get(Counter::ConnectionsRingFull)?),
            ("lifecycle_stale", self.sweep.stale),
            ("targets_map_full", get(Counter::TargetsMapFull)? + full.targets),
            ("executables_map_full", full.executables),
            ("servers_map_full", get(Counter::ServersMapFull)?),
            ("served_map_full", get(Counter::ServedMapFull)?),
            ("advice_map_full", full.advice),
            ("grpc_calls", get(Counter::GrpcCalls)?),
            ("grpc_calls_ring_full", get(Counter::GrpcCallsRingFull)?),
            ("task_spawns", get(Counter::TaskSpawns)?),
            ("task_spawns_ring_full", get(Counter::TaskSpawnsRingFull)?),
            ("shim", get(Counter::Shim)?),
            ("shim_ring_full", get(Counter::ShimRingFull)?),
            ("server_steps", get(Counter::ServerSteps)?),
            ("server_steps_ring_full", get(Counter::ServerStepsRingFull)?),
            ("server_other_threads", get(Counter::ServerOtherThreads)?),
            ("probe_sites_missing", self.attachments.missing()),
        ]);
        counts.extend(limited);
        Ok(KernelCounts(counts))
    }

    /// The sink, for its counters.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// The sink, to take what it has collected.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    fn drain(&mut self) {
        self.sweep_connections();
        while let Some(news) = self.next_record() {
            match news {
                News::Executed(record) => self.executed(&record),
                News::Forked(record) => self.forked(&record),
                News::Ended(pid) => self.ended(pid),
                News::LostMainThread(pid) => self.lost_main_thread(pid),
                News::Connected(record) => {
                    self.descendants.connected(record.head.pid, record.connection);
                    self.watch_sends(&record);
                    self.connected(&record);
                    self.encrypted(&record);
                }
                News::Uring(pid) => self.uring(pid),
                News::Loaded(record) => self.libraries.grew(record.head.pid, record.at_ns),
                News::Nothing => {}
            }
        }
        self.request_libraries();
        self.attach_found_servers();
        self.attachments.drained(&mut self.programs);
        for (connection, advice) in self.sink.take_advice() {
            self.known_servers.decided(connection, advice);
            self.descendants.decided(connection, advice.verdict);
            if let Err(error) = self.programs.advise(connection, advice) {
                tracing::debug!("{}", chain(&error));
            }
        }
        for (pid, server) in self.sink.take_encrypted() {
            self.encrypted_database(pid, &server);
        }
        for connection in self.sink.take_closed() {
            self.known_servers.forget(connection);
            self.programs.forget(connection);
        }
        self.sink.tick(monotonic_ns());
    }

    /// Passes on one record; says what it means for the targets. `None` when there is no more.
    fn next_record(&mut self) -> Option<News> {
        let record = self.ring.next_record()?;
        let event = Event::read(&record);
        // The shim publishes who its process is before its first span: what was read when it started is old.
        if let Ok(Event::Shim(head, _)) = event
            && self.introduced.insert(head.pid)
            && self.processes.contains_key(&head.pid)
            && let Ok(process) = Process::read(head.pid)
        {
            self.sink.item(&Item::Process(process_info(&process, &self.options.host)));
        }
        // The sweep sees whether the process that has the number now is there.
        if let Ok(Event::Exit(exit)) = &event
            && is_stale(&self.processes, exit)
        {
            self.sweep.stale += 1;
            return Some(News::Nothing);
        }
        match event {
            Ok(Event::Open(open)) if self.sockets.is_new_unix(&open) => {
                let flags = open.head.flags | FLAG_FRESH;
                let open = record::Connection { head: Head { flags, ..open.head }, ..open };
                self.sink.item(&Item::Record(bytemuck::bytes_of(&open)));
            }
            _ => self.sink.item(&Item::Record(&record)),
        }
        Some(match event {
            Ok(Event::Exec(record)) => News::Executed(record),
            Ok(Event::Fork(record)) => News::Forked(record),
            Ok(Event::Exit(record)) if record.head.flags & FLAG_THREADS_LEFT != 0 => {
                News::LostMainThread(record.head.pid)
            }
            Ok(Event::Exit(record)) => News::Ended(record.head.pid),
            Ok(Event::Open(record)) => News::Connected(record),
            Ok(Event::Uring(record)) => News::Uring(record.head.pid),
            Ok(Event::Loaded(record)) => News::Loaded(record),
            _ => News::Nothing,
        })
    }
}

/// Gives memory that is free to the system.
fn give_back_memory() {
    // SAFETY: it may be called at any time, and takes only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// What the programs should do for a process with these probes. Where its shim has the flows of tasks differs for each.
fn target(attached: &Attached) -> Target {
    let (tokio_context, task_id_offset) = attached.tokio_context;
    let thread_context = attached.thread_context;
    Target { flags: TARGET_SOCKETS, task_id_offset, thread_context, tokio_context, ..Target::default() }
}

/// What a record means for the targets.
enum News {
    Executed(record::Lifecycle),
    Forked(record::Lifecycle),
    Ended(u32),
    LostMainThread(u32),
    Connected(record::Connection),
    Uring(u32),
    Loaded(record::Lifecycle),
    Nothing,
}

/// The clock of the records.
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An error with all its sources on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

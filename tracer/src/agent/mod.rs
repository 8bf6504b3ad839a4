//! A live session: finds targets, attaches to them, and passes what their probes record to a [`Sink`].
//!
//! One thread does it all, in ring-buffer order: a process that starts is known before its first record is read. Only the
//! planning of files ([`planner`]) and the answer to those who write to attached files ([`guard`]) have threads of their own.

mod adopt;
mod attach;
mod balance;
mod descendants;
mod guard;
mod libraries;
mod numbers;
mod planner;
mod plans;
mod servers;
mod sink;
mod sites;
mod target_file;
mod usdt;

use std::collections::{BTreeMap, HashMap, HashSet};

use rustix::event::Timespec;
use tracer_common::map::{Counter, TARGET_SOCKETS, Target};
use tracer_common::record::{self, FLAG_FOLLOWED, FLAG_FRESH, FLAG_SERVER, FLAG_WATCHED, Head};

use crate::capture::{Event, Item};
use crate::probe::{Events, LoadError, Options as ProbeOptions, Programs, SocketProbe, descriptors};
use crate::target::{
    Descriptors, HostFacts, MappedFile, Process, ProcessError, Selector, ended_process_info, process_info,
};
use crate::trace::span::ProcessId;

use adopt::{Start, Waiting};
pub use attach::AttachError;
use attach::{Attached, Attachments};
pub use balance::{Balance, KernelCounts};
use descendants::Descendants;
use libraries::Libraries;
use servers::KnownServers;
pub use sink::{Recorder, Sink, SpanSink};

/// How long records may wait in the ring buffer. A wake-up per record would cost more than the record.
const DRAIN_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Of Unix sockets; their connections have no tracepoint for the beginning of a send.
const AF_UNIX: u16 = 1;
/// How often the sockets of connections are asked for. Only Unix sockets end without a word of the kernel.
const SWEEP_EVERY_NS: u64 = 100_000_000;
/// Sweeping takes at most this part of the time.
const SWEEP_SHARE: u64 = 100;

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
    /// How socket calls are seen.
    pub sockets: SocketProbe,
    /// Attach to the Redis servers of this host that targets talk to.
    pub redis_servers: bool,
    /// A command will be started, and all that it starts is traced.
    pub command: bool,
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
    processes: HashMap<u32, ProcessId>,
    own_executable: Option<(u64, u64)>,
    /// Processes whose shim has spoken.
    introduced: HashSet<u32>,
    known_servers: KnownServers,
    next_sweep_ns: u64,
    /// What targets had open when they became such.
    descriptors: HashMap<ProcessId, Descriptors>,
    /// Processes that use io_uring, of which that has been said.
    uring: HashSet<ProcessId>,
    descendants: Descendants,
    libraries: Libraries,
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
        let mut programs = Programs::load(&ProbeOptions { ring_bytes: options.ring_bytes, sockets: options.sockets })?;
        if let Some(limits) = programs.limits() {
            tracing::warn!("{limits}");
        }
        tracing::debug!("socket calls are seen by tracepoints: {}", programs.watching());
        let ring = programs.take_events().ok_or(LoadError::NoMap("EVENTS"))?;
        // Who comes from a command is not known when its files are attached to.
        let per_process = options.selector.only_pids() && !options.command && programs.probes_filter_processes();
        let attachments = Attachments::new(per_process).map_err(AttachError::from)?;
        let own_executable = MappedFile::at("/proc/self/exe".as_ref()).ok().map(|file| file.key);
        let mut agent = Self {
            programs,
            ring,
            options,
            attachments,
            waiting: HashMap::new(),
            starting: true,
            refused: None,
            processes: HashMap::new(),
            own_executable,
            introduced: HashSet::new(),
            known_servers: KnownServers::start(),
            next_sweep_ns: 0,
            descriptors: HashMap::new(),
            uring: HashSet::new(),
            descendants: Descendants::default(),
            libraries: Libraries::default(),
            sink,
        };
        for path in agent.options.selector.executables_to_come() {
            if let Err(error) = agent.expect(&path, 0) {
                tracing::debug!("{}: {}", path.display(), chain(&error));
            }
        }
        for process in Process::all() {
            if agent.options.selector.matches(&process) && agent.processes.get(&process.id.pid) != Some(&process.id) {
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
        self.attach_planned();
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
        Ok(KernelCounts(BTreeMap::from([
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
            ("socket_calls_uring", get(Counter::SocketCallsUring)?),
            ("socket_bytes_unseen", get(Counter::SocketBytesUnseen)?),
            ("user_read_failed", get(Counter::UserReadFailed)?),
            ("lifecycle", get(Counter::Lifecycle)?),
            ("lifecycle_ring_full", get(Counter::LifecycleRingFull)?),
            ("shim", get(Counter::Shim)?),
            ("shim_ring_full", get(Counter::ShimRingFull)?),
            ("server_steps", get(Counter::ServerSteps)?),
            ("server_steps_ring_full", get(Counter::ServerStepsRingFull)?),
            ("server_other_threads", get(Counter::ServerOtherThreads)?),
            ("probe_sites_missing", self.attachments.missing()),
        ])))
    }

    /// The sink, for its counters.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// The sink, to take what it has collected.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Looks for connections whose sockets are gone, every now and then.
    fn sweep(&mut self) {
        let start_ns = monotonic_ns();
        if start_ns < self.next_sweep_ns {
            return;
        }
        if let Err(error) = self.programs.sweep_connections() {
            tracing::debug!("{}", chain(&error));
        }
        let end_ns = monotonic_ns();
        self.next_sweep_ns = end_ns + SWEEP_EVERY_NS.max(SWEEP_SHARE * (end_ns - start_ns));
    }

    fn drain(&mut self) {
        self.sweep();
        while let Some(lifecycle) = self.next_record() {
            match lifecycle {
                Lifecycle::Executed(head) => self.executed(&head),
                Lifecycle::Forked(head) => self.started(head.task_id as u32, head.flags, Start::Forked),
                Lifecycle::Ended(pid) => self.ended(pid),
                Lifecycle::Connected(record) => {
                    self.descendants.connected(record.head.pid, record.connection);
                    if record.family == AF_UNIX
                        && let Err(error) = self.programs.watch_sends()
                    {
                        tracing::warn!("{}", chain(&error));
                    }
                    self.connected(&record);
                }
                Lifecycle::Uring(pid) => self.uring(pid),
                Lifecycle::Loaded(head) => self.libraries.grew(head.pid, head.end_ns),
                Lifecycle::Unchanged => {}
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
        for connection in self.sink.take_closed() {
            self.known_servers.forget(connection);
            self.programs.forget(connection);
        }
        self.sink.tick(monotonic_ns());
    }

    /// Passes on one record; says what it means for the targets. `None` when there is no more.
    fn next_record(&mut self) -> Option<Lifecycle> {
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
        match event {
            Ok(Event::Open(open)) if is_new_unix(&open, self.processes.get(&open.head.pid), &self.descriptors) => {
                let flags = open.head.flags | FLAG_FRESH;
                let open = record::Connection { head: Head { flags, ..open.head }, ..open };
                self.sink.item(&Item::Record(bytemuck::bytes_of(&open)));
            }
            _ => self.sink.item(&Item::Record(&record)),
        }
        Some(match event {
            Ok(Event::Exec(head)) => Lifecycle::Executed(head),
            Ok(Event::Fork(head)) => Lifecycle::Forked(head),
            Ok(Event::Exit(head)) => Lifecycle::Ended(head.pid),
            Ok(Event::Open(record)) => Lifecycle::Connected(record),
            Ok(Event::Uring(head)) => Lifecycle::Uring(head.pid),
            Ok(Event::Loaded(head)) => Lifecycle::Loaded(head),
            _ => Lifecycle::Unchanged,
        })
    }

    /// A process began to run a program.
    fn executed(&mut self, head: &Head) {
        let watched = self.attachments.watches(head.task_id, head.trace_flags);
        let flags = head.flags | if watched { FLAG_WATCHED } else { 0 };
        self.started(head.pid, flags, Start::Executed(head.end_ns));
        // The programs trace what runs a watched executable from its first instruction on; it may have ended by now.
        if head.flags & FLAG_WATCHED != 0
            && !self.processes.contains_key(&head.pid)
            && let Some((executable, probed)) = self.attachments.watched(head.task_id, head.trace_flags)
        {
            let info = ended_process_info(head.pid, head.end_ns, executable, &self.options.host);
            let what = if probed { "it has ended already" } else { adopt::UNPLANNED };
            tracing::info!("tracing {} (process {}): {what}", info.service, head.pid);
            self.sink.item(&Item::Process(info));
        }
    }

    /// A process began to run a program, or was forked from a target; `flags` are those of the record.
    fn started(&mut self, pid: u32, flags: u16, start: Start) {
        if let Some(id) = self.processes.remove(&pid) {
            self.descriptors.remove(&id);
            self.waiting.remove(&pid);
            self.attachments.ended(pid, &mut self.programs);
        }
        self.descendants.remove(pid);
        self.libraries.remove(pid);
        // It may have ended already, or be a kernel thread: then there is nothing to attach to.
        let Ok(process) = Process::read(pid) else {
            self.programs.remove_target(pid);
            return;
        };
        // The gate of a command becomes the command.
        if process.executable().map(|file| file.key) == self.own_executable {
            return;
        }
        if flags & FLAG_FOLLOWED != 0 {
            self.descendants.add(pid);
        }
        if flags & (FLAG_WATCHED | FLAG_FOLLOWED) != 0 || self.options.selector.matches(&process) {
            if let Err(error) = self.adopt(process, start) {
                tracing::warn!("{}", chain(&error));
            }
        } else {
            self.programs.remove_target(pid);
        }
    }

    fn ended(&mut self, pid: u32) {
        // The first thread can end before the others.
        if let Some(&id) = self.processes.get(&pid)
            && !Process::is_alive(id)
        {
            if let Some(waiting) = self.waiting.get(&pid) {
                waiting.say_unplanned();
            }
            self.uring.remove(&id);
            self.descriptors.remove(&id);
            let is_quiet = self.libraries.nothing_attached(pid);
            self.forget(pid);
            self.programs.forget_process(pid);
            if is_quiet {
                tracing::debug!("process {pid} has ended");
            } else {
                tracing::info!("process {pid} has ended");
            }
        }
    }

    /// A target uses io_uring: says once what that means.
    fn uring(&mut self, pid: u32) {
        if let Some(&id) = self.processes.get(&pid)
            && self.options.sockets != SocketProbe::Off
            && self.uring.insert(id)
        {
            tracing::warn!(
                "process {pid} uses io_uring: what passes its sockets that way is not seen, so its commands are missing"
            );
        }
    }
}

/// What the programs should do for a process with these probes. Where its shim has the flows of tasks differs for each.
fn target(attached: &Attached) -> Target {
    let (tokio_context, task_id_offset) = attached.tokio_context;
    let thread_context = attached.thread_context;
    Target { flags: TARGET_SOCKETS, task_id_offset, thread_context, tokio_context, ..Target::default() }
}

/// The connection is of a Unix socket that the process did not have when it became a target. The kernel does not tell that one connects.
fn is_new_unix(
    open: &record::Connection,
    process: Option<&ProcessId>,
    descriptors: &HashMap<ProcessId, Descriptors>,
) -> bool {
    let before = process.and_then(|id| descriptors.get(id));
    open.family == AF_UNIX
        && open.head.flags & FLAG_SERVER == 0
        && before.is_some_and(|before| !before.sockets.contains(&open.inode))
}

enum Lifecycle {
    Executed(Head),
    Forked(Head),
    Ended(u32),
    Connected(record::Connection),
    Uring(u32),
    Loaded(Head),
    Unchanged,
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

//! How a process becomes a target.
//!
//! Its sockets need no plan: they are traced at once. Its functions are when its files have been planned, which another thread
//! does while this one goes on with the records of all targets.

use std::ffi::OsStr;
use std::path::Path;

use tracer_common::map::{TARGET_FOLLOW, TARGET_IF_FOLLOWED, Target};

use super::attach::{AttachError, Attached};
use super::servers::server;
use super::{Agent, AgentError, Sink, chain, monotonic_ns, target, usdt};
use crate::capture::Item;
use crate::inspect::Limits;
use crate::target::{MappedFile, Process, is_redis_server, is_redis_server_name, process_info};

/// A target whose files are being planned.
#[derive(Debug)]
pub struct Waiting {
    process: Process,
    service: String,
    files: Vec<MappedFile>,
    /// It was asked for itself, not only what comes from the command or is in a container: those are very many programs.
    is_named: bool,
    start: Start,
    /// When it began to run what is planned now, which is not seen before the probes are there.
    late_since_ns: Option<u64>,
}

/// How a process came to be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It ran before it was looked at.
    Earlier,
    /// It began to run its program at this time.
    Executed(u64),
    /// It was forked from a target at this time, and runs its program.
    Forked(u64),
    /// It is a target and has loaded a library at this time.
    Loaded(u64),
}

/// What is said of a process that was too short.
pub const UNPLANNED: &str = "its sockets only, for it ended before its program was inspected";

impl Waiting {
    /// A target that has loaded a library.
    pub fn loaded(process: Process, files: Vec<MappedFile>, since_ns: u64) -> Self {
        let service = process.name();
        // It was announced: libraries without anything to trace are no news.
        Self { process, service, files, is_named: false, start: Start::Loaded(since_ns), late_since_ns: None }
    }

    /// The same target, which has mapped more by now.
    pub fn with(self, process: Process, files: Vec<MappedFile>) -> Self {
        Self { process, files, ..self }
    }

    /// What is said if the process has ended too early.
    pub fn unplanned_line(&self) -> Option<String> {
        self.is_named.then(|| format!("tracing {} (process {}): {UNPLANNED}", self.service, self.process.id.pid))
    }
}

impl<S: Sink> Agent<S> {
    /// Makes the processes that will run this executable targets, before the first of them starts; `flags` are those of the target.
    ///
    /// # Errors
    /// When the file cannot be read or probed.
    pub(super) fn expect(&mut self, executable: &Path, flags: u32) -> Result<(), AgentError> {
        let file = MappedFile::at(executable).map_err(AttachError::from)?;
        if executable.file_name().and_then(OsStr::to_str).is_some_and(is_redis_server_name) {
            let server = server();
            let target = Target { flags: server.flags | flags, ..server };
            self.attachments.watch(&file, None, target, &mut self.programs)?;
            return Ok(());
        }
        if !self.attachments.expect(&file, self.starting, &mut self.programs)? {
            return Ok(());
        }
        let attached = loop {
            match self.attachments.expected(&file) {
                Some(attached) => break attached?,
                None => self.step()?,
            }
        };
        let target = target(&attached);
        let target = Target { flags: target.flags | flags, ..target };
        self.attachments.watch(&file, None, target, &mut self.programs)?;
        Ok(())
    }

    /// Makes a process a target.
    pub(super) fn adopt(&mut self, process: Process, start: Start) -> Result<(), AgentError> {
        if is_redis_server(&process) {
            self.descendants.has_spans(process.id.pid);
            return self.adopt_server(&process, start);
        }
        let pid = process.id.pid;
        let files = process.mapped_files();
        if !process.has_main_thread() {
            self.attachments.lost_main_thread(pid);
        }
        let requested = self.attachments.request(pid, &files, &mut self.programs);
        let info = process_info(&process, &self.options.host);
        let service = info.service.clone();
        self.sink.item(&Item::Process(info));
        self.know(&process, start);
        self.note_descriptors(pid);
        let is_named = self.options.selector.names_it(&process);
        let waiting = Waiting { process, service, files, is_named, start, late_since_ns: None };
        if let Err(error) = requested {
            return self.complete(&waiting, Err(error));
        }
        self.wait_for_plans(waiting)
    }

    /// Completes a target whose files are planned, at once or when they are.
    pub(super) fn wait_for_plans(&mut self, mut waiting: Waiting) -> Result<(), AgentError> {
        let pid = waiting.process.id.pid;
        if let Some(attached) = self.attachments.process(pid, &waiting.files) {
            return self.complete(&waiting, attached);
        }
        waiting.late_since_ns = match waiting.start {
            Start::Executed(ns) | Start::Loaded(ns) => Some(ns),
            Start::Earlier | Start::Forked(_) => None,
        };
        if !matches!(waiting.start, Start::Loaded(_)) {
            tracing::debug!("process {pid} is traced for its sockets while its files are inspected");
            // Its program may be known already; then only libraries are new.
            let program = waiting.files.get(..1).and_then(|program| self.attachments.process(pid, program));
            let attached = match program {
                Some(Err(error)) => return self.complete(&waiting, Err(error)),
                Some(Ok(attached)) => attached,
                None => Attached::default(),
            };
            self.programs.set_target(pid, self.target_of(&waiting, &attached))?;
        }
        self.suspect(waiting.process.id);
        self.waiting.insert(pid, waiting);
        Ok(())
    }

    /// What the programs should do for a process with these probes.
    fn target_of(&self, waiting: &Waiting, attached: &Attached) -> Target {
        let Waiting { process, files, .. } = waiting;
        let target = target(attached);
        let flags = target.flags | self.follows(process.id.pid);
        let semaphore = attached.semaphore.zip(files.first());
        let semaphore = semaphore.and_then(|(offset, executable)| process.variable(executable, offset));
        let (flows, flows_mask) =
            semaphore.and_then(|address| usdt::task_flows(&process.file("mem"), address)).unwrap_or_default();
        Target { flags, flows, flows_mask, ..target }
    }

    /// The flag by which the programs follow what a descendant of the command starts.
    fn follows(&self, pid: u32) -> u32 {
        if self.descendants.contains(pid) { TARGET_FOLLOW } else { 0 }
    }

    /// Waits until the files of all targets are planned and attached to; records are passed on meanwhile.
    ///
    /// # Errors
    /// When a process that was asked for by number cannot be attached to.
    pub(super) fn settle(&mut self) -> Result<(), AgentError> {
        while !self.waiting.is_empty() {
            self.step()?;
            if let Some(error) = self.refused.take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Attaches to what was planned since the last time.
    pub(super) fn attach_planned(&mut self) {
        self.attachments.attach_planned(&mut self.programs, &mut self.sink);
        let pids: Vec<u32> = self.waiting.keys().copied().collect();
        for pid in pids {
            let Some(waiting) = self.waiting.remove(&pid) else { continue };
            let Some(attached) = self.attachments.process(pid, &waiting.files) else {
                self.waiting.insert(pid, waiting);
                continue;
            };
            if let Err(error) = self.complete(&waiting, attached) {
                if self.starting && self.options.selector.pids().contains(&pid) {
                    self.refused = Some(error);
                } else if Process::is_alive(waiting.process.id) {
                    tracing::warn!("{}", chain(&error));
                }
            }
        }
    }

    /// Everything that is known of a process is attached to.
    fn complete(&mut self, waiting: &Waiting, attached: Result<Attached, AttachError>) -> Result<(), AgentError> {
        let Waiting { process, service, .. } = waiting;
        let pid = process.id.pid;
        let before = self.libraries.of(pid);
        let mut news = before.is_none_or(|before| attached.as_ref().is_ok_and(|now| *now != before));
        let attached = match attached {
            Ok(attached) => attached,
            Err(error @ AttachError::Load(_)) => {
                self.forget(pid);
                self.programs.remove_target(pid);
                return Err(error.into());
            }
            Err(error) => {
                // Sockets are seen without a look at the program.
                if before.is_none() && waiting.is_named && Process::is_alive(process.id) {
                    let why = waiting.files.first().and_then(MappedFile::unreadable).unwrap_or_else(|| chain(&error));
                    tracing::warn!(
                        "{service} (process {pid}) is traced by its calls of Redis and databases only: {why}"
                    );
                }
                news = false;
                before.unwrap_or_default()
            }
        };
        let has_spans = attached.functions > 0 || attached.with_shim;
        if news && (has_spans || waiting.is_named) {
            self.announce(pid, &traced_line(waiting, &attached));
        }
        // What it loads later may have others.
        let known = before.map_or_else(Limits::default, |before| before.limits);
        let news = attached.limits.iter().filter(|limit| known.iter().all(|other| other != *limit));
        news.for_each(|limit| self.limited[limit as usize] += 1);
        self.libraries.attached(pid, attached);
        if let Some(since_ns) = waiting.late_since_ns {
            // What it has loaded before the loader was probed.
            self.libraries.grew(pid, since_ns);
        }
        self.programs.set_target(pid, self.target_of(waiting, &attached))?;
        let successors = match self.descendants.contains(pid) {
            _ if self.options.selector.matches_executable(process) => Some(0),
            true if has_spans && process.is_executable_of_its_own() => Some(TARGET_IF_FOLLOWED),
            _ => None,
        };
        if has_spans {
            self.descendants.has_spans(pid);
        }
        if let Some(flags) = successors {
            let target = target(&attached);
            self.watch_successors(process, Target { flags: target.flags | flags, ..target });
        }
        self.suspect(process.id);
        Ok(())
    }

    /// Makes what runs the same executable later a target from its first instruction on. Where that cannot be, it becomes one once the
    /// agent has seen it.
    pub(super) fn watch_successors(&mut self, process: &Process, target: Target) {
        let Some(executable) = process.executable() else { return };
        let shown = executable.shown.display();
        match self.attachments.watch(&executable, Some(process.id.pid), target, &mut self.programs) {
            Err(AttachError::Load(error)) => {
                tracing::warn!("processes that start {shown} will be traced a moment later: {}", chain(&error));
            }
            Err(error) => tracing::debug!("{shown}: {}", chain(&error)),
            Ok(()) => {}
        }
    }
}

/// What is traced of a process, for people.
fn traced_line(waiting: &Waiting, attached: &Attached) -> String {
    let (service, pid) = (&waiting.service, waiting.process.id.pid);
    let what = match (attached.with_shim, attached.functions) {
        (true, 0) => "its shim".to_owned(),
        (true, functions) => format!("its shim, {functions} prost functions"),
        (false, functions) => format!("{functions} prost functions"),
    };
    let number = attached.sites - attached.loads;
    let sites = if number == 1 { "site" } else { "sites" };
    let mut line = format!("tracing {service} (process {pid}): {what}, {number} probe {sites}");
    if let Some(since) = waiting.late_since_ns.filter(|_| number > 0) {
        let late_ms = monotonic_ns().saturating_sub(since).div_ceil(1_000_000);
        line.push_str(&format!("; its calls of the {late_ms} ms before these were in place are not seen"));
    }
    for limit in attached.limits.iter() {
        line.push_str(&format!("; {}", limit.text()));
        if let Some(remedy) = limit.remedy() {
            line.push_str(&format!(": {remedy}"));
        }
    }
    line
}

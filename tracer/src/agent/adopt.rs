//! How a process becomes a target.
//!
//! Its sockets need no plan: they are traced at once. Its functions are when its files have been planned, which another thread
//! does while this one goes on with the records of all targets.

use std::ffi::OsStr;
use std::path::Path;

use tracer_common::map::{TARGET_SOCKETS, Target};

use super::attach::{AttachError, Attached};
use super::servers::server;
use super::{Agent, AgentError, Sink, chain, target, usdt};
use crate::capture::Item;
use crate::target::{MappedFile, Process, is_redis_server, is_redis_server_name, process_info};

/// A target whose files are being planned.
#[derive(Debug)]
pub struct Waiting {
    process: Process,
    service: String,
    files: Vec<MappedFile>,
}

/// What is said of a process that was too short.
pub const UNPLANNED: &str = "its sockets only, for it ended before its program was inspected";

impl Waiting {
    /// The process has ended too early.
    pub fn say_unplanned(&self) {
        tracing::info!("tracing {} (process {}): {UNPLANNED}", self.service, self.process.id.pid);
    }
}

impl<S: Sink> Agent<S> {
    /// Makes the processes that will run this executable targets, before the first of them starts.
    ///
    /// # Errors
    /// When the file cannot be read or probed.
    pub fn expect(&mut self, executable: &Path) -> Result<(), AgentError> {
        let file = MappedFile::open(executable).map_err(AttachError::from)?;
        if executable.file_name().and_then(OsStr::to_str).is_some_and(is_redis_server_name) {
            self.attachments.watch(&file, None, server(), &mut self.programs)?;
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
        self.attachments.watch(&file, None, target(&attached), &mut self.programs)?;
        Ok(())
    }

    /// Makes a process a target.
    pub(super) fn adopt(&mut self, process: Process) -> Result<(), AgentError> {
        if is_redis_server(&process) {
            return self.adopt_server(&process);
        }
        let pid = process.id.pid;
        let files = process.mapped_files();
        if !process.has_main_thread() {
            self.attachments.lost_main_thread(pid);
        }
        self.attachments.request(pid, &files, &mut self.programs)?;
        let info = process_info(&process, &self.options.host);
        let service = info.service.clone();
        self.sink.item(&Item::Process(info));
        self.know(&process);
        self.note_descriptors(pid);
        let waiting = Waiting { process, service, files };
        if let Some(attached) = self.attachments.process(pid, &waiting.files) {
            return self.complete(&waiting, attached);
        }
        tracing::debug!("process {pid} is traced for its sockets while its files are inspected");
        self.programs.set_target(pid, Target { flags: TARGET_SOCKETS, ..Target::default() })?;
        self.suspect(waiting.process.id);
        self.waiting.insert(pid, waiting);
        Ok(())
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
                } else {
                    tracing::warn!("{}", chain(&error));
                }
            }
        }
    }

    /// Everything that is known of a process is attached to.
    fn complete(&mut self, waiting: &Waiting, attached: Result<Attached, AttachError>) -> Result<(), AgentError> {
        let Waiting { process, service, files } = waiting;
        let pid = process.id.pid;
        let attached = match attached {
            Ok(attached) => attached,
            Err(error) => {
                self.forget(pid);
                self.programs.remove_target(pid);
                return Err(error.into());
            }
        };
        let what = match (attached.with_shim, attached.functions) {
            (true, 0) => "its shim".to_owned(),
            (true, functions) => format!("its shim, {functions} prost functions"),
            (false, functions) => format!("{functions} prost functions"),
        };
        let sites = if attached.sites == 1 { "site" } else { "sites" };
        tracing::info!("tracing {service} (process {pid}): {what}, {} probe {sites}", attached.sites);
        let target = target(&attached);
        let semaphore = attached.semaphore.zip(files.first());
        let semaphore = semaphore.and_then(|(offset, executable)| process.variable(executable, offset));
        let (flows, flows_mask) =
            semaphore.and_then(|address| usdt::task_flows(&process.file("mem"), address)).unwrap_or_default();
        self.programs.set_target(pid, Target { flows, flows_mask, ..target })?;
        self.watch_successors(process, target);
        self.suspect(process.id);
        Ok(())
    }

    /// Makes what runs the same executable later a target from its first instruction on. Where that cannot be, it becomes one once the
    /// agent has seen it.
    pub(super) fn watch_successors(&mut self, process: &Process, target: Target) {
        if self.options.selector.matches_successors(process)
            && let Some(executable) = process.executable()
            && let Err(error) = self.attachments.watch(&executable, Some(process.id.pid), target, &mut self.programs)
        {
            let shown = executable.shown.display();
            tracing::warn!("processes that start {shown} will be traced a moment later: {}", chain(&error));
        }
    }
}

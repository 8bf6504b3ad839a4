//! A file that targets have mapped, from the first process to the last.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracer_common::map::{Executable, TARGET_IF_FOLLOWED, TARGET_SOCKETS, Target};

use super::attach::{AttachError, Attached};
use super::guard::GuardedFile;
use super::numbers::Numbers;
use crate::probe::Programs;
use crate::target::MappedFile;

/// How long a guarded file keeps its probes when its last process has ended: what is started again soon is traced from its
/// first instruction on.
const GRACE: Duration = Duration::from_secs(3);

/// How a file is found again: one entry for all processes, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Device and inode.
    pub file: (u64, u64),
    /// The process that its probes are for.
    pub pid: Option<u32>,
}

/// A file of a target.
#[derive(Debug)]
pub struct TargetFile {
    /// The file, opened once.
    pub file: Arc<GuardedFile>,
    /// As a process sees it.
    pub shown: PathBuf,
    /// How far it is.
    pub stage: Stage,
    /// Of its functions.
    pub numbers: Vec<u32>,
    /// Targets that have mapped it.
    pub processes: HashSet<u32>,
    /// It is attached to before a process runs it.
    pub expected: bool,
    /// When its last process ended.
    pub idle: Option<Instant>,
    /// Its probes were for one process, which has ended or runs another program.
    pub over_with_process: bool,
    /// Processes that run it are targets from their first instruction on. Containers of one image each have another name for it.
    pub watched: Vec<Watched>,
}

/// A file as the programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its name for the kernel.
    pub executable: Executable,
    /// Only descendants of the command are targets.
    pub if_followed: bool,
}

/// How far a file is.
#[derive(Debug)]
pub enum Stage {
    /// The planner has it.
    Planning,
    /// Its probes are there, if it has any.
    Attached(Attached),
    /// Taken when it was said.
    Failed(Option<AttachError>),
    /// It was written to, or is about to be.
    Over,
}

impl TargetFile {
    /// A file that was opened and is being planned.
    pub fn new(file: Arc<GuardedFile>, mapped: &MappedFile) -> Self {
        Self {
            file,
            shown: mapped.shown.clone(),
            stage: Stage::Planning,
            numbers: Vec::new(),
            processes: HashSet::new(),
            expected: false,
            idle: None,
            over_with_process: false,
            watched: Vec::new(),
        }
    }

    /// The probes go, and with them what they needed.
    pub fn give_up(self, numbers: &mut Numbers) {
        numbers.retire(self.numbers, self.file.presence(), self.processes);
        let file = self.file;
        if file.is_leased() {
            // Nobody can write to it before its probes are gone: their going can wait for the kernel elsewhere. Without a
            // thread it waits here.
            let _ = std::thread::Builder::new().spawn(move || drop(file));
        }
        // Else nothing but this keeps the probes from what is written next.
    }

    /// Nothing is attached any more. Processes that start it are targets for their sockets until it has been planned anew.
    pub fn is_written_to(&mut self, programs: &mut Programs) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        self.stage = Stage::Over;
        if !self.processes.is_empty() {
            let file = self.shown.display();
            tracing::warn!(
                "{file} is being written to: its probes are gone; it is inspected again when a process starts it"
            );
        }
        self.idle.get_or_insert_with(Instant::now);
        for &Watched { executable, if_followed } in &self.watched {
            let only = if if_followed { TARGET_IF_FOLLOWED } else { 0 };
            let sockets = Target { flags: TARGET_SOCKETS | only, ..Target::default() };
            if let Err(error) = programs.watch_executable(executable, sockets) {
                tracing::debug!("{}", super::chain(&error));
            }
        }
    }

    /// Whether it is to be kept: a process has mapped it, or one may soon, and it is what it was.
    pub fn is_needed(&self) -> bool {
        if !self.processes.is_empty() {
            return !matches!(self.stage, Stage::Over) || !self.watched.is_empty();
        }
        let harmless = self.file.is_leased() || !matches!(self.stage, Stage::Attached(Attached { sites: 1.., .. }));
        let soon = self.idle.is_none_or(|idle| harmless && (self.expected || idle.elapsed() < GRACE));
        soon && !self.over_with_process && !self.file.is_deleted()
    }
}

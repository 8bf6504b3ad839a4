//! What the agent knows of processes, and how that stays true.
//!
//! The programs report every exec, and of targets forks and the end. These records are rarely lost but can be, and a process
//! can end between being read in /proc and becoming a target. So:
//! - after a process has become a target, it is asked once more whether it is alive;
//! - about once a second a sweep looks for what is gone (one read of `/proc/PID/stat` a target: descriptors of processes, pidfds,
//!   would be one more of a scarce kind for each target, and save a second at most);
//! - when records of processes were lost, the sweep also compares all processes with what is known.

use crate::model::HashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use tracer_common::map::Counter;
use tracer_common::record::{FLAG_FOLLOWED, FLAG_NOTICED, FLAG_WATCHED, KIND_EXEC, KIND_EXIT, Lifecycle, Short};

use super::adopt::{Start, UNPLANNED, Waiting};
use super::{Agent, Sink, chain, monotonic_ns};
use crate::capture::Item;
use crate::model::ProcessId;
use crate::probe::Mark;
use crate::target::{Process, ended_process_info};

const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// A process that is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which one.
    pub id: ProcessId,
    /// Device and inode of its program: an exec leaves the rest as it is.
    program: Option<(u64, u64)>,
    /// Its path: that of its children's as well.
    pub(super) executable: PathBuf,
    /// When it became a target.
    since_ns: u64,
    /// The user was told that it is traced.
    announced: bool,
}

/// When the last sweep was, and what it knew.
#[derive(Debug, Default)]
pub struct Sweep {
    at_ns: u64,
    /// Records of processes that had been lost by then.
    lost: u64,
    /// Ends of processes that were those of earlier ones with the same numbers.
    pub(super) stale: u64,
    /// Processes that were found to be gone. What they left in the ring buffers is still to be taken.
    suspects: Vec<(ProcessId, Mark)>,
    /// Programs of targets that ended before they could be attached to, until the record of their end.
    brief: HashMap<u32, PathBuf>,
}

impl<S: Sink> Agent<S> {
    /// A process has been read and becomes a target. An end that is reported before its start is that of an earlier one.
    pub(super) fn know(&mut self, process: &Process, start: Start) {
        let since_ns = match start {
            Start::Executed(ns) | Start::Forked(ns) => ns,
            Start::Earlier | Start::Loaded(_) => monotonic_ns(),
        };
        let (program, executable) = (program(process), process.exe.clone());
        let known = Known { id: process.id, program, executable, since_ns, announced: false };
        self.processes.insert(process.id.pid, known);
    }

    /// Tells the user that a process is traced; its end will be told too.
    pub(super) fn announce(&mut self, pid: u32, line: &str) {
        tracing::info!("{line}");
        if let Some(known) = self.processes.get_mut(&pid) {
            known.announced = true;
        }
    }

    /// Whether this very process is a target.
    pub(super) fn knows(&self, id: ProcessId) -> bool {
        self.processes.get(&id.pid).is_some_and(|known| known.id == id)
    }

    /// A process has become a target. Had it ended before, the programs would not have reported it.
    pub(super) fn suspect(&mut self, id: ProcessId) {
        if !Process::is_alive(id) {
            self.sweep.suspects.push((id, self.ring.end()));
        }
    }

    /// A process began to run a program.
    pub(super) fn executed(&mut self, exec: &Lifecycle) {
        let pid = exec.head.pid;
        let followed = exec.head.flags & FLAG_FOLLOWED != 0;
        let watched = exec.head.flags & FLAG_WATCHED != 0 || self.attachments.watches(exec.inode, exec.device);
        self.forget(pid);
        // It may have ended already, or be a kernel thread: then there is nothing to attach to.
        if let Ok(process) = Process::read(pid) {
            self.consider(process, watched, followed, Start::Executed(exec.at_ns));
        }
        // The programs trace what runs a watched executable from its first instruction on; it may have ended by now.
        if exec.head.flags & FLAG_WATCHED != 0
            && !self.processes.contains_key(&pid)
            && let Some((executable, probed)) = self.attachments.watched(exec.inode, exec.device)
        {
            let info = ended_process_info(pid, exec.at_ns, executable, &self.options.host);
            let what = if probed { "it has ended already" } else { UNPLANNED };
            tracing::info!("tracing {} (process {pid}): {what}", info.service);
            self.sweep.brief.insert(pid, executable.to_owned());
            self.sink.item(&Item::Process(info));
        }
    }

    /// Attaches to a process if it was asked for, runs a watched executable, or comes from the command.
    fn consider(&mut self, process: Process, watched: bool, followed: bool, start: Start) {
        let pid = process.id.pid;
        // The gate of a command becomes the command.
        if process.executable().map(|file| file.key) == self.own_executable {
            return;
        }
        if followed {
            self.descendants.add(pid);
        }
        if watched || followed || self.options.selector.matches(&process) {
            self.adopt_or_say(process, start);
        } else {
            self.programs.remove_target(pid);
        }
    }

    /// A target forked. Its child is traced as well, whether the parent was asked for by name or by number, until it runs
    /// another program: then it is like any process that starts.
    pub(super) fn forked(&mut self, fork: &Lifecycle) {
        let child = fork.child;
        self.forget(child);
        // The parent may have ended as soon as it had forked, as that of a daemon does.
        let parent = self.processes.get(&fork.head.pid).map(|known| &known.executable);
        let executable = parent.or_else(|| self.sweep.brief.get(&fork.head.pid)).cloned();
        let followed = fork.head.flags & FLAG_FOLLOWED != 0;
        if executable.is_none() && !followed {
            self.programs.remove_target(child);
            return;
        }
        if let Ok(process) = Process::read(child) {
            let id = process.id;
            if followed {
                self.descendants.add(child);
            }
            match self.adopt(process, Start::Forked(fork.at_ns)) {
                Err(error) if Process::is_alive(id) => tracing::warn!("{}", chain(&error)),
                _ => {}
            }
        }
        // Its socket calls are seen although it has ended before it could be attached to: it was what its parent is.
        if !self.processes.contains_key(&child)
            && let Some(executable) = executable
        {
            let info = ended_process_info(child, fork.at_ns, &executable, &self.options.host);
            self.sweep.brief.insert(child, executable);
            self.sink.item(&Item::Process(info));
        }
    }

    /// The main thread of a target has ended and others go on. Perf events of this process alone are tied to that thread.
    pub(super) fn lost_main_thread(&mut self, pid: u32) {
        if let Ok(process) = Process::read(pid)
            && self.knows(process.id)
            && !process.has_main_thread()
            && self.attachments.per_process()
            && self.programs.probes_end_with_a_thread()
        {
            let followed = self.descendants.contains(pid);
            self.forget(pid);
            if followed {
                self.descendants.add(pid);
            }
            self.adopt_or_say(process, Start::Earlier);
        }
    }

    fn adopt_or_say(&mut self, process: Process, start: Start) {
        if let Err(error) = self.adopt(process, start) {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// The last thread of a process has ended.
    pub(super) fn ended(&mut self, pid: u32) {
        if let Some(line) = self.waiting.get(&pid).and_then(Waiting::unplanned_line) {
            self.announce(pid, &line);
        }
        let announced = self.processes.get(&pid).is_some_and(|known| known.announced);
        if self.forget(pid) {
            self.programs.remove_target(pid);
            self.programs.forget_process(pid);
            if announced {
                tracing::info!("process {pid} has ended");
            }
        }
    }

    /// What was known of a process is not true any more. Returns whether anything was.
    pub(super) fn forget(&mut self, pid: u32) -> bool {
        self.waiting.remove(&pid);
        self.introduced.remove(&pid);
        self.sweep.brief.remove(&pid);
        self.descendants.remove(pid);
        self.libraries.remove(pid);
        if self.processes.remove(&pid).is_none() {
            return false;
        }
        self.sockets.forget(pid);
        self.attachments.ended(pid, &mut self.programs);
        true
    }

    /// Tells the sink what the programs have not, in their words, so that a recording has it too.
    fn notice(&mut self, kind: u16, pid: u32) {
        let head = Short { kind, flags: FLAG_NOTICED, payload_len: 0, pid, tid: pid };
        let record = Lifecycle { head, at_ns: monotonic_ns(), ..Lifecycle::default() };
        self.sink.item(&Item::Record(bytemuck::bytes_of(&record)));
    }

    /// Ends what is gone when all that it left in the ring buffers is taken, unless a record of its end was among it.
    pub(super) fn end_suspects(&mut self) {
        for (id, mark) in std::mem::take(&mut self.sweep.suspects) {
            if !self.ring.has_passed(mark) {
                self.sweep.suspects.push((id, mark));
            } else if self.knows(id) {
                self.notice(KIND_EXIT, id.pid);
                self.ended(id.pid);
            }
        }
    }

    /// Looks for what is gone; after a loss, begins what is new. Does nothing within a second of the last time.
    pub(super) fn sweep_processes(&mut self) {
        let now = monotonic_ns();
        if now < self.sweep.at_ns.saturating_add(SWEEP_EVERY_NS) {
            return;
        }
        self.sweep.at_ns = now;
        let gone: Vec<_> = self.processes.values().map(|known| known.id).filter(|id| !Process::is_alive(*id)).collect();
        let mark = self.ring.end();
        self.sweep.suspects.extend(gone.into_iter().map(|id| (id, mark)));
        let lost = self.programs.counter(Counter::LifecycleRingFull).unwrap_or(self.sweep.lost);
        if lost != self.sweep.lost {
            tracing::warn!(
                "{} records of processes that start or end were lost: comparing all processes",
                lost - self.sweep.lost
            );
            self.sweep.lost = lost;
            self.reconcile();
        }
    }

    /// Whether whoever runs the executable of a process is a target.
    fn runs_watched(&mut self, process: &Process) -> bool {
        let located = process.executable().and_then(|file| file.locate().ok());
        let name = located.and_then(|file| self.programs.identify(file.as_fd()).ok());
        name.is_some_and(|name| self.attachments.watches(name.inode, name.device))
    }

    /// Compares all processes with those that are known.
    fn reconcile(&mut self) {
        self.sweep.brief.clear();
        let targets = self.programs.followed_targets();
        for process in Process::all() {
            let pid = process.id.pid;
            let followed = targets.get(&pid).copied().unwrap_or(false);
            // The programs made it a target: it runs a watched executable, or was forked from a target.
            let mut watched = targets.contains_key(&pid);
            if let Some(known) = self.processes.get(&pid) {
                if known.id == process.id && known.program == program(&process) {
                    continue;
                }
                watched = false;
                self.notice(if known.id == process.id { KIND_EXEC } else { KIND_EXIT }, pid);
                self.forget(pid);
            }
            watched = watched || self.runs_watched(&process);
            self.consider(process, watched, followed, Start::Earlier);
        }
        for pid in targets.into_keys() {
            if !self.processes.contains_key(&pid) {
                self.programs.remove_target(pid);
            }
        }
    }
}

/// Whether the end of a process is that of an earlier one with the same number.
pub(super) fn is_stale(processes: &HashMap<u32, Known>, exit: &Lifecycle) -> bool {
    processes.get(&exit.head.pid).is_some_and(|known| exit.at_ns < known.since_ns)
}

fn program(process: &Process) -> Option<(u64, u64)> {
    process.executable().map(|file| file.key)
}

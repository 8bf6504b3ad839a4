//! Libraries that a target loads after the agent has looked at it: at its start, when the loader has mapped nothing yet, or later
//! by `dlopen` (a Rust core in a Python process).
//!
//! A probe in the dynamic loader tells that its list of libraries has changed, before code of a new one runs; the agent then looks at all
//! mappings again. A library that
//! another process has loaded before has its probes already, so nothing of it is missed.

use crate::model::HashMap;

use super::adopt::Waiting;
use super::attach::Attached;
use super::{Agent, Sink, chain};
use crate::target::Process;

/// What was attached for each process, and who has loaded more since.
#[derive(Debug, Default)]
pub struct Libraries {
    attached: HashMap<u32, Attached>,
    /// With the time of the first mapping.
    grown: HashMap<u32, u64>,
}

impl Libraries {
    /// A process was attached to.
    pub(super) fn attached(&mut self, pid: u32, attached: Attached) {
        self.attached.insert(pid, attached);
    }

    /// A process has loaded libraries at this time.
    pub(super) fn grew(&mut self, pid: u32, at_ns: u64) {
        self.grown.entry(pid).or_insert(at_ns);
    }

    /// What was attached for a process; none if it has not been attached to.
    pub(super) fn of(&self, pid: u32) -> Option<Attached> {
        self.attached.get(&pid).copied()
    }

    pub(super) fn remove(&mut self, pid: u32) {
        self.attached.remove(&pid);
        self.grown.remove(&pid);
    }
}

impl<S: Sink> Agent<S> {
    /// Has planned what targets have loaded since the last call.
    pub(super) fn request_libraries(&mut self) {
        for (pid, since_ns) in std::mem::take(&mut self.libraries.grown) {
            let Some(process) = Process::read(pid).ok().filter(|process| self.knows(process.id)) else { continue };
            let files = process.mapped_files();
            let requested = self.attachments.request(pid, &files, &mut self.programs);
            let waiting = match self.waiting.remove(&pid) {
                Some(waiting) => waiting.with(process, files),
                None => Waiting::loaded(process, files, since_ns),
            };
            let completed = match requested {
                Ok(()) => self.wait_for_plans(waiting),
                // It is known that its program cannot be read.
                Err(_) => Ok(()),
            };
            if let Err(error) = completed {
                tracing::warn!("{}", chain(&error));
            }
        }
    }
}

//! The processes that come from the command of a session (`tracer run -- sh -c ./service`): all of them are targets.
//!
//! The eBPF programs follow them: a child is a target from its start, and stays one when it runs another program. Its sockets are
//! seen from the first instruction on; its prost calls too, if its file was attached to before. So the files that the
//! command names are attached to before it starts, and those that it turns out to run, when the first process does.

use crate::model::HashMap;
use std::path::{Path, PathBuf};

use tracer_common::map::{TARGET_FOLLOW, TARGET_IF_FOLLOWED, TARGET_SOCKETS, Target, VERDICT_TRACKED};

use super::{Agent, AgentError, Sink, chain};
use crate::target::Process;

/// Files named in a command that are looked at.
const MAX_NAMED: usize = 16;

/// Who they are.
#[derive(Debug, Default)]
pub struct Descendants {
    /// By process number, and whether something was found in the process to trace.
    processes: HashMap<u32, bool>,
    /// Their connections of which it is not known yet whether they are to a database.
    connections: HashMap<u64, u32>,
}

impl Descendants {
    pub(super) fn contains(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    pub(super) fn add(&mut self, pid: u32) {
        self.processes.entry(pid).or_insert(false);
    }

    /// Something is traced in the process, if it is one of these.
    pub(super) fn has_spans(&mut self, pid: u32) {
        if let Some(has_spans) = self.processes.get_mut(&pid) {
            *has_spans = true;
        }
    }

    /// A process has a connection that looks like one to a database.
    pub(super) fn connected(&mut self, pid: u32, connection: u64) {
        if self.contains(pid) {
            self.connections.insert(connection, pid);
        }
    }

    /// What a connection was found to be.
    pub(super) fn decided(&mut self, connection: u64, verdict: u32) {
        if verdict != 0
            && let Some(pid) = self.connections.remove(&connection)
            && verdict == VERDICT_TRACKED
        {
            self.has_spans(pid);
        }
    }

    pub(super) fn remove(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.connections.retain(|_, owner| *owner != pid);
    }
}

impl<S: Sink> Agent<S> {
    /// The process that will become the command, and all that comes from it, are targets.
    ///
    /// # Errors
    /// When the eBPF programs cannot be told.
    pub fn follow(&mut self, pid: u32) -> Result<(), AgentError> {
        self.descendants.add(pid);
        self.programs.set_target(pid, Target { flags: TARGET_SOCKETS | TARGET_FOLLOW, ..Target::default() })?;
        Ok(())
    }

    /// Attaches to the program of a command, and to those that its arguments name (`sh -c './service; true'`), before it starts.
    pub fn expect_command(&mut self, executable: &Path, arguments: &[String]) {
        let named = arguments.iter().flat_map(|argument| argument.split(is_of_the_shell)).filter_map(program);
        for path in [executable.to_owned()].into_iter().chain(named.take(MAX_NAMED)) {
            if let Err(error) = self.expect(&path, TARGET_IF_FOLLOWED) {
                tracing::debug!("{}: {}", path.display(), chain(&error));
            }
        }
    }

    /// Whether processes that come from the command are still traced.
    pub fn goes_on(&self) -> bool {
        self.traced_descendants().next().is_some()
    }

    /// Whether there are processes that come from the command of which it is not known yet whether there is anything to trace:
    /// a shell that has forked has still to become the program.
    pub fn may_go_on(&self) -> bool {
        self.descendants.processes.keys().any(|pid| self.processes.contains_key(pid))
    }

    /// These processes, with their names.
    pub fn left_behind(&self) -> Vec<String> {
        let mut pids: Vec<u32> = self.traced_descendants().collect();
        pids.sort_unstable();
        let name = |pid| Process::read(pid).ok().map(|process| format!("{} (process {pid})", process.name()));
        pids.into_iter().filter_map(name).collect()
    }

    fn traced_descendants(&self) -> impl Iterator<Item = u32> {
        self.descendants
            .processes
            .iter()
            .filter(|(pid, has_spans)| **has_spans && self.processes.contains_key(pid))
            .map(|(&pid, _)| pid)
    }
}

/// Characters that end a word of a shell's command.
fn is_of_the_shell(character: char) -> bool {
    character.is_whitespace() || ";&|()<>'\"`$=".contains(character)
}

/// The program that a word of a command may mean.
fn program(word: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = Path::new(word);
    if !word.contains('/') {
        return None;
    }
    let metadata = path.metadata().ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{is_of_the_shell, program};

    #[test]
    fn programs_are_found_in_a_shells_command() {
        let words = |text: &str| text.split(is_of_the_shell).filter_map(program).collect::<Vec<_>>();
        assert_eq!(
            words("cd /tmp && X=1 /bin/true;'/bin/false'|cat /etc/passwd"),
            [std::path::PathBuf::from("/bin/true"), "/bin/false".into()]
        );
        assert!(words("true --flag /no/such/file").is_empty());
    }
}

//! When a session ends: by a signal, after a time, with the command and what it has started and left behind, or with the last process
//! that it was for.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::agent::{Agent, Sink};

/// Why the counters are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A second has passed.
    Second,
    /// Somebody sent SIGUSR1.
    Asked,
}

/// A session with its end in view.
pub struct Session<S> {
    agent: Agent<S>,
    child: Option<Child>,
    /// The command has ended; what it has left behind may go on.
    child_ended: bool,
    /// The user knows that.
    said: bool,
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl<S: Sink> Session<S> {
    /// Starts `command`, if there is one, with the probes already in place.
    ///
    /// # Errors
    /// When signals cannot be caught or the command cannot be started.
    pub fn begin(mut agent: Agent<S>, command: &[String], duration: Option<u64>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
        }
        let child = match command.split_first() {
            Some((program, arguments)) => Some(start(&mut agent, program, arguments)?),
            None => None,
        };
        super::announce(&agent, command.first().map(String::as_str));
        let until = duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Ok(Self { agent, child, child_ended: false, said: false, until, stop })
    }

    /// Setting it ends the session.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Runs until the end; `each_second` sees the agent about once a second, and when SIGUSR1 asks for a report.
    ///
    /// # Errors
    /// When the ring buffer cannot be read any more.
    pub fn run(mut self, mut each_second: impl FnMut(&mut Agent<S>, Occasion)) -> Result<Agent<S>> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).context("cannot catch signals")?;
        let mut next = Instant::now();
        loop {
            self.agent.step()?;
            if asked.swap(false, Ordering::Relaxed) {
                each_second(&mut self.agent, Occasion::Asked);
            } else if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs(1);
                each_second(&mut self.agent, Occasion::Second);
            }
            if self.stop.load(Ordering::Relaxed)
                || self.until.is_some_and(|until| Instant::now() >= until)
                || self.has_ended()
            {
                return Ok(self.agent);
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return self.agent.is_over() };
        if !self.child_ended {
            // An error means that somebody else has waited for it: it is gone as well.
            self.child_ended = !matches!(child.try_wait(), Ok(None));
            // What it has started is known when the next records have been read.
            return false;
        }
        if !self.agent.goes_on() {
            return true;
        }
        if !std::mem::replace(&mut self.said, true) {
            let names = self.agent.left_behind().join(", ");
            tracing::info!(
                "the command has ended, but not what it has started: tracing {names} to the end; Ctrl-C ends"
            );
        }
        false
    }
}

/// Starts a command that waits, before it becomes the program, until the probes are attached.
fn start<S: Sink>(agent: &mut Agent<S>, program: &str, arguments: &[String]) -> Result<Child> {
    let executable = find(program).with_context(|| format!("cannot start {program}: there is no such program"))?;
    agent.expect_command(&executable, arguments);
    let (gate, key) = std::io::pipe().context("cannot make a pipe")?;
    // The child inherits this end; reading it ends when the other end is closed.
    rustix::io::fcntl_setfd(&gate, rustix::io::FdFlags::empty()).context("cannot share a pipe")?;
    let child = Command::new("/proc/self/exe")
        .arg(GATE)
        .arg(gate.as_raw_fd().to_string())
        .arg(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    crate::probe::descriptors::restore_limit(child.id());
    agent.follow(child.id()).context("cannot trace the command")?;
    drop(key);
    Ok(child)
}

/// First argument of the agent's own binary when it is the gate of a command.
pub const GATE: &str = "__gate";

/// The gate: waits until the descriptor named first is closed by the agent, then becomes the program named next.
pub fn gate(arguments: &[String]) -> Result<Infallible> {
    let [fd, program, rest @ ..] = arguments else { bail!("{GATE} is for the agent itself") };
    let mut pipe = File::open(format!("/proc/self/fd/{fd}")).context("the gate has no pipe")?;
    let fd: i32 = fd.parse().context("the gate has no pipe")?;
    std::io::copy(&mut pipe, &mut std::io::sink()).context("the gate's pipe")?;
    // SAFETY: the descriptor was inherited from the agent for this purpose, and nothing else here owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("cannot start {program}"))
}

/// The file of a program, as the shell would find it.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

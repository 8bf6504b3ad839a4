//! When a session ends: by a signal, after a time, with the command and what it has started and left behind, or with the last process
//! that it was for.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::gate::Gate;
use super::systemd::Systemd;
use crate::agent::{Agent, Sink};
use crate::cli::sandbox::report_refusals;

/// How long what the command has left behind may take to become something that is traced.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

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
    /// When the command ended; what it has left behind may go on.
    child_ended: Option<Instant>,
    /// The user knows that.
    said: bool,
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
    systemd: Systemd,
}

impl<S: Sink> Session<S> {
    /// Lets the command begin, if there is one, with the probes already in place.
    ///
    /// # Errors
    /// When signals cannot be caught or the command cannot be started.
    pub fn begin(mut agent: Agent<S>, command: Option<Gate>, duration: Option<u64>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
        }
        let name = command.as_ref().map(|gate| gate.name().to_owned());
        let child = command.map(|gate| gate.open(&mut agent)).transpose()?;
        let what = super::what_is_traced(&agent, name.as_deref());
        tracing::info!("{what}; Ctrl-C ends");
        let systemd = Systemd::ready(&what);
        let until = duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Ok(Self { agent, child, child_ended: None, said: false, until, stop, systemd })
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
            self.systemd.alive();
            if asked.swap(false, Ordering::Relaxed) {
                each_second(&mut self.agent, Occasion::Asked);
            } else if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs(1);
                report_refusals();
                each_second(&mut self.agent, Occasion::Second);
            }
            if self.stop.load(Ordering::Relaxed)
                || self.until.is_some_and(|until| Instant::now() >= until)
                || self.has_ended()
            {
                self.systemd.stopping();
                return Ok(self.agent);
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return self.agent.is_over() };
        let Some(child_ended) = self.child_ended else {
            // An error means that somebody else has waited for it: it is gone as well.
            self.child_ended = (!matches!(child.try_wait(), Ok(None))).then(Instant::now);
            // What it has started is known when the next records have been read.
            return false;
        };
        if !self.agent.goes_on() {
            return !self.agent.may_go_on() || child_ended.elapsed() >= LEFT_BEHIND;
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

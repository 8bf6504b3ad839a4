//! A child process that does not outlive its owner.

use std::{
    os::unix::process::CommandExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus},
};

use anyhow::{Context, Result};

/// A running child; dropping it kills it.
pub struct Service(Child);

impl Service {
    /// Starts it in a process group of its own, so that a Ctrl-C in the terminal reaches this process alone, which
    /// then ends its children in order.
    pub fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        Ok(Self(command.process_group(0).spawn().with_context(|| format!("cannot run {shown}"))?))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard input, if that was to be a pipe.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.0.stdin.take().context("standard input is not a pipe")
    }

    /// Its standard output, if that was to be a pipe.
    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.0.stdout.take().context("standard output is not a pipe")
    }

    /// Its standard error, if that was to be a pipe.
    pub fn stderr(&mut self) -> Result<ChildStderr> {
        self.0.stderr.take().context("standard error is not a pipe")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Asks it to end, as Ctrl-C would, and waits for it.
    pub fn interrupt(mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGINT)?;
        Ok(self.0.wait()?)
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        // After its end the number may be another's.
        if self.0.try_wait()?.is_none() {
            let pid = i32::try_from(self.0.id())?;
            // SAFETY: a plain system call; the child has not been waited for, so its id is not reused.
            unsafe { libc::kill(pid, signal) };
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

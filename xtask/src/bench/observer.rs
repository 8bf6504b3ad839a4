//! A process that watches the target, or takes what is seen: the agent, bpftrace or a collector.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::Service;

/// How long attaching may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running observer; dropping it kills it.
pub struct Observer {
    service: Service,
    log: PathBuf,
}

impl Observer {
    /// Starts a command whose output goes to a file.
    pub fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        let log = dir.join("observer.log");
        let file = File::create(&log)?;
        let service = Service::start(command.stdout(file.try_clone()?).stderr(file))?;
        Ok(Self { service, log })
    }

    /// `tracer run` or `tracer record` on these processes, when it has attached.
    pub fn agent(
        program: &Path,
        dir: &Path,
        subcommand: &str,
        pids: &[u32],
        arguments: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args([subcommand, "--pid"]).args(pids.iter().map(u32::to_string)).env("NO_COLOR", "1");
        arguments(&mut command);
        let mut agent = Self::start(&mut command, dir)?;
        agent.wait_until("the agent attaches", |said| Ok(said.contains("Ctrl-C ends")))?;
        Ok(agent)
    }

    /// Waits until `ready` is content with what the observer has written.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let ends = Instant::now() + PATIENCE;
        while !ready(&self.said()?)? {
            if let Some(status) = self.service.ended()? {
                bail!("{status}: {}", self.said()?.trim());
            }
            ensure!(Instant::now() < ends, "waited too long until {what}: {}", self.said()?.trim());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does, and returns what it wrote.
    pub fn end(self) -> Result<String> {
        let Self { service, log } = self;
        let status = service.interrupt()?;
        let said = read(&log)?;
        ensure!(status.success(), "{status}: {}", said.trim());
        Ok(said)
    }

    fn said(&self) -> Result<String> {
        read(&self.log)
    }
}

fn read(log: &Path) -> Result<String> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

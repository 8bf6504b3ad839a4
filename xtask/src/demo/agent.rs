//! The agent in the demo: what it says is passed on, and of the traces that it prints the first few.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::service::Service;
use crate::{pipeline::SERVICES, workspace};

/// Traces that are shown as trees: all of them are in the table.
const TREES: usize = 2;
/// How long attaching may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; dropping it kills it.
pub struct Agent {
    service: Service,
    relays: [JoinHandle<()>; 2],
}

impl Agent {
    /// Attaches to the services by name. Spans go to the terminal, to `file`, and to the collector at `otlp`.
    pub fn start(file: &Path, otlp: Option<&str>) -> Result<Self> {
        let mut agent = Command::new(workspace::target().join("release/tracer"));
        agent.arg("run").arg("--name").args(SERVICES).args(["--export", "terminal"]);
        agent.args(["--export", &format!("file:{}", file.display())]);
        if let Some(url) = otlp {
            agent.args(["--export", &format!("otlp:{url}")]);
        }
        let mut service = Service::start(agent.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (stdout, stderr) = (service.stdout()?, service.stderr()?);
        let (attaching, attached) = mpsc::channel();
        let said = thread::spawn(move || {
            for line in lines(stderr) {
                eprintln!("{line}");
                if line.contains("Ctrl-C ends") {
                    // Nobody waits for it a second time.
                    let _ = attaching.send(());
                }
            }
        });
        let printed = thread::spawn(move || trees(stdout));
        let mut agent = Self { service, relays: [said, printed] };
        agent.wait(&attached)?;
        Ok(agent)
    }

    fn wait(&mut self, attached: &Receiver<()>) -> Result<()> {
        match attached.recv_timeout(PATIENCE) {
            Ok(()) => Ok(()),
            Err(_) => {
                self.running()?;
                bail!("the agent does not attach")
            }
        }
    }

    /// An error once it has ended by itself.
    pub fn running(&mut self) -> Result<()> {
        match self.service.ended()? {
            Some(status) => bail!("the agent ended: {status}"),
            None => Ok(()),
        }
    }

    /// Ends it as Ctrl-C would: it exports what it still holds, and prints its balance.
    pub fn finish(self) -> Result<()> {
        let status = self.service.interrupt()?;
        for relay in self.relays {
            relay.join().ok().context("a relay panicked")?;
        }
        ensure!(status.success(), "the agent ended: {status}");
        Ok(())
    }
}

/// Prints the first traces, and takes the others in: a full pipe would stop the exporter.
fn trees(from: impl Read) {
    let mut seen = 0;
    for line in lines(from) {
        seen += usize::from(line.contains("Z trace "));
        if seen <= TREES {
            println!("{line}");
        }
    }
}

fn lines(from: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(from).lines().map_while(Result::ok)
}

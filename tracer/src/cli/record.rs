//! `tracer record`: capture now, make spans later.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::options::{self, Spans, Targets};
use super::require_process_numbers;
use super::run::{Gate, Session};
use super::sandbox::{Sandbox, require_trace};
use super::slow::slow;
use super::suggest;
use crate::agent::{Agent, Balance, Recorder, SaidLosses, monotonic_ns};
use crate::capture::recording::{Footer, Header, Writer};

/// Arguments of `tracer record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write. It holds the bytes of the targets' sockets and messages as they were, passwords included; only its owner
    /// can read it.
    #[arg(short, long, value_name = "FILE", default_value = "tracer.recording")]
    output: PathBuf,
    #[command(flatten)]
    targets: Targets,
}

/// Records until the session ends.
pub fn main(args: Args) -> Result<()> {
    let (command, start) = (args.targets.command.clone(), args.targets.start.clone());
    let config = options::config(args.targets, Spans::default())?;
    let mut agent_options = config.agent_options(!command.is_empty())?;
    require_trace()?;
    require_process_numbers()?;
    suggest::tell(&config.name);
    let seed = rand::random();
    let header = Header { seed, clock_offset_ns: clock_offset_ns()? };
    let writer = Writer::create(&args.output, &header)?;
    tracing::warn!(
        "{} will hold what the targets send and receive as it is, passwords and messages included: keep it as safe as those",
        args.output.display()
    );
    let mut said = SaidLosses::default();
    let gate = Gate::close(&command, start.user.as_deref())?;
    agent_options.filter_calls = Sandbox::enter(start.no_sandbox, Vec::new())?.is_on();
    let recorder = Recorder::new(writer, config.correlator(seed));
    let agent = slow("looking for what can be probed", || Agent::start(agent_options, recorder))?;
    let agent = Session::begin(agent, gate, config.duration)?.run(|agent, _| {
        let Ok(kernel) = agent.kernel_counts() else { return };
        let balance = Balance { kernel, counts: agent.sink().counts(), exporters: Vec::new() };
        said.tell(&balance);
    })?;
    let (recorder, kernel, _attached) = agent.finish()?;
    let (writer, counts) = recorder.finish()?;
    let counters = kernel.0.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    writer.finish(&Footer { counters })?;
    let balance = Balance { kernel, counts, exporters: Vec::new() };
    options::say_balance(&balance);
    tracing::info!("{} records in {}; `tracer replay` makes their spans", counts.records, args.output.display());
    Ok(())
}

fn clock_offset_ns() -> Result<i64> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(wall.as_nanos() as i64 - monotonic_ns() as i64)
}

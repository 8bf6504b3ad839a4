//! `tracer run`: attach and export.

use anyhow::{Context as _, Result};

use super::config::process_env;
use super::options::{self, Spans, Targets};
use super::require_root;
use crate::agent::{Agent, Balance, Sink, SpanSink};
use crate::export::Pipeline;

mod session;

pub use session::{GATE, Session, gate};

/// Arguments of `tracer run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tracer run -n risk_control -n 'msg_order_*'
  tracer run -p 4711 --export file:spans.jsonl
  tracer run --export otlp:http://127.0.0.1:4317 -- ./my_service --its-flag")]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    spans: Spans,
}

/// Runs the session to its end and prints the balance.
pub fn main(args: Args) -> Result<()> {
    let command = args.targets.command.clone();
    let config = options::config(args.targets, args.spans)?;
    let agent_options = config.agent_options(!command.is_empty())?;
    require_root()?;
    let exporters = config.exporters(&process_env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let pipeline = Pipeline::start(config.pipeline_options(), exporters).context("cannot start the exporters")?;
    let sink = SpanSink::new(config.correlator(rand::random()), pipeline.handle());

    let agent = Agent::start(agent_options, sink)?;
    let session = Session::begin(agent, &command, config.duration)?;
    let agent = session.run()?;
    let (sink, kernel, _attached) = agent.finish()?;
    let counts = sink.finish();
    let report = runtime.block_on(pipeline.shutdown(config.grace()));

    let balance = Balance { kernel, counts, exporters: report.exporters };
    for line in balance.text().lines() {
        tracing::info!("{line}");
    }
    if !balance.holds() {
        tracing::error!("the balance does not hold: spans were lost without a cause; please report this");
    }
    config.write_stats(&balance)
}

/// Tells that there is nothing to trace yet.
fn announce<S: Sink>(agent: &Agent<S>) {
    match agent.targets() {
        0 => tracing::info!("no matching process runs yet; waiting for one (Ctrl-C ends)"),
        targets => tracing::info!("tracing {targets} process{}; Ctrl-C ends", if targets == 1 { "" } else { "es" }),
    }
}

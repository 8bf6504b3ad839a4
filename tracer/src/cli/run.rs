//! `tracer run`: attach and export.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::blame::{self, Report};
use super::config::{Config, ExportTarget, process_env};
use super::health::health;
use super::options::{self, Spans, Targets, WebArgs};
use super::require_process_numbers;
use super::sandbox::{Sandbox, require_trace};
use super::slow::slow;
use super::suggest;
use crate::agent::{Agent, Balance, SaidLosses, Sink, SpanSink};
use crate::export::Pipeline;
use crate::export::metrics::{MetricsExporter, Snapshot, histograms};
use crate::model::{Attribute, Value};
use crate::web::{Bound, Web};

pub mod gate;
mod session;
mod systemd;

pub use gate::Gate;
pub use session::{Occasion, Session};

/// How often the balance goes out as metrics.
const METRICS_EVERY: Duration = Duration::from_secs(10);
/// How long the last metrics may take.
const METRICS_GRACE: Duration = Duration::from_secs(2);

/// Arguments of `tracer run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tracer run -n risk_control -n 'msg_order_*'
  tracer run -p 4711 --export file:spans.jsonl
  tracer run --export otlp:http://127.0.0.1:4317 -- ./my_service --its-flag
  tracer run -n 'order_*' --web                          # look at it in a browser")]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    spans: Spans,
    #[command(flatten)]
    web: WebArgs,
    /// Report at the end who made whom wait at Redis servers.
    #[arg(long, help_heading = "Spans")]
    blame: bool,
}

/// Runs the session to its end and prints the balance.
pub fn main(args: Args) -> Result<()> {
    let (command, start) = (args.targets.command.clone(), args.targets.start.clone());
    let config = options::config(args.targets, args.spans)?;
    let mut agent_options = config.agent_options(!command.is_empty())?;
    require_trace()?;
    require_process_numbers()?;
    suggest::tell(&config.name);
    let server = args.web.listen()?;
    // Where the page is, the terminal is not needed unless it was asked for.
    let unasked = config.export_targets(&process_env) == [ExportTarget::Terminal] && config.export.is_empty();
    let mut exporters = if server.is_some() && unasked { Vec::new() } else { config.exporters(&process_env)? };
    let web = server.is_some().then(|| Arc::new(Web::new("live".to_owned(), true, live_bound(&config))));
    if let Some(web) = &web {
        exporters.push(Box::new(web.exporter()));
    }
    let stats = config.stats_file()?;
    let gate = Gate::close(&command, start.user.as_deref())?;
    let sandbox = Sandbox::enter(start.no_sandbox, config.spool.clone().into_iter().collect())?;
    agent_options.filter_calls = sandbox.is_on();
    let runtime = sandbox.runtime()?;
    let pipeline =
        Pipeline::start(sandbox.confine(config.pipeline_options()), exporters).context("cannot start the exporters")?;
    let mut correlator = config.correlator(rand::random());
    let mut report = args.blame.then(Report::default);
    if report.is_some() {
        correlator.collect_waits();
    }
    let sink = SpanSink::new(correlator, pipeline.handle());

    let agent = slow("looking for what can be probed", || Agent::start(agent_options, sink))?;
    if let (Some(server), Some(web)) = (server, &web) {
        tracing::info!("the browser view: {}", server.url());
        options::warn_if_exposed(&server);
        runtime.spawn(server.run(Arc::clone(web)));
    }
    let session = Session::begin(agent, gate, config.duration)?;
    let (stop, exporting) = (session.stopper(), pipeline.handle());
    runtime.spawn(async move {
        // Nobody reads what is exported any more (`tracer run | head`).
        exporting.ended().await;
        stop.store(true, Ordering::Relaxed);
    });
    let latest: Arc<Mutex<Snapshot>> = Arc::default();
    let metrics = match config.metrics_client(&process_env)? {
        Some(client) => {
            let shared = Arc::clone(&latest);
            let snapshot = move || shared.lock().map(|latest| latest.clone()).unwrap_or_default();
            let _inside = runtime.enter();
            Some(MetricsExporter::start(client, METRICS_EVERY, agent_resource(), snapshot))
        }
        None => None,
    };
    let exporters = pipeline.handle();
    let mut said = SaidLosses::default();
    let agent = session.run(|agent, occasion| {
        let Ok(kernel) = agent.kernel_counts() else { return };
        let balance = Balance { kernel, counts: agent.sink().counts(), exporters: exporters.stats() };
        said.tell(&balance);
        if occasion == Occasion::Asked {
            tracing::info!("so far:\n{}", balance.text());
        }
        if let Some(web) = web.as_ref().filter(|web| web.is_asked()) {
            web.post_health(health(&balance, Some(agent.targets()), None));
        }
        // Nobody else reads them, and to copy all takes the time of the thread that takes the records.
        if metrics.is_some()
            && let Ok(mut latest) = latest.lock()
        {
            *latest = Snapshot { counters: balance.counters(), histograms: histograms(agent.sink().durations()) };
        }
        if let Some(report) = &mut report {
            agent.sink_mut().take_waits().into_iter().for_each(|wait| report.add(wait));
        }
    })?;
    let (mut sink, kernel, _attached) = slow("taking the last records", || agent.finish())?;
    sink.end();
    if let Some(report) = &mut report {
        sink.take_waits().into_iter().for_each(|wait| report.add(wait));
    }
    if metrics.is_some()
        && let Ok(mut latest) = latest.lock()
    {
        latest.histograms = histograms(sink.durations());
    }
    let counts = sink.finish();
    let ended = slow("waiting for exporters", || runtime.block_on(pipeline.shutdown(config.grace())));
    if let Some(metrics) = metrics {
        runtime.block_on(metrics.shutdown(METRICS_GRACE));
    }

    let balance = Balance { kernel, counts, exporters: ended.exporters };
    options::say_balance(&balance);
    if let Some(mut report) = report {
        report.commands(counts.commands, counts.commands_served, counts.commands_estimated);
        blame::show(&report, &blame::Show::default())?;
    }
    options::write_stats(stats, &balance)
}

/// Spans for the page may take as much again as all other state.
fn live_bound(config: &Config) -> Bound {
    Bound { bytes: config.memory_budget() as u64, ..Bound::default() }
}

/// The agent's own resource: the metrics are its, not its targets'.
fn agent_resource() -> Vec<Attribute> {
    vec![
        ("service.name".into(), Value::Str("tracer".into())),
        ("service.version".into(), Value::Str(env!("CARGO_PKG_VERSION").into())),
        ("process.pid".into(), Value::Int(i64::from(std::process::id()))),
    ]
}

/// What is traced so far.
fn what_is_traced<S: Sink>(agent: &Agent<S>, command: Option<&str>) -> String {
    match (agent.targets(), command) {
        (0, Some(command)) => format!("tracing {command} and everything that it starts"),
        (0, None) => "no matching process runs yet; waiting for one".to_owned(),
        (targets, _) => format!("tracing {targets} process{}", if targets == 1 { "" } else { "es" }),
    }
}

//! `tracer top`: a live view of what services do, by service and operation.

pub mod news;
mod screen;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::screen::{Screen, Wish};
use super::config::process_env;
use super::options::{self, Spans, Targets};
use super::require_process_numbers;
use super::run::Session;
use super::sandbox::{Sandbox, require_trace};
use super::slow::slow;
use crate::agent::{Agent, Balance, SpanSink};
use crate::export::top::{Board, TopExporter};
use crate::export::{Exporter, Pipeline};

/// How often the figures change.
const EVERY: Duration = Duration::from_secs(1);
/// How often the end of the session is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `tracer top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys: s sort, / filter, p pause, Enter the slowest trace of the selected operation, q quit.

Examples:
  tracer top -n 'order_*'
  tracer top -n risk_control redis-server --export otlp:http://127.0.0.1:4317")]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    spans: Spans,
}

/// Runs a session with the screen as its exporter, and others only where they were asked for.
pub fn main(args: Args) -> Result<()> {
    let start = args.targets.start.clone();
    if !args.targets.command.is_empty() {
        bail!("the command would write over the screen: start it by itself, then `tracer top -n NAME`");
    }
    let config = options::config(args.targets, args.spans)?;
    let mut agent_options = config.agent_options(false)?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("`tracer top` needs a terminal; `tracer run` writes to anything");
    }
    require_trace()?;
    require_process_numbers()?;
    let board = Arc::<Board>::default();
    let mut exporters: Vec<Box<dyn Exporter>> = vec![Box::new(TopExporter::new(Arc::clone(&board)))];
    if !config.export.is_empty() {
        exporters.extend(config.exporters(&process_env)?);
    }
    let stats = config.stats_file()?;
    let sandbox = Sandbox::enter(start.no_sandbox, config.spool.clone().into_iter().collect())?;
    agent_options.filter_calls = sandbox.is_on();
    let runtime = sandbox.runtime()?;
    let pipeline =
        Pipeline::start(sandbox.confine(config.pipeline_options()), exporters).context("cannot start the exporters")?;
    let sink = SpanSink::new(config.correlator(rand::random()), pipeline.handle());
    let agent = slow("looking for what can be probed", || Agent::start(agent_options, sink))?;
    let session = Session::begin(agent, None, config.duration)?;
    let stop = session.stopper();
    let over = Arc::new(AtomicBool::new(false));
    let screen = {
        let over = Arc::clone(&over);
        thread::Builder::new().name("screen".into()).spawn(move || show(&board, &stop, &over))?
    };
    let ended = session.run(|_, _| {});
    over.store(true, Ordering::Relaxed);
    let shown = screen.join().map_err(|_| anyhow::anyhow!("the screen's thread panicked"))?;
    let (sink, kernel, _attached) = ended?.finish()?;
    let counts = sink.finish();
    let report = slow("waiting for exporters", || runtime.block_on(pipeline.shutdown(config.grace())));
    let balance = Balance { kernel, counts, exporters: report.exporters };
    options::say_balance(&balance);
    options::write_stats(stats, &balance)?;
    shown
}

/// Draws until the session is over, or the user ends it.
fn show(board: &Board, stop: &AtomicBool, over: &AtomicBool) -> Result<()> {
    news::divert(true);
    let mut terminal = ratatui::init();
    let result = draw(&mut terminal, board, over);
    ratatui::restore();
    news::divert(false);
    stop.store(true, Ordering::Relaxed);
    result
}

fn draw(terminal: &mut ratatui::DefaultTerminal, board: &Board, over: &AtomicBool) -> Result<()> {
    let mut screen = Screen::default();
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next = Instant::now() + EVERY;
            screen.refresh(board, news::last());
        }
        terminal.draw(|frame| screen.draw(frame)).context("cannot write to the terminal")?;
        let wait = LOOK.min(next.saturating_duration_since(Instant::now()));
        if event::poll(wait).context("cannot read from the terminal")?
            && let Event::Key(key) = event::read().context("cannot read from the terminal")?
            && key.kind == KeyEventKind::Press
            && screen.key(key, board) == Wish::Quit
        {
            return Ok(());
        }
    }
    Ok(())
}

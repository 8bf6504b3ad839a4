//! `tracer replay`: the spans of a recording.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::config::process_env;
use super::options::{self, Spans, Targets};
use super::slow::slow;
use crate::agent::{Balance, KernelCounts, Sink as _, SpanSink};
use crate::capture::recording::Reader;
use crate::export::{Clock, Options, Pipeline, WhenFull};

/// Arguments of `tracer replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `tracer record` wrote.
    #[arg(value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    spans: Spans,
}

/// Feeds the recording to the same correlator and exporters as a live session.
pub fn main(args: Args) -> Result<()> {
    let config = options::config(Targets::default(), args.spans)?;
    let mut reader = Reader::open(&args.input)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let clock = Clock::Fixed(reader.header().clock_offset_ns);
    let options = Options { clock, when_full: WhenFull::Wait, ..config.pipeline_options() };
    let pipeline = Pipeline::start(options, config.exporters(&process_env)?).context("cannot start the exporters")?;
    let mut sink = SpanSink::new(config.correlator(reader.header().seed), pipeline.handle());
    let damage = slow("making spans", || {
        loop {
            match reader.next_item() {
                Ok(Some(item)) => sink.item(&item),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        }
    });
    let counts = sink.finish();
    let report = slow("waiting for exporters", || runtime.block_on(pipeline.shutdown(config.grace())));
    let balance = Balance { kernel: KernelCounts::default(), counts, exporters: report.exporters };
    options::say_balance(&balance);
    options::write_stats(config.stats_file()?, &balance)?;
    damage.map_or(Ok(()), |error| Err(error.into()))
}

//! `tracer blame`: who made whom wait, from a recording.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::options::{self, Spans, Targets};
use super::slow::slow;
use crate::capture::recording::Reader;
use crate::output_file;

mod report;
mod svg;

pub use report::Report;

/// Arguments of `tracer blame`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tracer record -n scanner -n web -o busy.recording      # the Redis servers that they talk to are recorded with them
  tracer blame busy.recording --svg busy.svg
  tracer run -n scanner -n web --blame                   # the same at the end of a live session")]
pub struct Args {
    /// What `tracer record` wrote.
    #[arg(value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    show: Show,
}

/// How the report is shown.
#[derive(Debug, Default, clap::Args)]
pub struct Show {
    /// As JSON: durations in seconds.
    #[arg(long)]
    json: bool,
    /// Draw the worst moment: the server's time line by client.
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
}

/// Runs the recording through the correlator and reports.
pub fn main(args: &Args) -> Result<()> {
    let config = options::config(Targets::default(), Spans::default())?;
    let mut reader = Reader::open(&args.input)?;
    let mut correlator = config.correlator(reader.header().seed);
    correlator.collect_waits();
    let mut report = Report::default();
    let damage = slow("reading the recording", || {
        loop {
            match reader.next_item() {
                Ok(Some(item)) => correlator.feed(&item),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            let output = correlator.output();
            output.spans.clear();
            output.waits.drain(..).for_each(|wait| report.add(wait));
        }
    });
    correlator.finish();
    correlator.output().waits.drain(..).for_each(|wait| report.add(wait));
    let counts = correlator.counts();
    report.commands(counts.commands, counts.commands_served, counts.commands_estimated);
    show(&report, &args.show)?;
    damage.map_or(Ok(()), |error| Err(error.into()))
}

/// Prints the report and draws its picture.
pub fn show(report: &Report, how: &Show) -> Result<()> {
    if how.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{}", report.text());
    }
    if let Some(path) = &how.svg {
        let picture = svg::draw(report);
        output_file::write(path, &picture).context("the picture")?;
    }
    Ok(())
}

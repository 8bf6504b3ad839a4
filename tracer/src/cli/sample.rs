//! `tracer sample`: changes what running services with the shim record, without a restart.

use anyhow::{Result, bail};

use super::NoTarget;
use crate::privilege::{self, EXTRA, TRACE};
use crate::target::{Process, Sampling, SamplingError, Selector, set_sampling};

/// Arguments of `tracer sample`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: keep a tenth of the traces, but all that begin with an Order
  tracer sample -n ufes --ratio 0.1 --rule 'proto::Order=1'")]
pub struct Args {
    /// Name of the process: exact, or a glob.
    #[arg(short, long, value_name = "NAME", num_args = 1..)]
    name: Vec<String>,
    /// Process number.
    #[arg(short, long, value_name = "PID", num_args = 1.., value_parser = super::options::process_number)]
    pid: Vec<u32>,
    /// Share of the traces that begin there, from 0 to 1.
    #[arg(long, value_parser = ratio)]
    ratio: f64,
    /// Another share for traces that begin with this span; of a message that is its Rust type. Repeatable.
    #[arg(long, value_name = "SPAN=RATIO", value_parser = rule)]
    rule: Vec<(String, f64)>,
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| "use a number from 0 to 1".to_owned())
}

fn rule(text: &str) -> Result<(String, f64), String> {
    let (name, share) = text.rsplit_once('=').ok_or_else(|| "use SPAN=RATIO".to_owned())?;
    Ok((name.to_owned(), ratio(share)?))
}

/// Tells every matching process.
pub fn main(args: &Args) -> Result<()> {
    let ([_, _, look, read], [open, _]) = (&TRACE, &EXTRA);
    privilege::require([look, read, open])?;
    let selector = Selector::new(&args.name, &[], &args.pid, &[])?;
    for &pid in &args.pid {
        Process::read(pid)?;
    }
    let sampling = Sampling { ratio: args.ratio, rules: args.rule.clone() };
    let mut told = 0;
    let mut without_shim = Vec::new();
    for process in Process::all().iter().filter(|process| selector.matches(process)) {
        match set_sampling(process, &sampling) {
            Ok(()) => told += 1,
            Err(error @ SamplingError::NoPage(_)) => without_shim.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    match (told, without_shim.first()) {
        (0, Some(error)) => bail!("{error}"),
        (0, None) => Err(NoTarget("no such process runs; `tracer ps` lists those with the shim".to_owned()).into()),
        _ => {
            tracing::info!("{told} process{} will keep this share of its traces", if told == 1 { "" } else { "es" });
            Ok(())
        }
    }
}

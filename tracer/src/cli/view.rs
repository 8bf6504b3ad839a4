//! `tracer view`: a recording, or spans of an export, in the browser.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::config::{Config, QueryText};
use super::health::health;
use super::options::{self, Spans, Targets, WebArgs};
use crate::agent::{Balance, KernelCounts, Sink as _, SpanSink};
use crate::capture::recording::{Footer, Reader, RecordingError};
use crate::export::{Clock, Handle, Options, Pipeline, WhenFull};
use crate::trace::Counts;
use crate::web::{Bound, Damage, OtlpFile, Server, Web};

/// Arguments of `tracer view`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tracer record -n 'order_*' -o orders.recording && tracer view orders.recording
  tracer run -n 'order_*' --export file:spans.jsonl && tracer view spans.jsonl")]
pub struct Args {
    /// What `tracer record` or `--export file:PATH` wrote.
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// How much of a Redis command or of SQL of a recording is shown: off, sanitized (default) or full. Credentials never are.
    #[arg(long, value_name = "HOW")]
    query_text: Option<QueryText>,
    /// Spans that are kept; of a larger file the last ones [default: 1000000].
    #[arg(long, value_name = "SPANS")]
    max_spans: Option<u64>,
    #[command(flatten)]
    web: WebArgs,
}

enum Input {
    Recording(Box<Reader>),
    Otlp(Box<OtlpFile>),
}

/// Shows the file until Ctrl-C. It can be looked at while it is read.
pub fn main(args: Args) -> Result<()> {
    let spans = Spans { query_text: args.query_text, ..Spans::default() };
    let config = options::config(Targets::default(), spans)?;
    let input = open(&args.input)?;
    let Some(server) = WebArgs { web: args.web.web.or(Some(options::WEB_ADDRESS)), ..args.web }.listen()? else {
        bail!("there is no address");
    };
    say(&server);
    let bound = Bound { spans: args.max_spans.unwrap_or(Bound::default().spans), ..Bound::default() };
    let web = Arc::new(Web::new(args.input.display().to_string(), false, bound));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let showing = Arc::clone(&web);
    let runtime_handle = runtime.handle().clone();
    // It ends with the process.
    thread::Builder::new().name("reader".into()).spawn(move || {
        let result = read(input, &config, &showing, &runtime_handle);
        showing.loaded();
        if let Err(error) = result {
            tracing::error!("{error:#}");
        }
    })?;
    runtime.block_on(async {
        tokio::select! {
            ended = server.run(web) => ended.context("the server of the page"),
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        }
    })?;
    Ok(())
}

/// The address goes to standard output, also with `--quiet`.
fn say(server: &Server) {
    println!("{}", server.url());
    options::warn_if_exposed(server);
    tracing::info!("open this address in a browser; Ctrl-C ends");
}

fn open(path: &Path) -> Result<Input> {
    match Reader::open(path) {
        Ok(reader) => return Ok(Input::Recording(Box::new(reader))),
        Err(RecordingError::NotARecording(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let file = OtlpFile::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    match file {
        Some(file) => Ok(Input::Otlp(Box::new(file))),
        None => bail!(
            "{} is neither a recording of this version of tracer nor an export: make one with `tracer record` or `--export file:PATH`",
            path.display()
        ),
    }
}

/// Gives all spans of the file to the page, and says how complete they are.
fn read(input: Input, config: &Config, web: &Web, runtime: &tokio::runtime::Handle) -> Result<()> {
    let clock = match &input {
        Input::Recording(reader) => Clock::Fixed(reader.header().clock_offset_ns),
        Input::Otlp(_) => Clock::Fixed(0),
    };
    let options = Options { clock, when_full: WhenFull::Wait, ..config.pipeline_options() };
    let pipeline = Pipeline::start(options, vec![Box::new(web.exporter())])?;
    let (counts, lost, problem) = match input {
        Input::Recording(reader) => recording(*reader, config, pipeline.handle()),
        Input::Otlp(file) => otlp(*file, &pipeline.handle()),
    };
    let report = runtime.block_on(pipeline.shutdown(config.grace()));
    let balance = Balance { kernel: KernelCounts::default(), counts, exporters: report.exporters };
    if let Some(problem) = &problem {
        tracing::warn!("{problem}");
    }
    let mut health = health(&balance, None, problem);
    if let Some(list) = health["lost"].as_array_mut() {
        list.extend(lost.into_iter().map(|(cause, number)| {
            serde_json::json!({ "cause": cause, "number": number, "remedy": crate::agent::remedy(&cause) })
        }));
    }
    web.post_health(health);
    Ok(())
}

/// What became of the records, what was lost before, and why not all could be read.
type Outcome = (Counts, Vec<(String, u64)>, Option<String>);

fn recording(mut reader: Reader, config: &Config, exporters: Handle) -> Outcome {
    let mut sink = SpanSink::new(config.correlator(reader.header().seed), exporters);
    let problem = loop {
        match reader.next_item() {
            Ok(Some(item)) => sink.item(&item),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    (sink.finish(), reader.footer().map(lost_while_recording).unwrap_or_default(), problem)
}

/// Of the programs' counters those that count losses.
fn lost_while_recording(footer: &Footer) -> Vec<(String, u64)> {
    let counters = footer.counters.iter().map(|(name, number)| (&*name.clone().leak(), *number));
    let kernel = KernelCounts(counters.collect());
    Balance { kernel, counts: Counts::default(), exporters: Vec::new() }.losses()
}

fn otlp(mut file: OtlpFile, exporters: &Handle) -> Outcome {
    let mut spans = 0;
    let failed = loop {
        match file.next_line() {
            Ok(Some(line)) => {
                line.resources.into_iter().for_each(|resource| exporters.resource(resource));
                spans += line.spans.len() as u64;
                line.spans.into_iter().for_each(|span| exporters.span(span));
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    let Damage { lines, spans: damaged } = file.damage();
    let mut lost = vec![("lines_malformed".to_owned(), lines), ("spans_malformed".to_owned(), damaged)];
    lost.retain(|(_, number)| *number > 0);
    let damage = (!lost.is_empty()).then(|| format!("the file has {lines} lines and {damaged} spans that are no OTLP"));
    (Counts { spans, ..Counts::default() }, lost, failed.or(damage))
}

//! Spans to OTLP, files and the terminal.
//!
//! A [`Pipeline`] takes finished spans without blocking, freezes them into shared [`Batch`]es and hands each batch to every
//! [`Exporter`], which has a thread and a bounded queue of its own. Per exporter every span has exactly one fate, and
//! [`ExporterStats`] proves it: accepted and recovered from the
//! [`spool`] = exported + dropped by [`Cause`] + spooled + still on the way.
//!
//! ```no_run
//! use std::time::Duration;
//! use tracer::export::{Options, Pipeline, file::FileExporter};
//!
//! # async fn example(resource: tracer::model::Resource, span: tracer::model::Span) -> anyhow::Result<()> {
//! let file = FileExporter::create("spans.jsonl".as_ref())?;
//! let pipeline = Pipeline::start(Options::default(), vec![Box::new(file)])?;
//! let handle = pipeline.handle();
//! handle.resource(resource);
//! handle.span(span);
//! let report = pipeline.shutdown(Duration::from_secs(5)).await;
//! assert_eq!(report.exporters[0].accepted, 1);
//! # Ok(())
//! # }
//! ```

mod batch;
mod clock;
pub mod file;
pub mod metrics;
pub mod otlp;
mod pipeline;
pub mod spool;
mod tally;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod top;

pub use batch::{Batch, service_name};
pub use clock::Clock;
pub use pipeline::{Exporter, Feed, Handle, Options, Pipeline, ThreadStart, WhenFull};
pub use tally::{Cause, ExportReport, ExporterStats, Tally};

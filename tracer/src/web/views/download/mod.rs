//! One trace as a file for other programs.

mod jaeger;
mod perfetto;

use crate::model::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::export::{Batch, otlp::convert};
use crate::model::TraceId;
use crate::web::store::{Seen, Traces};

/// What a trace is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `ExportTraceServiceRequest`, as `--export file:` writes it: `tracer view` reads it again.
    Otlp,
    /// What Jaeger's page takes under "JSON File".
    Jaeger,
    /// Trace events, which Perfetto and Chrome's `about:tracing` open.
    Perfetto,
}

impl Format {
    /// Name in a file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Jaeger => "jaeger",
            Self::Perfetto => "perfetto",
        }
    }
}

/// The whole trace; `None` if there is none, or not any more.
pub fn download(traces: &Traces, id: TraceId, format: Format) -> Option<Json> {
    let mut spans: Vec<Seen<'_>> = traces.spans(traces.get(id)?).collect();
    spans.sort_by_key(Seen::start);
    Some(match format {
        Format::Otlp => otlp(&spans),
        Format::Jaeger => jaeger::trace(id, &spans),
        Format::Perfetto => perfetto::trace(&spans),
    })
}

fn otlp(spans: &[Seen<'_>]) -> Json {
    // Each batch knows its own wall-clock time.
    let batches: Vec<Arc<Batch>> = spans
        .iter()
        .map(|seen| {
            let resources = HashMap::from_iter([(seen.span.process, Arc::clone(seen.resource()))]);
            let (spans, clock_offset_ns) = (vec![seen.span.clone()], seen.batch.clock_offset_ns);
            Arc::new(Batch { spans, resources, clock_offset_ns })
        })
        .collect();
    // The generated types have no value that JSON could not have.
    serde_json::to_value(convert::request(&batches)).unwrap_or_default()
}

//! The spans that the agent wrote, as far as the tables need them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// One span.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
    /// OTLP span kind.
    pub kind: u64,
    /// Nanoseconds.
    pub start: u64,
    /// Nanoseconds.
    pub end: u64,
    /// Nanoseconds from the end of the encode to the start of this decode.
    pub transit: Option<u64>,
}

/// OTLP span kinds.
pub const SERVER: u64 = 2;
pub const CLIENT: u64 = 3;

impl Span {
    /// Nanoseconds.
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Reads a file of OTLP-JSON lines.
pub fn read(file: &Path) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for line in BufReader::new(File::open(file)?).lines() {
        let request: Value = serde_json::from_str(&line?).context("the agent wrote a line that is not JSON")?;
        for resource in list(&request["resourceSpans"]) {
            let service = text(attribute(&resource["resource"], "service.name"));
            for span in list(&resource["scopeSpans"]).flat_map(|scope| list(&scope["spans"])) {
                spans.push(one(span, &service));
            }
        }
    }
    Ok(spans)
}

fn one(span: &Value, service: &str) -> Span {
    Span {
        service: service.to_owned(),
        name: text(&span["name"]),
        trace: text(&span["traceId"]),
        id: text(&span["spanId"]),
        parent: text(&span["parentSpanId"]),
        kind: span["kind"].as_u64().unwrap_or_default(),
        start: number(&span["startTimeUnixNano"]).unwrap_or_default(),
        end: number(&span["endTimeUnixNano"]).unwrap_or_default(),
        transit: attribute(span, "tracer.message.transit_time").as_f64().map(|seconds| (seconds * 1e9).round() as u64),
    }
}

/// The value of an attribute, whatever its type.
fn attribute<'a>(of: &'a Value, name: &str) -> &'a Value {
    let found = list(&of["attributes"]).find(|attribute| attribute["key"] == name);
    found.and_then(|attribute| attribute["value"].as_object()?.values().next()).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// 64-bit numbers are texts in OTLP-JSON.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

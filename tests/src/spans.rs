//! Spans as the file exporter writes them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// One span with its service.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// `service.name`.
    pub service: String,
    /// `process.pid`.
    pub pid: u32,
    /// Span name.
    pub name: String,
    /// OTLP span kind.
    pub kind: u64,
    /// Trace id in hexadecimal digits.
    pub trace: String,
    /// Span id in hexadecimal digits.
    pub id: String,
    /// Parent's span id, empty for a root.
    pub parent: String,
    /// OTLP status code: 2 is an error.
    pub status: u64,
    /// Start, Unix nanoseconds.
    pub start: u64,
    /// End, Unix nanoseconds.
    pub end: u64,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Links to other spans.
    pub links: Vec<Link>,
}

/// A link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Trace id in hexadecimal digits.
    pub trace: String,
    /// Span id in hexadecimal digits.
    pub id: String,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// An attribute, or an empty text.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// An attribute in seconds as nanoseconds; `None` if there is none.
    pub fn seconds(&self, name: &str) -> Option<f64> {
        Some(self.attributes.get(name)?.parse::<f64>().ok()? * 1e9)
    }

    /// How long it took.
    pub fn nanos(&self) -> u64 {
        self.end - self.start
    }
}

/// The spans of each trace.
pub fn by_trace<'a>(spans: impl IntoIterator<Item = &'a Span>) -> HashMap<&'a str, Vec<&'a Span>> {
    let mut traces: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    traces
}

/// Reads OTLP-JSON lines.
pub fn parse(lines: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for line in lines.lines() {
        let request: Value = serde_json::from_str(line).expect("one JSON object a line");
        for resource_spans in list(&request["resourceSpans"]) {
            let resource = attributes(&resource_spans["resource"]["attributes"]);
            for scope_spans in list(&resource_spans["scopeSpans"]) {
                spans.extend(list(&scope_spans["spans"]).map(|span| parse_one(span, &resource)));
            }
        }
    }
    spans
}

fn parse_one(span: &Value, resource: &BTreeMap<String, String>) -> Span {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let time = |name: &str| text(name).parse().expect("64-bit numbers are texts in OTLP-JSON");
    Span {
        service: resource.get("service.name").cloned().unwrap_or_default(),
        pid: resource.get("process.pid").and_then(|pid| pid.parse().ok()).unwrap_or_default(),
        name: text("name"),
        kind: span["kind"].as_u64().unwrap_or_default(),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        status: span["status"]["code"].as_u64().unwrap_or_default(),
        start: time("startTimeUnixNano"),
        end: time("endTimeUnixNano"),
        attributes: attributes(&span["attributes"]),
        links: list(&span["links"])
            .map(|link| Link {
                trace: link["traceId"].as_str().unwrap_or_default().to_owned(),
                id: link["spanId"].as_str().unwrap_or_default().to_owned(),
                attributes: attributes(&link["attributes"]),
            })
            .collect(),
    }
}

fn attributes(list_of: &Value) -> BTreeMap<String, String> {
    list(list_of)
        .map(|attribute| {
            let value = attribute["value"].as_object().and_then(|value| value.values().next());
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            (attribute["key"].as_str().unwrap_or_default().to_owned(), text)
        })
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

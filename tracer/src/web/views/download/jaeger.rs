//! Jaeger's JSON: times are microseconds, processes are named once.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::model::{Attribute, ProcessId, SpanKind, Status, TraceId, Value};
use crate::web::store::Seen;
use crate::web::views::attributes::text;

pub fn trace(id: TraceId, spans: &[Seen<'_>]) -> Json {
    let mut processes: BTreeMap<ProcessId, (String, Json)> = BTreeMap::new();
    for seen in spans {
        let name = format!("p{}", processes.len() + 1);
        let tags: Vec<Json> = seen.resource().attributes.iter().map(tag).collect();
        processes
            .entry(seen.span.process)
            .or_insert_with(|| (name, json!({ "serviceName": seen.service, "tags": tags })));
    }
    let spans: Vec<Json> = spans.iter().map(|seen| span(id, seen, &processes[&seen.span.process].0)).collect();
    let processes: serde_json::Map<String, Json> = processes.into_values().collect();
    let trace = json!({ "traceID": id.to_string(), "spans": spans, "processes": processes, "warnings": null });
    json!({ "data": [trace], "total": 0, "limit": 0, "offset": 0, "errors": null })
}

fn span(id: TraceId, seen: &Seen<'_>, process: &str) -> Json {
    let span = seen.span;
    let reference =
        |kind: &str, trace: String, span: String| json!({ "refType": kind, "traceID": trace, "spanID": span });
    let parent = span.parent.map(|parent| reference("CHILD_OF", id.to_string(), parent.to_string()));
    let links = span
        .links
        .iter()
        .map(|link| reference("FOLLOWS_FROM", link.context.trace_id.to_string(), link.context.span_id.to_string()));
    let mut tags: Vec<Json> = span.attributes.iter().map(tag).collect();
    tags.push(json!({ "key": "span.kind", "type": "string", "value": kind(span.kind) }));
    if let Status::Error(message) = &span.status {
        tags.push(json!({ "key": "error", "type": "bool", "value": true }));
        tags.push(json!({ "key": "otel.status_description", "type": "string", "value": message }));
    }
    let logs: Vec<Json> = span
        .events
        .iter()
        .map(|event| {
            let mut fields: Vec<Json> = event.attributes.iter().map(tag).collect();
            fields.push(json!({ "key": "event", "type": "string", "value": event.name }));
            json!({ "timestamp": seen.batch.unix_ns(event.time_ns) / 1_000, "fields": fields })
        })
        .collect();
    json!({
        "traceID": id.to_string(),
        "spanID": span.span_id.to_string(),
        "operationName": span.name,
        "references": parent.into_iter().chain(links).collect::<Vec<_>>(),
        "startTime": seen.start() / 1_000,
        // Jaeger draws nothing for a span of no time.
        "duration": (seen.duration() / 1_000).max(1),
        "tags": tags,
        "logs": logs,
        "processID": process,
        "warnings": null,
    })
}

fn tag((key, value): &Attribute) -> Json {
    let (kind, value) = match value {
        Value::Int(number) => ("int64", json!(number)),
        Value::Float(number) => ("float64", json!(number)),
        Value::Bool(truth) => ("bool", json!(truth)),
        other => ("string", json!(text(other))),
    };
    json!({ "key": key, "type": kind, "value": value })
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

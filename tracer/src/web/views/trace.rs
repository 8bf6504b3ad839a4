//! One trace: its spans as a tree, and the critical path through them.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::attributes::{cut, pairs};
use super::critical_path::{Part, critical_path};
use super::tree::{Node, tree};
use crate::model::{Link, SpanKind, Status, TraceId};
use crate::web::store::Traces;

/// Spans that the page shows; a download has all of them.
const MAX_SPANS: usize = 10_000;
/// Links and events of a span that it shows.
const MAX_LINKS: usize = 100;

/// Answers `/api/trace/ID`; `None` if there is no such trace, or not any more.
pub fn trace(traces: &Traces, id: TraceId) -> Option<Json> {
    let trace = traces.get(id)?;
    let nodes = tree(traces.spans(trace));
    let mut critical: HashMap<usize, Vec<Part>> = HashMap::new();
    for part in critical_path(&nodes) {
        critical.entry(part.node).or_default().push(part);
    }
    let spans: Vec<Json> = nodes
        .iter()
        .take(MAX_SPANS)
        .enumerate()
        .map(|(place, node)| span(traces, node, trace.start, critical.get(&place).map_or(&[], Vec::as_slice)))
        .collect();
    Some(json!({
        "id": id.to_string(),
        "start": trace.start.to_string(),
        "duration": trace.duration(),
        "count": nodes.len(),
        "spans": spans,
    }))
}

fn span(traces: &Traces, node: &Node<'_>, trace_start: u64, critical: &[Part]) -> Json {
    let (seen, span) = (&node.seen, node.seen.span);
    let within = |ns: u64| ns.saturating_sub(trace_start);
    json!({
        "id": span.span_id.to_string(),
        "parent": node.parent,
        "parent_id": span.parent.map(|parent| parent.to_string()),
        "remote": span.parent_remote,
        "depth": node.depth,
        "service": cut(seen.service),
        "process": [span.process.pid, span.process.start_time],
        "name": cut(&span.name),
        "kind": kind(span.kind),
        "start": within(seen.start()),
        "duration": seen.duration(),
        "error": match &span.status { Status::Error(text) => Some(cut(text)), _ => None },
        "critical": critical.iter().map(|part| json!([within(part.from), within(part.to), part.on_the_way])).collect::<Vec<_>>(),
        "attributes": pairs(&span.attributes),
        "resource": pairs(&seen.resource().attributes),
        "links": span.links.iter().take(MAX_LINKS).map(|link| self::link(traces, link)).collect::<Vec<_>>(),
        "events": span.events.iter().take(MAX_LINKS).map(|event| json!({
            "at": within(seen.batch.unix_ns(event.time_ns)),
            "name": cut(&event.name),
            "attributes": pairs(&event.attributes),
        })).collect::<Vec<_>>(),
    })
}

fn link(traces: &Traces, link: &Link) -> Json {
    json!({
        "trace": link.context.trace_id.to_string(),
        "span": link.context.span_id.to_string(),
        "kept": traces.get(link.context.trace_id).is_some(),
        "attributes": pairs(&link.attributes),
    })
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

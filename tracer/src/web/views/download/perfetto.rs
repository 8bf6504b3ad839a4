//! Trace events: a process of the trace is a process there, and its spans are in lanes in which each lies within the one before or behind
//! it. Arrows go from parents to children in other processes.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value as Json, json};

use crate::model::{ProcessId, SpanId, Status};
use crate::web::store::Seen;
use crate::web::views::attributes::text;

pub fn trace(spans: &[Seen<'_>]) -> Json {
    let lanes = lanes(spans);
    let mut numbers: BTreeMap<ProcessId, usize> = BTreeMap::new();
    let mut events: Vec<Json> = Vec::new();
    let places: HashMap<SpanId, usize> = spans.iter().enumerate().map(|(at, seen)| (seen.span.span_id, at)).collect();
    for seen in spans {
        let number = numbers.len() + 1;
        numbers.entry(seen.span.process).or_insert_with(|| {
            let name = format!("{} ({})", seen.service, seen.span.process.pid);
            events.push(json!({ "ph": "M", "name": "process_name", "pid": number, "args": { "name": name } }));
            number
        });
    }
    for (at, seen) in spans.iter().enumerate() {
        let (pid, tid) = (numbers[&seen.span.process], lanes[at]);
        events.push(json!({
            "ph": "X",
            "name": seen.span.name,
            "cat": "span",
            "ts": micros(seen.start()),
            "dur": micros(seen.duration()),
            "pid": pid,
            "tid": tid,
            "args": arguments(seen),
        }));
        let parent = seen.span.parent.and_then(|parent| places.get(&parent));
        if let Some(&from) = parent.filter(|&&from| spans[from].span.process != seen.span.process) {
            let end = |phase: &str, place: usize, ts: u64| {
                json!({
                    "ph": phase, "name": "parent", "cat": "parent", "id": at, "bp": "e",
                    "ts": micros(ts), "pid": numbers[&spans[place].span.process], "tid": lanes[place],
                })
            };
            events.push(end("s", from, spans[from].start()));
            events.push(end("f", at, seen.start()));
        }
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ns" })
}

/// Of each span the number of its lane; the spans are in the order of their starts.
fn lanes(spans: &[Seen<'_>]) -> Vec<usize> {
    // Of each lane of a process the ends of the spans that are open there, the innermost at the end.
    let mut open: HashMap<ProcessId, Vec<Vec<u64>>> = HashMap::new();
    let lane = |seen: &Seen<'_>| {
        let process = open.entry(seen.span.process).or_default();
        for (number, lane) in process.iter_mut().enumerate() {
            while lane.last().is_some_and(|end| *end <= seen.start()) {
                lane.pop();
            }
            if lane.last().is_none_or(|end| *end >= seen.end()) {
                lane.push(seen.end());
                return number + 1;
            }
        }
        process.push(vec![seen.end()]);
        process.len()
    };
    spans.iter().map(lane).collect()
}

fn arguments(seen: &Seen<'_>) -> Json {
    let mut arguments: Map<String, Json> =
        seen.span.attributes.iter().map(|(key, value)| (key.to_string(), json!(text(value)))).collect();
    if let Status::Error(message) = &seen.span.status {
        arguments.insert("error".into(), json!(message));
    }
    arguments.insert("span_id".into(), json!(seen.span.span_id.to_string()));
    Json::Object(arguments)
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

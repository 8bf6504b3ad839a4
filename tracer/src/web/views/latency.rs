//! How long operations take: a table of all of them, and one of them over time.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::attributes::cut;
use super::duration::{percentile, step, step_start};
use crate::web::store::Traces;

/// Operations in the table: those with the most spans.
const MAX_OPERATIONS: usize = 2_000;
/// Operations that are told apart while they are counted.
const MAX_COUNTED: usize = 100_000;
/// Columns of a heat map.
const COLUMNS: u64 = 60;

#[derive(Debug, Default)]
struct Operation {
    durations: Vec<u64>,
    errors: u64,
}

/// Answers `/api/operations`.
pub fn operations(traces: &Traces) -> Json {
    let mut counted: HashMap<(&str, &str), Operation> = HashMap::new();
    let mut left_out = 0u64;
    for seen in traces.all_spans() {
        let key = (seen.service, &*seen.span.name);
        if counted.len() >= MAX_COUNTED && !counted.contains_key(&key) {
            left_out += 1;
            continue;
        }
        let operation = counted.entry(key).or_default();
        operation.durations.push(seen.duration());
        operation.errors += u64::from(seen.is_error());
    }
    let mut rows: Vec<_> = counted.into_iter().collect();
    rows.sort_unstable_by(|(a, one), (b, other)| (other.durations.len(), a).cmp(&(one.durations.len(), b)));
    let more = rows.len().saturating_sub(MAX_OPERATIONS);
    rows.truncate(MAX_OPERATIONS);
    let rows: Vec<Json> = rows
        .into_iter()
        .map(|((service, name), mut operation)| {
            json!({
                "service": cut(service),
                "name": cut(name),
                "count": operation.durations.len(),
                "errors": operation.errors,
                "p50": percentile(&mut operation.durations, 50),
                "p90": percentile(&mut operation.durations, 90),
                "p99": percentile(&mut operation.durations, 99),
                "max": operation.durations.iter().max(),
            })
        })
        .collect();
    json!({ "operations": rows, "more": more, "left_out": left_out })
}

/// An operation of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    service: String,
    name: String,
}

/// Answers `/api/latency`: how many spans of one operation are in each cell of time and duration.
pub fn heat_map(traces: &Traces, wanted: &Wanted) -> Json {
    let processes = traces.processes(&wanted.service);
    let spans: Vec<(u64, u64)> = traces
        .all_spans()
        .filter(|seen| seen.span.name == wanted.name && processes.contains(&seen.span.process))
        .map(|seen| (seen.start(), seen.duration()))
        .collect();
    let from = spans.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let to = spans.iter().map(|(start, _)| *start).max().unwrap_or(0);
    let width = ((to - from) / COLUMNS + 1).max(1);
    let mut cells: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    for (start, duration) in &spans {
        *cells.entry(((start - from) / width, step(*duration))).or_default() += 1;
    }
    let cells: Vec<Json> = cells
        .into_iter()
        .map(|((column, step), count)| {
            json!({ "column": column, "from": step_start(step), "to": step_start(step + 1), "row": step, "count": count })
        })
        .collect();
    json!({ "start": from.to_string(), "width": width, "columns": COLUMNS, "count": spans.len(), "cells": cells })
}

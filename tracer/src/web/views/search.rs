//! The list of traces that somebody looks for, and a histogram of how long they took.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::attributes::{self, Wanted};
use super::duration;
use crate::model::{HashMap, HashSet, ProcessId, TraceId};
use crate::web::store::{Seen, Trace, Traces};

/// Traces in a list, at most.
const MAX_ROWS: usize = 1_000;
/// Without a number in the query.
const ROWS: usize = 100;
/// Services that are named in a row.
const MAX_SERVICES: usize = 8;

/// What is looked for, as the URL has it; what is empty does not matter.
///
/// With a service, a name or an attribute a trace fits if one of its spans fits them all, and the durations are those of that
/// span, the longest one if there are more. Without, they are those of whole traces.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Query {
    service: String,
    name: String,
    min: String,
    max: String,
    error: bool,
    attr: String,
    sort: Sort,
    limit: Option<usize>,
}

/// Which traces come first.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    #[default]
    Newest,
    Longest,
    Largest,
}

/// What is wrong with a query.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no duration: write 1.5ms, 200us or 2s")]
pub struct QueryError(String);

/// A query that can be asked of spans.
struct Filter<'a> {
    processes: Option<HashSet<ProcessId>>,
    name: &'a str,
    attribute: Option<Wanted<'a>>,
    error: bool,
}

/// A trace that fits.
struct Found<'a> {
    id: TraceId,
    trace: &'a Trace,
    /// The span that fits, unless all of the trace is meant.
    span: Option<Seen<'a>>,
    duration: u64,
}

/// Answers `/api/traces`.
///
/// # Errors
/// When a duration is none.
pub fn search(traces: &Traces, query: &Query) -> Result<Json, QueryError> {
    let (min, max) = (bound(&query.min, 0)?, bound(&query.max, u64::MAX)?);
    let filter = Filter {
        processes: (!query.service.is_empty()).then(|| traces.processes(&query.service)),
        name: &query.name,
        attribute: Wanted::parse(&query.attr),
        error: query.error,
    };
    let mut found = if filter.is_for_spans() { filter.by_spans(traces) } else { filter.by_traces(traces) };
    found.retain(|found| (min..=max).contains(&found.duration));
    let mut steps: BTreeMap<u32, u64> = BTreeMap::new();
    for found in &found {
        *steps.entry(duration::step(found.duration)).or_default() += 1;
    }
    let all = found.len();
    // The id makes the order one and the same each time.
    found.sort_unstable_by_key(|found| {
        let first = match query.sort {
            Sort::Newest => found.trace.start,
            Sort::Longest => found.duration,
            Sort::Largest => found.trace.len() as u64,
        };
        (Reverse(first), found.id)
    });
    found.truncate(query.limit.unwrap_or(ROWS).min(MAX_ROWS));
    let rows: Vec<Json> = found.iter().map(|found| row(traces, found)).collect();
    Ok(json!({ "found": all, "by_span": filter.is_for_spans(), "histogram": histogram(&steps), "traces": rows }))
}

impl<'a> Filter<'a> {
    /// Whether a single span has to fit.
    fn is_for_spans(&self) -> bool {
        self.processes.is_some() || !self.name.is_empty() || self.attribute.is_some()
    }

    fn by_traces<'t>(&self, traces: &'t Traces) -> Vec<Found<'t>> {
        let fitting = traces.whole().filter(|(_, trace)| !self.error || trace.errors > 0);
        fitting.map(|(id, trace)| Found { id, trace, span: None, duration: trace.duration() }).collect()
    }

    /// Spans are looked at as they lie in memory: trace by trace, each of them would have to be fetched from far away.
    fn by_spans<'t>(&self, traces: &'t Traces) -> Vec<Found<'t>> {
        let longest = |longest: &mut HashMap<TraceId, Seen<'t>>, seen: Seen<'t>| {
            let known = longest.entry(seen.span.trace_id).or_insert(seen);
            if known.duration() <= seen.duration() {
                *known = seen;
            }
        };
        let collected = traces.collect(|spans: &mut HashMap<TraceId, Seen<'t>>, seen| {
            if self.fits(&seen) {
                longest(spans, seen);
            }
        });
        let mut all = HashMap::default();
        collected.into_iter().flat_map(HashMap::into_values).for_each(|seen| longest(&mut all, seen));
        let found = |(id, seen): (TraceId, Seen<'t>)| {
            Some(Found { id, trace: traces.get(id)?, span: Some(seen), duration: seen.duration() })
        };
        all.into_iter().filter_map(found).collect()
    }

    fn fits(&self, seen: &Seen<'_>) -> bool {
        (self.name.is_empty() || seen.span.name == self.name)
            && self.processes.as_ref().is_none_or(|processes| processes.contains(&seen.span.process))
            && (!self.error || seen.is_error())
            && self.attribute.as_ref().is_none_or(|wanted| wanted.fits(seen))
    }
}

fn bound(text: &str, without: u64) -> Result<u64, QueryError> {
    if text.is_empty() {
        return Ok(without);
    }
    duration::parse(text).ok_or_else(|| QueryError(text.to_owned()))
}

/// Every step from the shortest to the longest, also the empty ones.
fn histogram(steps: &BTreeMap<u32, u64>) -> Vec<Json> {
    let (Some((&first, _)), Some((&last, _))) = (steps.first_key_value(), steps.last_key_value()) else {
        return Vec::new();
    };
    let bar = |step| {
        let count = steps.get(&step).copied().unwrap_or(0);
        json!({ "from": duration::step_start(step), "to": duration::step_start(step + 1), "count": count })
    };
    (first..=last).map(bar).collect()
}

fn row(traces: &Traces, found: &Found<'_>) -> Json {
    let services: BTreeSet<&str> = traces.spans(found.trace).map(|seen| seen.service).collect();
    let root = traces.root(found.trace);
    json!({
        "id": found.id.to_string(),
        "start": found.trace.start.to_string(),
        "duration": found.trace.duration(),
        "service": root.map_or("", |root| root.service),
        "name": root.map_or("", |root| attributes::cut(&root.span.name)),
        "spans": found.trace.len(),
        "errors": found.trace.errors,
        "services": services.iter().take(MAX_SERVICES).map(|name| attributes::cut(name)).collect::<Vec<_>>(),
        "services_more": services.len().saturating_sub(MAX_SERVICES),
        "fits": found.span.map(|seen| json!({
            "service": attributes::cut(seen.service),
            "name": attributes::cut(&seen.span.name),
            "duration": found.duration,
        })),
    })
}

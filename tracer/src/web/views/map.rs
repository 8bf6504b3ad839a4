//! Services and servers, and what passes between them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use super::attributes::cut;
use super::duration::percentile;
use crate::model::{SpanId, SpanKind, Value};
use crate::web::store::{Seen, Traces};

/// Services and servers that are told apart; a program that invents names does not fill the page.
const MAX_NODES: usize = 500;

/// A service, or a server that it talks to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    kind: &'static str,
    name: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    spans: u64,
    errors: u64,
    /// Traces that begin here.
    begins: u64,
}

#[derive(Debug, Default)]
struct Edge {
    /// Of each command, call or message, how long it took.
    durations: Vec<u64>,
    errors: u64,
}

/// Answers `/api/map`.
pub fn map(traces: &Traces) -> Json {
    let mut drawn = Drawing::default();
    let mut times: Option<(u64, u64)> = None;
    let mut spans: HashMap<SpanId, Seen<'_>> = HashMap::new();
    for (_, trace) in traces.whole() {
        times = Some(times.map_or((trace.start, trace.end), |(from, to)| (from.min(trace.start), to.max(trace.end))));
        spans.clear();
        spans.extend(traces.spans(trace).map(|seen| (seen.span.span_id, seen)));
        for seen in traces.spans(trace) {
            drawn.count(&seen);
            if let Some(server) = database(&seen) {
                drawn.edge(service(&seen), server, "commands", seen.duration(), seen.is_error());
            }
            let parent = seen.span.parent.and_then(|parent| spans.get(&parent));
            if let Some(parent) = parent.filter(|parent| parent.service != seen.service && !seen.is_servers_side()) {
                // A call takes as long as its client waits; a message, until it is taken.
                let (kind, duration) = match parent.span.kind {
                    SpanKind::Client => ("calls", parent.duration()),
                    _ => ("messages", seen.start().saturating_sub(parent.end())),
                };
                drawn.edge(service(parent), service(&seen), kind, duration, seen.is_error() || parent.is_error());
            }
        }
    }
    let seconds = times.map_or(0.0, |(from, to)| (to - from) as f64 / 1e9);
    drawn.json(seconds)
}

/// What is found on the way.
#[derive(Debug, Default)]
struct Drawing {
    nodes: BTreeMap<Name, Node>,
    edges: BTreeMap<(Name, Name, &'static str), Edge>,
    left_out: u64,
}

impl Drawing {
    fn has_room(&self, name: &Name) -> bool {
        self.nodes.len() < MAX_NODES || self.nodes.contains_key(name)
    }

    fn count(&mut self, seen: &Seen<'_>) {
        let name = service(seen);
        if !self.has_room(&name) {
            self.left_out += 1;
            return;
        }
        let node = self.nodes.entry(name).or_default();
        node.spans += 1;
        node.errors += u64::from(seen.is_error());
        node.begins += u64::from(seen.span.parent.is_none());
    }

    fn edge(&mut self, from: Name, to: Name, kind: &'static str, duration: u64, error: bool) {
        if !self.has_room(&from) || !self.has_room(&to) {
            self.left_out += 1;
            return;
        }
        for name in [&from, &to] {
            if !self.nodes.contains_key(name) {
                self.nodes.insert(name.clone(), Node::default());
            }
        }
        let edge = self.edges.entry((from, to, kind)).or_default();
        edge.durations.push(duration);
        edge.errors += u64::from(error);
    }

    fn json(self, seconds: f64) -> Json {
        let place: BTreeMap<&Name, usize> = self.nodes.keys().enumerate().map(|(place, name)| (name, place)).collect();
        let edges: Vec<Json> = self
            .edges
            .iter()
            .map(|((from, to, kind), edge)| {
                let mut durations = edge.durations.clone();
                json!({
                    "from": place[from],
                    "to": place[to],
                    "kind": kind,
                    "count": durations.len(),
                    "errors": edge.errors,
                    "p50": percentile(&mut durations, 50),
                    "p99": percentile(&mut durations, 99),
                })
            })
            .collect();
        let nodes: Vec<Json> = self
            .nodes
            .iter()
            .map(|(name, node)| {
                json!({
                    "kind": name.kind, "name": cut(&name.name),
                    "spans": node.spans, "errors": node.errors, "begins": node.begins,
                })
            })
            .collect();
        json!({ "seconds": seconds, "nodes": nodes, "edges": edges, "left_out": self.left_out })
    }
}

fn service(seen: &Seen<'_>) -> Name {
    Name { kind: "service", name: seen.service.to_owned() }
}

/// The server of a client's command.
fn database(seen: &Seen<'_>) -> Option<Name> {
    let system = seen.text("db.system.name").filter(|_| seen.span.kind == SpanKind::Client)?;
    let address = seen.text("server.address").or_else(|| seen.text("network.transport")).unwrap_or("somewhere");
    let port = match seen.attribute("network.peer.port").or_else(|| seen.attribute("server.port")) {
        Some(Value::Int(port)) => format!(":{port}"),
        _ => String::new(),
    };
    Some(Name { kind: "server", name: format!("{system} {address}{port}") })
}

//! Who made whom wait at Redis servers, and what a server did in the worst moments.
//!
//! All of it is in the spans: a command that waited links to those who had the server's thread, and a server that is attached to has spans
//! of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::attributes::{cut, text};
use crate::model::{Attribute, ProcessId, SpanId, SpanKind, Value};
use crate::web::store::{Seen, Traces};

/// Pairs that are told apart, and shown.
const MAX_PAIRS: usize = 4_096;
/// Moments that are shown.
const MOMENTS: usize = 10;
/// Pieces of the server's time that are shown of a moment.
const MAX_SLOTS: usize = 500;

/// Who held the server, with what, and who waited with what for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Pair {
    holder: String,
    held_by: String,
    kind: String,
    waiting: String,
    command: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    seconds: f64,
    max: f64,
    count: u64,
}

/// A command that waited.
struct Wait<'a> {
    seen: Seen<'a>,
    queue: f64,
}

/// Answers `/api/redis`.
pub fn redis(traces: &Traces) -> Json {
    let mut pairs: HashMap<Pair, Sum> = HashMap::new();
    let mut left_out = 0u64;
    let (mut commands, mut explained) = (0u64, 0u64);
    let mut waits: Vec<Wait<'_>> = Vec::new();
    for seen in traces.all_spans() {
        if seen.span.kind != SpanKind::Client || seen.text("db.system.name") != Some("redis") {
            continue;
        }
        commands += 1;
        let Some(queue) = seconds(&seen.span.attributes, "tracer.redis.queue") else { continue };
        explained += 1;
        for (pair, seconds) in blamed(&seen) {
            if pairs.len() >= MAX_PAIRS && !pairs.contains_key(&pair) {
                left_out += 1;
                continue;
            }
            let sum = pairs.entry(pair).or_default();
            sum.seconds += seconds;
            sum.max = sum.max.max(seconds);
            sum.count += 1;
        }
        if seen.attribute("tracer.redis.blocked_by").is_some() {
            waits.push(Wait { seen, queue });
        }
    }
    let waited = waits.len();
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|(a, one), (b, other)| other.seconds.total_cmp(&one.seconds).then_with(|| a.cmp(b)));
    let pairs: Vec<Json> = pairs
        .iter()
        .map(|(pair, sum)| {
            json!({
                "holder": cut(&pair.holder), "held_by": cut(&pair.held_by), "kind": cut(&pair.kind),
                "waiting": cut(&pair.waiting), "command": cut(&pair.command),
                "total": ns(sum.seconds), "max": ns(sum.max), "count": sum.count,
            })
        })
        .collect();
    json!({
        "commands": commands,
        "explained": explained,
        "waited": waited,
        "pairs": pairs,
        "left_out": left_out,
        "moments": moments(traces, waits),
    })
}

/// Whom a command waited for, and how long.
fn blamed(seen: &Seen<'_>) -> Vec<(Pair, f64)> {
    let pair = |holder: String, held_by: String, kind: String| Pair {
        holder,
        held_by,
        kind,
        waiting: seen.service.to_owned(),
        command: seen.span.name.to_string(),
    };
    let mut found = Vec::new();
    for link in &seen.span.links {
        let find = |name| find(&link.attributes, name).map(|value| text(value).into_owned());
        let (Some(command), Some(seconds)) =
            (find("tracer.redis.blocked_by"), seconds(&link.attributes, "tracer.redis.blocked_by.duration"))
        else {
            continue;
        };
        let service = find("tracer.redis.blocked_by.service").unwrap_or_default();
        found.push((pair(service, command, find("tracer.redis.blocked_by.kind").unwrap_or_default()), seconds));
    }
    let own = seen.text("tracer.redis.blocked_by.server");
    let seconds = |name| seconds(&seen.span.attributes, name);
    if let (Some(own), Some(seconds)) = (own, seconds("tracer.redis.blocked_by.server.duration")) {
        found.push((pair("(server)".into(), own.to_owned(), "server".into()), seconds));
    }
    if let Some(seconds) = seconds("tracer.redis.blocked_by.rest") {
        found.push((pair("(others)".into(), String::new(), "rest".into()), seconds));
    }
    found
}

/// The longest waits of which no two were at the same time, each with what the server did meanwhile.
fn moments(traces: &Traces, mut waits: Vec<Wait<'_>>) -> Vec<Json> {
    waits.sort_by_key(|wait| (Reverse(ns(wait.queue)), wait.seen.start()));
    let mut moments: Vec<Wait<'_>> = Vec::new();
    for wait in waits {
        let apart = |other: &Wait<'_>| wait.seen.end() <= other.seen.start() || wait.seen.start() >= other.seen.end();
        if moments.iter().all(apart) {
            moments.push(wait);
        }
        if moments.len() == MOMENTS {
            break;
        }
    }
    let slots = Slots::find(traces, &moments);
    moments.iter().map(|wait| moment(wait, &slots)).collect()
}

fn moment(wait: &Wait<'_>, slots: &Slots<'_>) -> Json {
    let seen = &wait.seen;
    let part = |name| seconds(&seen.span.attributes, name).map(ns);
    let within = |at: u64| at.clamp(seen.start(), seen.end()) - seen.start();
    let timeline: Vec<Json> = slots
        .of(wait)
        .take(MAX_SLOTS)
        .map(|slot| {
            json!({
                "from": within(slot.start()),
                "to": within(slot.end()),
                "client": cut(slots.client(slot)),
                "command": cut(&slot.span.name),
            })
        })
        .collect();
    json!({
        "trace": seen.span.trace_id.to_string(),
        "start": seen.start().to_string(),
        "duration": seen.duration(),
        "service": cut(seen.service),
        "command": cut(&seen.span.name),
        "queue": ns(wait.queue),
        "service_time": part("tracer.redis.service"),
        "network": part("tracer.redis.network"),
        "why": seen.text("tracer.redis.blocked_by").map(cut),
        "timeline": timeline,
    })
}

/// The spans of servers in the moments that are shown.
struct Slots<'a> {
    spans: Vec<Seen<'a>>,
    /// Services of the clients whose commands these are.
    clients: HashMap<SpanId, &'a str>,
    /// Of each command that waited the server that answered it.
    servers: BTreeMap<SpanId, ProcessId>,
}

impl<'a> Slots<'a> {
    fn find(traces: &'a Traces, moments: &[Wait<'_>]) -> Self {
        let waiting: HashSet<SpanId> = moments.iter().map(|wait| wait.seen.span.span_id).collect();
        let mut spans = Vec::new();
        let mut servers = BTreeMap::new();
        for seen in traces.all_spans().filter(Seen::is_servers_side) {
            let meets = |wait: &Wait<'_>| seen.start() < wait.seen.end() && wait.seen.start() < seen.end();
            if moments.iter().any(meets) {
                spans.push(seen);
            }
            if let Some(parent) = seen.span.parent.filter(|parent| waiting.contains(parent)) {
                servers.insert(parent, seen.span.process);
            }
        }
        spans.sort_by_key(Seen::start);
        let asked: HashSet<SpanId> = spans.iter().filter_map(|seen| seen.span.parent).collect();
        let clients = traces.all_spans().filter(|seen| asked.contains(&seen.span.span_id));
        let clients = clients.map(|seen| (seen.span.span_id, seen.service)).collect();
        Self { spans, clients, servers }
    }

    /// What the server did while a command waited for it.
    fn of<'s>(&'s self, wait: &'s Wait<'_>) -> impl Iterator<Item = &'s Seen<'a>> {
        let server = self.servers.get(&wait.seen.span.span_id);
        self.spans.iter().filter(move |seen| {
            server == Some(&seen.span.process) && seen.start() < wait.seen.end() && wait.seen.start() < seen.end()
        })
    }

    fn client<'s>(&'s self, slot: &'s Seen<'a>) -> &'s str {
        let traced = slot.span.parent.and_then(|parent| self.clients.get(&parent).copied());
        traced.or_else(|| slot.text("client.address")).unwrap_or("(unknown)")
    }
}

fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a Value> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

fn seconds(attributes: &[Attribute], name: &str) -> Option<f64> {
    match find(attributes, name)? {
        Value::Float(seconds) if *seconds >= 0.0 => Some(*seconds),
        Value::Int(seconds) if *seconds >= 0 => Some(*seconds as f64),
        _ => None,
    }
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

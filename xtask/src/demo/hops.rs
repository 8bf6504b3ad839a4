//! What an order met on its way, from the spans of its trace.
//!
//! A hop is time of one kind: on the way between two processes, in a queue inside one, in a service, or in a call to a
//! server. Services are told apart by what came in: an order and its report are two visits.

use std::collections::HashMap;

use super::spans::{CLIENT, SERVER, Span};

/// One trace, its spans by time.
#[derive(Debug)]
pub struct Trace<'a> {
    pub spans: Vec<&'a Span>,
}

/// Time of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub what: String,
    /// A part of the hop before it that is not indented.
    pub inner: bool,
    /// Nanoseconds after the trace's start.
    pub at: u64,
    /// Nanoseconds.
    pub length: u64,
}

/// All traces, the longest first.
pub fn traces(spans: &[Span]) -> Vec<Trace<'_>> {
    let mut by_id: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in spans {
        by_id.entry(&span.trace).or_default().push(span);
    }
    let mut traces: Vec<Trace<'_>> = by_id.into_values().map(Trace::new).collect();
    traces.sort_by_key(|trace| (std::cmp::Reverse(trace.length()), trace.spans[0].start));
    traces
}

impl<'a> Trace<'a> {
    fn new(mut spans: Vec<&'a Span>) -> Self {
        spans.sort_by_key(|span| (span.start, span.end));
        Self { spans }
    }

    /// When it begins.
    pub fn start(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.start)
    }

    /// Nanoseconds from the first start to the last end.
    pub fn length(&self) -> u64 {
        self.spans.iter().map(|span| span.end).max().unwrap_or(0).saturating_sub(self.start())
    }

    /// What the order met, in order of time.
    pub fn hops(&self) -> Vec<Hop> {
        let by_id: HashMap<&str, &Span> = self.spans.iter().map(|span| (span.id.as_str(), *span)).collect();
        let parent = |span: &Span| by_id.get(span.parent.as_str()).copied();
        let mut hops = Vec::new();
        for entry in self.spans.iter().filter(|span| is_entry(span)) {
            let from = parent(entry).filter(|parent| parent.service != entry.service);
            let message = entry.name.trim_start_matches("decode ");
            if let (Some(from), Some(transit)) = (from, entry.transit) {
                let what = format!("{} → {}: {message}", from.service, entry.service);
                hops.push(self.hop(what, entry.start - transit, entry.start));
            }
            let inside = self.inside(entry, &by_id);
            // A server's time is that of its call.
            let end = inside.iter().map(|span| span.end).max().unwrap_or(entry.end);
            let what = format!("{}: {message}", entry.service);
            hops.push(self.hop(what.clone(), entry.start, end));
            if let Some(process) = inside.iter().find(|span| span.name.starts_with("process ")) {
                hops.push(self.inner(format!("{what}: in the queue"), entry.end, process.start));
            }
            for call in inside.iter().filter(|span| span.kind == CLIENT) {
                let server = self.spans.iter().find(|span| span.kind == SERVER && span.parent == call.id);
                hops.push(self.inner(format!("{what}: {}", call.name), call.start, call.end));
                if let Some(server) = server {
                    let way = call.length().saturating_sub(server.length());
                    let what = format!("{what}: {}: on the way, both ways", call.name);
                    hops.push(self.inner(what, call.start, call.start + way));
                }
            }
        }
        hops
    }

    /// What happened in the service because of `entry`: all below it in the same service.
    fn inside(&self, entry: &Span, by_id: &HashMap<&str, &'a Span>) -> Vec<&'a Span> {
        let below = |span: &Span| {
            let mut at = span;
            // No trace is deeper than it has spans.
            for _ in 0..self.spans.len() {
                if at.id == entry.id {
                    return true;
                }
                match by_id.get(at.parent.as_str()) {
                    Some(parent) if parent.service == entry.service => at = parent,
                    _ => return false,
                }
            }
            false
        };
        self.spans.iter().copied().filter(|span| span.service == entry.service && below(span)).collect()
    }

    fn hop(&self, what: String, start: u64, end: u64) -> Hop {
        let at = start.saturating_sub(self.start());
        Hop { what, inner: false, at, length: end.saturating_sub(start) }
    }

    fn inner(&self, what: String, start: u64, end: u64) -> Hop {
        Hop { inner: true, ..self.hop(what, start, end) }
    }
}

/// A visit begins with a decode or with a call that is served.
fn is_entry(span: &Span) -> bool {
    span.name.starts_with("decode ") || span.kind == SERVER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(service: &str, name: &str, id: &str, parent: &str, start: u64, end: u64) -> Span {
        let [service, name, id, parent] = [service, name, id, parent].map(str::to_owned);
        Span { service, name, id, parent, trace: "t".to_owned(), start, end, ..Span::default() }
    }

    #[test]
    fn an_order_through_two_services() {
        let spans = [
            span("a", "decode Order", "1", "", 100, 110),
            span("a", "process Order", "2", "1", 130, 190),
            span("a", "encode Request", "3", "2", 150, 160),
            Span { transit: Some(40), ..span("b", "decode Request", "4", "3", 200, 205) },
            Span { kind: CLIENT, ..span("b", "x.C/Do", "5", "4", 210, 250) },
            Span { kind: SERVER, ..span("c", "x.C/Do", "6", "5", 220, 230) },
        ];
        let traces = traces(&spans);
        let [trace] = &traces[..] else { panic!("{traces:?}") };
        assert_eq!(trace.length(), 150);
        let hops: Vec<(String, u64, u64)> =
            trace.hops().into_iter().map(|hop| (hop.what, hop.at, hop.length)).collect();
        let expected = [
            ("a: Order", 0, 90),
            ("a: Order: in the queue", 10, 20),
            ("a → b: Request", 60, 40),
            ("b: Request", 100, 50),
            ("b: Request: x.C/Do", 110, 40),
            ("b: Request: x.C/Do: on the way, both ways", 110, 30),
            ("c: x.C/Do", 120, 10),
        ];
        assert_eq!(hops, expected.map(|(what, at, length)| (what.to_owned(), at, length)));
    }
}

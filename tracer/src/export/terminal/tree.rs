//! The spans of a trace as a tree.

use std::collections::HashMap;

use super::line::{Line, Style};
use super::{Held, Look, Part};
use crate::export::batch::service_name;
use crate::model::{Span, SpanId, Status, Value};

/// Levels that are indented; deeper ones stay below each other.
const MAX_DEPTH: usize = 16;
/// Columns of the service name.
const MAX_SERVICE_WIDTH: usize = 18;
/// Attributes that say what everybody sees in the name or nobody asks for.
const HIDDEN: [&str; 7] = [
    "db.system.name",
    "db.operation.name",
    "messaging.operation.type",
    "thread.id",
    "error.type",
    QUERY_TEXT,
    BLOCKED_BY,
];
const QUERY_TEXT: &str = "db.query.text";
const BLOCKED_BY: &str = "tracer.redis.blocked_by";

/// A line for the trace and one for each span, at most `max_spans`.
pub(super) fn render(part: &Part, look: Look, max_spans: usize) -> String {
    let mut out = String::new();
    let rows = order(&part.spans);
    let start = part.spans.iter().map(|held| held.span().start_ns).min().unwrap_or(0);
    let end = part.spans.iter().map(|held| held.span().end_ns).max().unwrap_or(start);
    header(&mut out, part, look, start, end);
    let width = rows
        .iter()
        .take(max_spans)
        .map(|row| service(&part.spans[row.index]).chars().take(MAX_SERVICE_WIDTH).count())
        .max()
        .unwrap_or(0);
    for row in rows.iter().take(max_spans) {
        let held = &part.spans[row.index];
        let span = held.span();
        let mut line = Line::start(&mut out, look.width, look.colour);
        let after_start = duration(span.start_ns.saturating_sub(start));
        let length = duration(span.end_ns.saturating_sub(span.start_ns));
        line.put(Style::Dim, &format!("{after_start:>9} "));
        line.put(Style::Plain, &format!("{length:>9}  "));
        line.column(Style::Dim, service(held), width);
        line.put(Style::Dim, &format!("  {}", row.branch));
        name_and_details(&mut line, span);
        line.end();
    }
    if rows.len() > max_spans {
        out.push_str(&format!("          … {} more spans\n", rows.len() - max_spans));
    }
    out
}

fn header(out: &mut String, part: &Part, look: Look, start: u64, end: u64) {
    let spans = part.spans.len();
    let unix_ns = part.spans.first().map_or(0, |held| held.batch.unix_ns(start));
    let mut line = Line::start(out, look.width, look.colour);
    line.put(Style::Plain, &format!("{} ", time_of_day(unix_ns)));
    line.put(Style::Bold, &format!("trace {}", part.trace_id));
    let continued = if part.continued { " (continued)" } else { "" };
    let plural = if spans == 1 { "" } else { "s" };
    line.put(Style::Plain, &format!("{continued} {spans} span{plural} {}", duration(end.saturating_sub(start))));
    line.end();
}

fn service(held: &Held) -> &str {
    service_name(held.batch.resource(held.span().process))
}

fn name_and_details(line: &mut Line<'_>, span: &Span) {
    match &span.status {
        Status::Error(message) => {
            line.put(Style::Red, &span.name);
            line.put(Style::Red, "  ERROR");
            let error_type = span.attributes.iter().find(|(key, _)| key == "error.type");
            if let Some((_, value)) = error_type {
                line.put(Style::Red, &format!(" {}", value_text(value)));
            }
            if !message.is_empty() {
                line.put(Style::Red, " ");
                line.put(Style::Red, message);
            }
        }
        Status::Unset | Status::Ok => line.put(Style::Plain, &span.name),
    }
    if let Some((key, value)) = span.attributes.iter().find(|(key, _)| key == QUERY_TEXT) {
        attribute(line, key, value);
    }
    // Why it took so long.
    if let Some((_, value)) = span.attributes.iter().find(|(key, _)| key == BLOCKED_BY) {
        line.put(Style::Bold, "  blocked by ");
        line.put(Style::Bold, &value_text(value));
    }
    for (key, value) in span.attributes.iter().filter(|(key, _)| !HIDDEN.contains(&key.as_ref())) {
        attribute(line, key, value);
    }
}

fn attribute(line: &mut Line<'_>, key: &str, value: &Value) {
    line.put(Style::Dim, "  ");
    line.put(Style::Dim, key);
    line.put(Style::Dim, "=");
    line.put(Style::Dim, &value_text(value));
}

fn value_text(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::Str(text) => text.as_str().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Float(number) => number.to_string().into(),
        Value::Bool(truth) => truth.to_string().into(),
        Value::List(texts) => texts.join(" ").into(),
    }
}

/// A span and what stands left of its name.
struct Row {
    index: usize,
    branch: String,
}

/// Parents before children, siblings by start. Spans whose parent is not here stand at the left, and so does one span of
/// every ring of parents, which only a broken or hostile target makes.
fn order(spans: &[Held]) -> Vec<Row> {
    let mut by_id: HashMap<SpanId, usize> = HashMap::new();
    for (index, held) in spans.iter().enumerate() {
        by_id.entry(held.span().span_id).or_insert(index);
    }
    let mut by_start: Vec<usize> = (0..spans.len()).collect();
    by_start.sort_by_key(|&index| spans[index].span().start_ns);
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &index in &by_start {
        match spans[index].span().parent.and_then(|parent| by_id.get(&parent)) {
            Some(&parent) if parent != index => children.entry(parent).or_default().push(index),
            _ => roots.push(index),
        }
    }
    let mut rows = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    for root in roots.into_iter().chain(by_start) {
        walk(root, &children, &mut seen, &mut rows);
    }
    rows
}

fn walk(root: usize, children: &HashMap<usize, Vec<usize>>, seen: &mut [bool], rows: &mut Vec<Row>) {
    // Index, what its descendants begin with, its own branch, its depth.
    let mut stack = vec![(root, String::new(), String::new(), 0)];
    while let Some((index, prefix, branch, depth)) = stack.pop() {
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        rows.push(Row { index, branch });
        let siblings = children.get(&index).map_or(&[][..], Vec::as_slice);
        for (position, &child) in siblings.iter().enumerate().rev() {
            let last = position + 1 == siblings.len();
            let (fork, below) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
            let branch = format!("{prefix}{fork}");
            let prefix = if depth < MAX_DEPTH { format!("{prefix}{below}") } else { prefix.clone() };
            stack.push((child, prefix, branch, depth + 1));
        }
    }
}

/// Three significant digits and a unit.
pub(in crate::export) fn duration(ns: u64) -> String {
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..999_500 => (value / 1e3, "us"),
        999_500..999_500_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// `hh:mm:ss.mmm` of the day, UTC.
fn time_of_day(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000;
    let s = ms / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}Z", s / 3_600 % 24, s / 60 % 60, s % 60, ms % 1_000)
}

//! Spans of a file of OTLP-JSON lines, as `--export file:PATH` writes them.
//!
//! What is no request, and a span without ids, is counted and left out. Names and texts that come again and again are kept once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link as OtlpLink};
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status as OtlpStatus};
use prost::Message as _;

use crate::model::{
    Attribute, Link, ProcessId, Resource, Span, SpanContext, SpanEvent, SpanId, SpanKind, Status, Text, TraceId, Value,
};

/// Bytes of a line, at most.
const MAX_LINE: u64 = 512 << 20;
/// Names and texts that are kept once.
const MAX_KNOWN: usize = 100_000;
/// Longer texts are seldom the same.
const MAX_KNOWN_BYTES: usize = 64;
const IS_REMOTE: u32 = 0x200;
const STATUS_OK: i32 = 1;
const STATUS_ERROR: i32 = 2;

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Lines that are no requests.
    pub lines: u64,
    /// Spans without a valid id, or of an unknown kind.
    pub spans: u64,
}

/// A file that is being read.
#[derive(Debug)]
pub struct OtlpFile {
    file: BufReader<File>,
    line: Vec<u8>,
    names: HashSet<&'static str>,
    texts: HashSet<Text>,
    processes: HashMap<Vec<u8>, ProcessId>,
    damage: Damage,
}

/// What a line says.
#[derive(Debug, Default)]
pub struct Line {
    /// Resources of processes that are new.
    pub resources: Vec<Resource>,
    /// Spans; their times are nanoseconds since 1970.
    pub spans: Vec<Span>,
}

impl OtlpFile {
    /// Opens the file; `None` if it begins with something else.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        let begin = file.fill_buf()?;
        // An empty file is an export without spans.
        if begin.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Ok(None);
        }
        let (names, texts, processes) = (HashSet::new(), HashSet::new(), HashMap::new());
        Ok(Some(Self { file, line: Vec::new(), names, texts, processes, damage: Damage::default() }))
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.line.clear();
            let length = self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
            if length == 0 {
                return Ok(None);
            }
            let line = self.line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            // A list would be taken for the fields of a request in their order.
            let request = line.starts_with(b"{").then(|| serde_json::from_slice::<ExportTraceServiceRequest>(line));
            match request {
                Some(Ok(request)) => return Ok(Some(self.read(request))),
                _ => self.damage.lines += 1,
            }
        }
    }

    /// What could not be read so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn read(&mut self, request: ExportTraceServiceRequest) -> Line {
        let mut line = Line::default();
        for group in request.resource_spans {
            let resource = group.resource.unwrap_or_default();
            let key = resource.encode_to_vec();
            let process = match self.processes.get(&key) {
                Some(process) => *process,
                None => {
                    let attributes = self.attributes(resource.attributes);
                    let pid = attributes.iter().find(|(key, _)| key == "process.pid");
                    let pid = match pid {
                        Some((_, Value::Int(pid))) => u32::try_from(*pid).unwrap_or(0),
                        _ => 0,
                    };
                    // There is no start time: the number tells those with one and the same pid apart.
                    let process = ProcessId { pid, start_time: self.processes.len() as u64 };
                    self.processes.insert(key, process);
                    line.resources.push(Resource { process, attributes });
                    process
                }
            };
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                match self.span(process, span) {
                    Some(span) => line.spans.push(span),
                    None => self.damage.spans += 1,
                }
            }
        }
        line
    }

    fn span(&mut self, process: ProcessId, span: OtlpSpan) -> Option<Span> {
        Some(Span {
            process,
            trace_id: trace_id(&span.trace_id)?,
            span_id: span_id(&span.span_id)?,
            parent: span_id(&span.parent_span_id),
            parent_remote: span.flags & IS_REMOTE != 0,
            flags: span.flags as u8,
            trace_state: span.trace_state.into(),
            name: self.text(span.name),
            kind: kind(span.kind)?,
            start_ns: span.start_time_unix_nano,
            end_ns: span.end_time_unix_nano,
            attributes: self.attributes(span.attributes),
            status: status(span.status),
            links: span.links.into_iter().filter_map(|link| self.link(link)).collect(),
            events: span.events.into_iter().map(|event| self.event(event)).collect(),
        })
    }

    fn link(&mut self, link: OtlpLink) -> Option<Link> {
        let context = SpanContext {
            trace_id: trace_id(&link.trace_id)?,
            span_id: span_id(&link.span_id)?,
            flags: link.flags as u8,
            remote: link.flags & IS_REMOTE != 0,
            trace_state: link.trace_state.into(),
        };
        Some(Link { context, attributes: self.attributes(link.attributes) })
    }

    fn event(&mut self, event: Event) -> SpanEvent {
        SpanEvent {
            time_ns: event.time_unix_nano,
            name: self.text(event.name),
            attributes: self.attributes(event.attributes),
        }
    }

    fn attributes(&mut self, attributes: Vec<KeyValue>) -> Vec<Attribute> {
        let mut attribute = |pair: KeyValue| {
            let value = self.value(pair.value.and_then(|value| value.value)?);
            Some((self.key(pair.key), value))
        };
        attributes.into_iter().filter_map(&mut attribute).collect()
    }

    fn value(&mut self, value: OtlpValue) -> Value {
        match value {
            OtlpValue::StringValue(text) => Value::Str(self.text(text)),
            OtlpValue::BoolValue(truth) => Value::Bool(truth),
            OtlpValue::IntValue(number) => Value::Int(number),
            OtlpValue::DoubleValue(number) => Value::Float(number),
            OtlpValue::ArrayValue(list) => Value::List(list.values.into_iter().map(element).collect()),
            other => Value::Str(json(&other).into()),
        }
    }

    /// The names of a program are few, and are kept for as long as this process runs.
    fn key(&mut self, name: String) -> Cow<'static, str> {
        if let Some(known) = self.names.get(name.as_str()) {
            return Cow::Borrowed(known);
        }
        if self.names.len() >= MAX_KNOWN || name.len() > MAX_KNOWN_BYTES {
            return Cow::Owned(name);
        }
        let known: &'static str = Box::leak(name.into_boxed_str());
        self.names.insert(known);
        Cow::Borrowed(known)
    }

    fn text(&mut self, text: String) -> Text {
        if let Some(known) = self.texts.get(text.as_str()) {
            return known.clone();
        }
        let text = Text::from(text);
        if text.is_heap_allocated() && self.texts.len() < MAX_KNOWN && text.len() <= MAX_KNOWN_BYTES {
            self.texts.insert(text.clone());
        }
        text
    }
}

fn element(value: AnyValue) -> String {
    match value.value {
        Some(OtlpValue::StringValue(text)) => text,
        Some(other) => json(&other),
        None => String::new(),
    }
}

/// What has no type of its own here is shown as it was written.
fn json(value: &OtlpValue) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    Some(TraceId(bytes.try_into().ok()?)).filter(|id| id.is_valid())
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    Some(SpanId(bytes.try_into().ok()?)).filter(|id| id.is_valid())
}

fn kind(kind: i32) -> Option<SpanKind> {
    Some(match kind {
        // Not said: that of a span that nobody has thought about.
        0 | 1 => SpanKind::Internal,
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => return None,
    })
}

fn status(status: Option<OtlpStatus>) -> Status {
    match status {
        Some(status) if status.code == STATUS_ERROR => Status::Error(status.message.into()),
        Some(status) if status.code == STATUS_OK => Status::Ok,
        _ => Status::Unset,
    }
}

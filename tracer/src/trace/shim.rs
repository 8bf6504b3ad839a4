//! Spans that the shim made: the ids, times and parent are its own; nothing is guessed.

use std::borrow::Cow;

use smol_str::format_smolstr;
use tracer_common::record::Short;
use tracer_shim::record::{self as shim, Item, Kind, NO_SIZE, NO_THRESHOLD, Operation, ParsedSpan, SpanRecord};

use crate::model::{
    Attribute, FLAG_SAMPLED, Link, ProcessId, Span, SpanContext, SpanEvent, SpanId, SpanKind, Status, Text, TraceId,
    Value,
};
use crate::trace::correlator::Correlator;
use crate::trace::parents::position::Place;
use crate::trace::sampler::threshold_trace_state;
use crate::trace::waits::spans::seconds;

impl Correlator {
    /// One span of a shim.
    pub(super) fn shim(&mut self, head: &Short, bytes: &[u8]) {
        self.counts.shim += 1;
        let Some(&process) = self.processes.get(&head.pid) else {
            self.counts.shim_unknown += 1;
            return;
        };
        let Ok(record) = SpanRecord::parse(bytes) else {
            self.counts.shim_malformed += 1;
            return;
        };
        self.counts.shim_traced += 1;
        let parent = SpanId(record.head.parent_span_id);
        let trace_state = match record.head.threshold {
            NO_THRESHOLD => Cow::Borrowed(""),
            threshold => Cow::Owned(threshold_trace_state(threshold)),
        };
        let place = Place {
            context: SpanContext {
                trace_id: TraceId(record.head.trace_id),
                span_id: SpanId(record.head.span_id),
                // An unsampled span does not reach the site: the shim has decided.
                flags: record.head.trace_flags | FLAG_SAMPLED,
                remote: false,
                trace_state,
            },
            parent: parent.is_valid().then_some(parent),
            parent_remote: record.head.flags & shim::PARENT_REMOTE != 0,
        };
        if record.operation == Operation::Encode {
            self.encodes.ended(place.context.trace_id, place.context.span_id, record.head.end_ns);
        }
        self.emit(&place, |this| {
            let mut span = span(&record, process, &place);
            if record.operation == Operation::Decode
                && let Some(parent) = place.parent
                && let Some(nanos) = this.encodes.transit(place.context.trace_id, parent, record.head.start_ns)
            {
                span.attributes.push(("tracer.message.transit_time".into(), seconds(nanos)));
            }
            span
        });
    }
}

fn span(record: &ParsedSpan<'_>, process: ProcessId, place: &Place) -> Span {
    let kind = match record.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let mut span = Span {
        status: match record.status {
            shim::Status::Unset => Status::Unset,
            shim::Status::Ok => Status::Ok,
            shim::Status::Error => Status::Error(Cow::Borrowed("")),
        },
        ..place.span(process, name(record), kind, (record.head.start_ns, record.head.end_ns))
    };
    span.attributes.reserve_exact(3 + usize::from(record.head.items));
    if record.operation != Operation::Custom {
        span.attributes.push(("tracer.message.type".into(), Value::Str(record.name.into())));
    }
    if record.head.size != NO_SIZE {
        span.attributes.push(("tracer.message.size".into(), Value::Int(record.head.size as i64)));
    }
    if record.head.dropped > 0 {
        span.attributes.push(("tracer.dropped_items".into(), Value::Int(i64::from(record.head.dropped))));
    }
    for item in record.items() {
        add(&mut span, item);
    }
    span
}

fn name(record: &ParsedSpan<'_>) -> Text {
    let operation = match record.operation {
        Operation::Encode => "encode",
        Operation::Decode => "decode",
        Operation::Process => "process",
        Operation::Custom => return record.name.into(),
    };
    format_smolstr!("{operation} {}", crate::trace::message::short_name(record.name))
}

fn add(span: &mut Span, item: Item<'_>) {
    match item {
        Item::Attribute(key, value) => span.attributes.push(attribute(key, value)),
        Item::Event(name, time_ns) => {
            span.events.push(SpanEvent { time_ns, name: name.into(), attributes: Vec::new() });
        }
        Item::EventAttribute(key, value) => {
            if let Some(event) = span.events.last_mut() {
                event.attributes.push(attribute(key, value));
            }
        }
        Item::Description(text) => {
            if let Status::Error(description) = &mut span.status {
                *description = Cow::Owned(text.to_owned());
            }
        }
        Item::Link(trace_id, span_id, flags) => span.links.push(Link {
            context: SpanContext {
                trace_id: TraceId(trace_id),
                span_id: SpanId(span_id),
                flags,
                remote: true,
                trace_state: "".into(),
            },
            attributes: Vec::new(),
        }),
    }
}

fn attribute(key: &str, value: shim::Value<'_>) -> Attribute {
    let value = match value {
        shim::Value::Str(text) => Value::Str(text.into()),
        shim::Value::Int(number) => Value::Int(number),
        shim::Value::Float(number) => Value::Float(number),
        shim::Value::Bool(truth) => Value::Bool(truth),
    };
    (Cow::Owned(key.to_owned()), value)
}

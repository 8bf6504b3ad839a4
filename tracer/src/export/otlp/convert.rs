//! Spans as the generated OTLP types: for JSON, and as the oracle of [`super::encode`].

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link as OtlpLink};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status as OtlpStatus};
use opentelemetry_semantic_conventions::SCHEMA_URL;

use crate::export::Batch;
use crate::export::batch::by_process;
use crate::model::{Attribute, Link, Span, SpanEvent, SpanKind, Status, Value};

/// `InstrumentationScope.name` of everything that comes from here.
pub(super) const SCOPE_NAME: &str = env!("CARGO_PKG_NAME");
/// `InstrumentationScope.version`.
pub(super) const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// One request with one `ResourceSpans` per process.
pub fn request(batches: &[Arc<Batch>]) -> ExportTraceServiceRequest {
    let resource_spans = by_process(batches)
        .into_iter()
        .map(|group| ResourceSpans {
            resource: Some(OtlpResource { attributes: attributes(&group.resource.attributes), ..Default::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: group.spans.into_iter().map(|(batch, span)| self::span(batch, span)).collect(),
                schema_url: SCHEMA_URL.into(),
            }],
            schema_url: SCHEMA_URL.into(),
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

/// Who made the spans: this crate.
pub(in crate::export) fn scope() -> InstrumentationScope {
    InstrumentationScope { name: SCOPE_NAME.into(), version: SCOPE_VERSION.into(), ..Default::default() }
}

/// Attributes of anything.
pub(in crate::export) fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(key, value)| KeyValue { key: key.to_string(), value: Some(any_value(value)), ..Default::default() })
        .collect()
}

fn any_value(value: &Value) -> AnyValue {
    let value = match value {
        Value::Str(text) => OtlpValue::StringValue(text.to_string()),
        Value::Int(number) => OtlpValue::IntValue(*number),
        // JSON has no such numbers, and a span has to be the same in every form.
        Value::Float(number) if !number.is_finite() => OtlpValue::StringValue(number.to_string()),
        Value::Float(number) => OtlpValue::DoubleValue(*number),
        Value::Bool(truth) => OtlpValue::BoolValue(*truth),
        Value::List(texts) => OtlpValue::ArrayValue(ArrayValue {
            values: texts.iter().map(|text| AnyValue { value: Some(OtlpValue::StringValue(text.clone())) }).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}

fn span(batch: &Batch, span: &Span) -> OtlpSpan {
    let start = batch.unix_ns(span.start_ns);
    OtlpSpan {
        trace_id: span.trace_id.0.into(),
        span_id: span.span_id.0.into(),
        trace_state: span.trace_state.to_string(),
        parent_span_id: span.parent.map(|id| id.0.into()).unwrap_or_default(),
        flags: flags(span.flags, span.parent_remote),
        name: span.name.to_string(),
        kind: kind(span.kind),
        start_time_unix_nano: start,
        end_time_unix_nano: batch.unix_ns(span.end_ns).max(start),
        attributes: attributes(&span.attributes),
        events: span.events.iter().map(|event| self::event(batch, event)).collect(),
        links: span.links.iter().map(link).collect(),
        status: status(&span.status),
        ..Default::default()
    }
}

fn event(batch: &Batch, event: &SpanEvent) -> Event {
    Event {
        time_unix_nano: batch.unix_ns(event.time_ns),
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
        ..Default::default()
    }
}

fn link(link: &Link) -> OtlpLink {
    OtlpLink {
        trace_id: link.context.trace_id.0.into(),
        span_id: link.context.span_id.0.into(),
        trace_state: link.context.trace_state.to_string(),
        attributes: attributes(&link.attributes),
        flags: flags(link.context.flags, link.context.remote),
        ..Default::default()
    }
}

fn status(status: &Status) -> Option<OtlpStatus> {
    let (code, message) = status_parts(status)?;
    Some(OtlpStatus { code, message: message.into() })
}

/// `Status.code` and `Status.message`; an unset status is left out.
pub(super) fn status_parts(status: &Status) -> Option<(i32, &str)> {
    match status {
        Status::Unset => None,
        Status::Ok => Some((1, "")),
        Status::Error(message) => Some((2, message)),
    }
}

/// `Span.flags`: the W3C flags, and whether the other span is of another process.
pub(super) fn flags(w3c: u8, remote: bool) -> u32 {
    u32::from(w3c) | HAS_IS_REMOTE | if remote { IS_REMOTE } else { 0 }
}

/// Number in `Span.SpanKind`.
pub(super) fn kind(kind: SpanKind) -> i32 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

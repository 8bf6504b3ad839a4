#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::export::otlp::convert;
use crate::export::testing;
use crate::model::{SpanContext, SpanId, SpanKind, Status, TraceId};

const LIMIT: usize = 1 << 20;

fn text(max: usize) -> impl Strategy<Value = Cow<'static, str>> {
    // Lengths around 128 need a length of two bytes.
    prop_oneof![".{0,12}", vec(any::<char>(), 0..max).prop_map(|chars| chars.into_iter().collect::<String>())]
        .prop_map(Cow::Owned)
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text(200).prop_map(|text| Value::Str(text.into())),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        Just(Value::Float(f64::NAN)),
        any::<bool>().prop_map(Value::Bool),
        vec(".{0,80}", 0..4).prop_map(Value::List),
    ]
}

fn any_attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec((text(10), any_value()), 0..6)
}

fn any_context() -> impl Strategy<Value = SpanContext> {
    (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>(), any::<bool>(), text(40)).prop_map(
        |(trace_id, span_id, flags, remote, trace_state)| SpanContext {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            flags,
            remote,
            trace_state,
        },
    )
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Unset), Just(Status::Ok), text(200).prop_map(Status::Error)]
}

fn any_kind() -> impl Strategy<Value = SpanKind> {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    prop::sample::select(vec![Internal, Server, Client, Producer, Consumer])
}

fn any_span() -> impl Strategy<Value = Span> {
    let links = vec((any_context(), any_attributes()), 0..3);
    let events = vec((any::<u64>(), text(20), any_attributes()), 0..3);
    let ids = (any_context(), any::<Option<[u8; 8]>>(), 0..4u32);
    (ids, text(20), any_kind(), any::<[u64; 2]>(), any_attributes(), any_status(), links, events).prop_map(
        |((context, parent, pid), name, kind, [start_ns, end_ns], attributes, status, links, events)| Span {
            process: ProcessId { pid, start_time: 1 },
            trace_id: context.trace_id,
            span_id: context.span_id,
            parent: parent.map(SpanId),
            parent_remote: context.remote,
            flags: context.flags,
            trace_state: context.trace_state,
            name: name.into(),
            kind,
            start_ns,
            end_ns,
            attributes,
            status,
            links: links.into_iter().map(|(context, attributes)| Link { context, attributes }).collect(),
            events: events
                .into_iter()
                .map(|(time_ns, name, attributes)| SpanEvent { time_ns, name: name.into(), attributes })
                .collect(),
        },
    )
}

/// Batches of spans of four processes, of which some have a resource.
fn any_batches() -> impl Strategy<Value = Vec<Arc<Batch>>> {
    let resources = vec(any_attributes(), 0..4);
    let batch = (vec(any_span(), 1..8), resources, any::<i32>()).prop_map(|(spans, resources, offset)| {
        let resources = resources
            .into_iter()
            .zip(0..)
            .map(|(attributes, pid)| {
                let process = ProcessId { pid, start_time: 1 };
                (process, Arc::new(Resource { process, attributes }))
            })
            .collect();
        Arc::new(Batch { spans, resources, clock_offset_ns: i64::from(offset) })
    });
    vec(batch, 1..4)
}

proptest! {
    #[test]
    fn bytes_are_those_of_the_generated_types(batches in any_batches()) {
        let encoded = Encoder::new(usize::MAX, LIMIT).encode(&batches);
        let expected = convert::request(&batches);
        prop_assert_eq!(encoded.oversized, 0);
        prop_assert_eq!(encoded.requests.len(), 1);
        prop_assert_eq!(&encoded.requests[0].body, &expected.encode_to_vec());
        prop_assert_eq!(ExportTraceServiceRequest::decode(encoded.requests[0].body.clone()).unwrap(), expected);
    }

    #[test]
    fn limits_hold_and_no_span_is_lost(batches in any_batches(), max_spans in 1..10usize, max_bytes in 400..6_000usize) {
        let encoded = Encoder::new(max_spans, max_bytes).encode(&batches);
        let mut found = Vec::new();
        for request in &encoded.requests {
            prop_assert!(request.body.len() <= max_bytes);
            let spans: Vec<_> = spans_of(&ExportTraceServiceRequest::decode(request.body.clone()).unwrap());
            prop_assert!((1..=max_spans).contains(&spans.len()));
            prop_assert_eq!(request.spans, spans.len() as u64);
            found.extend(spans);
        }
        let all = spans_of(&convert::request(&batches));
        prop_assert_eq!(found.len() as u64 + encoded.oversized, all.len() as u64);
        let mut rest = all.iter();
        prop_assert!(found.iter().all(|span| rest.any(|one| one == span)), "in order, each with its resource");
    }
}

/// Each span with its resource, as text.
fn spans_of(request: &ExportTraceServiceRequest) -> Vec<String> {
    request
        .resource_spans
        .iter()
        .flat_map(|resource| {
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| format!("{:?} {span:?}", resource.resource))
        })
        .collect()
}

#[test]
fn a_changed_resource_replaces_the_cached_one() {
    let mut encoder = Encoder::new(10, LIMIT);
    let first = testing::batch(vec![testing::span(1, 1)]);
    encoder.encode(std::slice::from_ref(&first));
    let mut changed = Batch::clone(&first);
    let mut resource = testing::resource();
    resource.attributes.push(("service.version".into(), Value::Str("2".into())));
    changed.resources.insert(resource.process, Arc::new(resource));
    let changed = [Arc::new(changed)];
    let body = encoder.encode(&changed).requests.remove(0).body;
    assert_eq!(body, convert::request(&changed).encode_to_vec());
}

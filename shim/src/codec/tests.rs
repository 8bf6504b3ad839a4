#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::header::TRAILER_LEN;
use crate::record::{ParsedSpan, Value};
use crate::sampling;
use crate::site::capture::spans;
use prost::Message as Prost;

#[derive(Clone, PartialEq, ::prost::Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
}

fn order() -> Order {
    Order { id: 7, symbol: "ACME".to_owned() }
}

fn shim() -> impl Fn(&Order) -> Vec<u8> {
    |order| crate::Message::encode_to_vec(order)
}

fn ids(span: &ParsedSpan<'_>) -> ([u8; 16], [u8; 8], [u8; 8]) {
    (span.head.trace_id, span.head.span_id, span.head.parent_span_id)
}

#[test]
fn with_nobody_listening_the_active_context_is_passed_on() {
    let context = Context::from_hex(&"1".repeat(32), &"2".repeat(16), true).unwrap();
    let bytes = {
        let _scope = context.attach();
        shim()(&order())
    };
    assert_eq!(header::read(&bytes), Some(context));
    assert_eq!(header::read(&shim()(&order())), None);
    spans(|| (), |(), seen| assert!(seen.is_empty()));
    <Order as crate::Message>::decode(&bytes[..]).unwrap();
    assert_eq!(Context::current(), context);
    <Order as crate::Message>::decode(&Prost::encode_to_vec(&order())[..]).unwrap();
    assert_eq!(Context::current(), Context::NONE);
}

#[test]
fn encode_then_decode_then_encode_is_one_trace_with_a_chain_of_parents() {
    spans(
        || {
            let bytes = shim()(&order());
            <Order as crate::Message>::decode(&bytes[..]).unwrap();
            shim()(&order());
            bytes.len()
        },
        |len, seen| {
            let [first, second, third] = seen else { panic!("{seen:?}") };
            assert_eq!(first.head.parent_span_id, [0; 8]);
            assert_eq!(first.head.threshold, 0);
            assert_eq!(ids(second).2, ids(first).1);
            assert_eq!(ids(third).2, ids(second).1);
            assert!(seen.iter().all(|span| ids(span).0 == ids(first).0));
            assert!(seen.iter().all(|span| span.head.size == len as u64 && span.name.ends_with("codec::tests::Order")));
            assert_eq!(
                seen.iter().map(|span| span.operation).collect::<Vec<_>>(),
                [Operation::Encode, Operation::Decode, Operation::Encode]
            );
            assert_eq!((first.kind, second.kind), (Kind::Producer, Kind::Consumer));
            assert_eq!(second.head.flags & crate::record::PARENT_REMOTE, 1);
        },
    );
}

#[test]
fn a_plain_message_begins_a_trace_and_in_a_scope_it_is_a_child() {
    let plain = Prost::encode_to_vec(&order());
    spans(
        || {
            <Order as crate::Message>::decode(&plain[..]).unwrap();
            <Order as crate::Message>::decode(&plain[..]).unwrap();
            let scope = crate::span("scope");
            <Order as crate::Message>::decode(&plain[..]).unwrap();
            assert_eq!(Context::current(), scope.context());
        },
        |(), seen| {
            let [first, second, third, scope] = seen else { panic!("{seen:?}") };
            assert_ne!(ids(first).0, ids(second).0);
            assert_eq!(ids(scope).2, ids(second).1);
            assert_eq!(ids(third).2, ids(scope).1);
        },
    );
}

#[test]
fn what_prost_refuses_is_refused_alike_and_is_a_failed_span() {
    let bad: &[u8] = &[0x0a, 0xff];
    spans(
        || {
            let refused = <Order as crate::Message>::decode(bad).unwrap_err();
            assert_eq!(refused, <Order as Prost>::decode(bad).unwrap_err());
            let mut small = [0; 3];
            let refused = crate::Message::encode(&order(), &mut &mut small[..]).unwrap_err();
            assert_eq!(refused, Prost::encode(&order(), &mut &mut small[..]).unwrap_err());
        },
        |(), seen| {
            assert_eq!(seen.len(), 2);
            assert!(seen.iter().all(|span| span.status == Status::Error));
        },
    );
}

#[test]
fn a_buffer_with_room_for_the_message_alone_gets_the_message_alone() {
    let plain = Prost::encode_to_vec(&order());
    for room in plain.len()..plain.len() + TRAILER_LEN {
        let mut bytes = vec![0; room];
        let mut rest = &mut bytes[..];
        crate::Message::encode(&order(), &mut rest).unwrap();
        let written = room - rest.len();
        assert_eq!(&bytes[..written], plain);
    }
    let mut bytes = vec![0; plain.len() + TRAILER_LEN];
    let mut rest = &mut bytes[..];
    crate::Message::encode(&order(), &mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn lengths_are_what_is_written_and_prost_reads_all_of_it() {
    let order = order();
    let bytes = shim()(&order);
    assert_eq!(bytes.len(), crate::Message::encoded_len(&order));
    assert_eq!(<Order as Prost>::decode(&bytes[..]).unwrap(), order);
    let delimited = crate::Message::encode_length_delimited_to_vec(&order);
    let mut appended = delimited.clone();
    crate::Message::encode_length_delimited(&order, &mut appended).unwrap();
    assert_eq!(appended, [&delimited[..], &delimited].concat());
    let mut rest = &appended[..];
    assert_eq!(<Order as Prost>::decode_length_delimited(&mut rest).unwrap(), order);
    assert_eq!(<Order as crate::Message>::decode_length_delimited(&mut rest).unwrap(), order);
    assert!(rest.is_empty());
}

#[test]
fn an_unsampled_trace_fires_nothing_and_says_so_to_the_receiver() {
    spans(
        || {
            let context = Context::from_hex(&"1".repeat(32), &"2".repeat(16), false).unwrap();
            let _scope = context.attach();
            let bytes = shim()(&order());
            assert_eq!(header::read(&bytes), Some(context));
            <Order as crate::Message>::decode(&bytes[..]).unwrap();
            let mut span = crate::span("quiet");
            span.attribute("key", 1).event("event").error("none of it is kept");
            assert_eq!((span.context(), span.is_recorded()), (context, false));
        },
        |(), seen| assert!(seen.is_empty()),
    );
    assert_eq!(sampling::threshold_of(0.5), 1 << 55);
}

#[test]
fn spans_keep_what_they_are_told() {
    spans(
        || {
            let mut span = crate::span("price");
            span.kind(Kind::Client).attribute("symbol", "ACME").attribute("lots", 3).attribute("price", 1.5);
            span.event("sent").event_attribute("ok", true).error("refused");
            span.attribute("long", "x".repeat(1024).as_str());
            let child = crate::process("inner");
            assert_eq!(Context::current(), child.context());
        },
        |(), seen| {
            let [inner, outer] = seen else { panic!("{seen:?}") };
            assert_eq!(ids(inner).2, ids(outer).1);
            assert_eq!((inner.operation, inner.kind), (Operation::Process, Kind::Consumer));
            assert_eq!((outer.name, outer.kind, outer.status), ("price", Kind::Client, Status::Error));
            assert_eq!((outer.head.dropped, outer.head.size), (1, crate::record::NO_SIZE));
            let mut items = outer.items();
            assert_eq!(items.next(), Some(crate::record::Item::Attribute("symbol", Value::Str("ACME"))));
            assert_eq!(items.next(), Some(crate::record::Item::Attribute("lots", Value::Int(3))));
            assert_eq!(items.next(), Some(crate::record::Item::Attribute("price", Value::Float(1.5))));
            assert!(
                matches!(items.next(), Some(crate::record::Item::Event("sent", time)) if time >= outer.head.start_ns)
            );
            assert_eq!(items.next(), Some(crate::record::Item::EventAttribute("ok", Value::Bool(true))));
            assert_eq!(items.next(), Some(crate::record::Item::Description("refused")));
            assert_eq!(items.next(), None);
        },
    );
}

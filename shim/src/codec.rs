//! Encoding and decoding with a header, and the spans of both.
//!
//! The path of a message nobody listens to is inlined into the caller: prost's own work, and 35 bytes copied. The path of
//! a traced message is not inlined.

use crate::buffer::Buffer;
use crate::context::Context;
use crate::header::{self, Parent, Place};
use crate::record::{Kind, Operation, Status};
use crate::start::Started;
use crate::tail::Tail;
use crate::{os, site, thread};
use bytes::{Buf, BufMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use prost::{DecodeError, EncodeError, Message};
use std::any::type_name;

/// The message's length with its header.
#[inline]
pub fn encoded_len<M: Message>(message: &M, place: Place) -> usize {
    message.encoded_len() + place.len()
}

/// `prost::Message::encode` with a header at `place`. Where only the message fits, only the message is written.
///
/// # Errors
/// As prost: the buffer is too small for the message.
#[inline]
pub fn encode<M: Message>(
    message: &M,
    place: Place,
    buf: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let len = message.encoded_len();
    let room = buf.remaining_mut();
    if room < len + place.len() {
        return without_header::<M, _>(place, len, || message.encode(buf));
    }
    produce::<M>(place, len, |context| {
        message.encode_raw(buf);
        place.write(context, len, buf);
    });
    Ok(())
}

/// `prost::Message::encode_to_vec` with a header at `place`.
#[inline]
pub fn encode_to_vec<M: Message>(message: &M, place: Place) -> Vec<u8> {
    let len = message.encoded_len();
    let mut buf = Vec::with_capacity(len + place.len());
    produce::<M>(place, len, |context| {
        message.encode_raw(&mut buf);
        place.write(context, len, &mut buf);
    });
    buf
}

/// `prost::Message::encode_length_delimited` with a header at `place`; the length includes it.
///
/// # Errors
/// As prost: the buffer is too small for the message.
#[inline]
pub fn encode_length_delimited<M: Message>(
    message: &M,
    place: Place,
    buf: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let len = message.encoded_len();
    let total = len + place.len();
    if buf.remaining_mut() < total + encoded_len_varint(total as u64) {
        return without_header::<M, _>(place, len, || message.encode_length_delimited(buf));
    }
    produce::<M>(place, len, |context| {
        encode_varint(total as u64, buf);
        message.encode_raw(buf);
        place.write(context, len, buf);
    });
    Ok(())
}

/// `prost::Message::encode_length_delimited_to_vec` with a header at `place`; the length includes it.
#[inline]
pub fn encode_length_delimited_to_vec<M: Message>(message: &M, place: Place) -> Vec<u8> {
    let len = message.encoded_len();
    let total = len + place.len();
    let mut buf = Vec::with_capacity(total + encoded_len_varint(total as u64));
    produce::<M>(place, len, |context| {
        encode_varint(total as u64, &mut buf);
        message.encode_raw(&mut buf);
        place.write(context, len, &mut buf);
    });
    buf
}

/// `prost::Message::merge`, and reads the header: from what `field` finds in the message, else from the trailer.
///
/// # Errors
/// As prost: the bytes are not this message.
#[inline]
pub fn merge<M: Message>(
    message: &mut M,
    buf: impl Buf,
    field: impl FnOnce(&M) -> Option<Context>,
) -> Result<(), DecodeError> {
    let size = buf.remaining();
    let Some(bytes) = header::whole(&buf) else {
        return merge_pieces(
            message,
            size,
            buf,
            |message, tail| message.merge(tail),
            Tail::header,
            field,
        );
    };
    let header = header::read(bytes);
    consume::<M>(size, || {
        message.merge(buf)?;
        Ok(field(message).or(header))
    })
}

/// `prost::Message::merge_length_delimited`, and reads the header as [`merge`] does.
///
/// # Errors
/// As prost: the bytes are not this message with its length.
#[inline]
pub fn merge_length_delimited<M: Message>(
    message: &mut M,
    buf: impl Buf,
    field: impl FnOnce(&M) -> Option<Context>,
) -> Result<(), DecodeError> {
    let (size, bytes) = header::whole_length_delimited(&buf);
    let Some(bytes) = bytes else {
        let merge = |message: &mut M, tail: &mut Tail<_>| message.merge_length_delimited(tail);
        return merge_pieces(
            message,
            size,
            buf,
            merge,
            Tail::header_length_delimited,
            field,
        );
    };
    let header = header::read(bytes);
    consume::<M>(size, || {
        message.merge_length_delimited(buf)?;
        Ok(field(message).or(header))
    })
}

/// Decodes from a buffer whose end cannot be looked at before it is reached.
#[cold]
fn merge_pieces<M: Message, B: Buf>(
    message: &mut M,
    size: usize,
    buf: B,
    merge: impl FnOnce(&mut M, &mut Tail<B>) -> Result<(), DecodeError>,
    header: impl FnOnce(&Tail<B>) -> Option<Context>,
    field: impl FnOnce(&M) -> Option<Context>,
) -> Result<(), DecodeError> {
    let mut tail = Tail::new(buf);
    consume::<M>(size, || {
        merge(message, &mut tail)?;
        Ok(field(message).or_else(|| header(&tail)))
    })
}

/// Runs `write` with the context for the header.
#[inline]
fn produce<M>(place: Place, len: usize, write: impl FnOnce(Context)) {
    let parent = place.parent();
    if site::enabled() {
        produce_traced(type_name::<M>(), parent, len + place.len(), write);
    } else {
        write(parent.said(parent.context));
    }
}

#[cold]
#[inline(never)]
fn produce_traced(name: &str, parent: Parent, size: usize, write: impl FnOnce(Context)) {
    let span = Started::new(parent.context, name);
    let header = parent.said(span.context);
    if !span.recorded {
        return write(header);
    }
    let start = os::monotonic();
    write(header);
    finish(Operation::Encode, name, &span, start, size, Status::Unset);
}

/// The buffer has no room for a header: prost alone, and a span if somebody listens.
#[cold]
#[inline(never)]
fn without_header<M, E>(
    place: Place,
    len: usize,
    encode: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    if !site::enabled() {
        return encode();
    }
    let name = type_name::<M>();
    let span = Started::new(place.parent().context, name);
    let start = os::monotonic();
    let result = encode();
    if span.recorded {
        let status = if result.is_ok() {
            Status::Unset
        } else {
            Status::Error
        };
        finish(Operation::Encode, name, &span, start, len, status);
    }
    result
}

/// Runs `read`, which returns the context of the sender, and lets what follows belong to the message.
#[inline]
fn consume<M>(
    size: usize,
    read: impl FnOnce() -> Result<Option<Context>, DecodeError>,
) -> Result<(), DecodeError> {
    if site::enabled() {
        return consume_traced(type_name::<M>(), size, read);
    }
    let header = read()?;
    thread::decoded(header.unwrap_or(Context::NONE));
    Ok(())
}

#[cold]
#[inline(never)]
fn consume_traced(
    name: &str,
    size: usize,
    read: impl FnOnce() -> Result<Option<Context>, DecodeError>,
) -> Result<(), DecodeError> {
    let start = os::monotonic();
    let result = read();
    // A message that says nothing belongs to the scope it was decoded in, if any, else it begins a trace.
    let parent = result
        .as_ref()
        .ok()
        .copied()
        .flatten()
        .unwrap_or_else(thread::scope);
    let span = Started::new(parent, name);
    if span.recorded {
        let status = if result.is_ok() {
            Status::Unset
        } else {
            Status::Error
        };
        finish(Operation::Decode, name, &span, start, size, status);
    }
    result.map(|header| {
        let in_scope = header.is_none() && parent.is_valid();
        thread::decoded(if in_scope {
            Context::NONE
        } else {
            span.context
        });
    })
}

fn finish(
    operation: Operation,
    name: &str,
    span: &Started,
    start: u64,
    size: usize,
    status: Status,
) {
    let kind = if operation == Operation::Encode {
        Kind::Producer
    } else {
        Kind::Consumer
    };
    let mut record = Buffer::new(operation, kind, name);
    span.stamp(&mut record);
    record.head.status = status as u8;
    record.head.start_ns = start;
    record.head.end_ns = os::monotonic();
    record.head.size = size as u64;
    record.fire();
}

#[cfg(test)]
mod tests {
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
        Order {
            id: 7,
            symbol: "ACME".to_owned(),
        }
    }

    fn shim() -> impl Fn(&Order) -> Vec<u8> {
        |order| crate::Message::encode_to_vec(order)
    }

    fn ids(span: &ParsedSpan<'_>) -> ([u8; 16], [u8; 8], [u8; 8]) {
        (
            span.head.trace_id,
            span.head.span_id,
            span.head.parent_span_id,
        )
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
                let [first, second, third] = seen else {
                    panic!("{seen:?}")
                };
                assert_eq!(first.head.parent_span_id, [0; 8]);
                assert_eq!(first.head.threshold, 0);
                assert_eq!(ids(second).2, ids(first).1);
                assert_eq!(ids(third).2, ids(second).1);
                assert!(seen.iter().all(|span| ids(span).0 == ids(first).0));
                assert!(seen.iter().all(|span| span.head.size == len as u64
                    && span.name.ends_with("codec::tests::Order")));
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
                let [first, second, third, scope] = seen else {
                    panic!("{seen:?}")
                };
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
                assert_eq!(
                    refused,
                    Prost::encode(&order(), &mut &mut small[..]).unwrap_err()
                );
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
        assert_eq!(
            <Order as Prost>::decode_length_delimited(&mut rest).unwrap(),
            order
        );
        assert_eq!(
            <Order as crate::Message>::decode_length_delimited(&mut rest).unwrap(),
            order
        );
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
                span.attribute("key", 1)
                    .event("event")
                    .error("none of it is kept");
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
                span.kind(Kind::Client)
                    .attribute("symbol", "ACME")
                    .attribute("lots", 3)
                    .attribute("price", 1.5);
                span.event("sent")
                    .event_attribute("ok", true)
                    .error("refused");
                span.attribute("long", "x".repeat(1024).as_str());
                let child = crate::process("inner");
                assert_eq!(Context::current(), child.context());
            },
            |(), seen| {
                let [inner, outer] = seen else {
                    panic!("{seen:?}")
                };
                assert_eq!(ids(inner).2, ids(outer).1);
                assert_eq!(
                    (inner.operation, inner.kind),
                    (Operation::Process, Kind::Consumer)
                );
                assert_eq!(
                    (outer.name, outer.kind, outer.status),
                    ("price", Kind::Client, Status::Error)
                );
                assert_eq!(
                    (outer.head.dropped, outer.head.size),
                    (1, crate::record::NO_SIZE)
                );
                let mut items = outer.items();
                assert_eq!(
                    items.next(),
                    Some(crate::record::Item::Attribute("symbol", Value::Str("ACME")))
                );
                assert_eq!(
                    items.next(),
                    Some(crate::record::Item::Attribute("lots", Value::Int(3)))
                );
                assert_eq!(
                    items.next(),
                    Some(crate::record::Item::Attribute("price", Value::Float(1.5)))
                );
                assert!(
                    matches!(items.next(), Some(crate::record::Item::Event("sent", time)) if time >= outer.head.start_ns)
                );
                assert_eq!(
                    items.next(),
                    Some(crate::record::Item::EventAttribute("ok", Value::Bool(true)))
                );
                assert_eq!(
                    items.next(),
                    Some(crate::record::Item::Description("refused"))
                );
                assert_eq!(items.next(), None);
            },
        );
    }
}

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
pub fn encode<M: Message>(message: &M, place: Place, buf: &mut impl BufMut) -> Result<(), EncodeError> {
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
        return merge_pieces(message, size, buf, |message, tail| message.merge(tail), Tail::header, field);
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
        return merge_pieces(message, size, buf, merge, Tail::header_length_delimited, field);
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
fn without_header<M, E>(place: Place, len: usize, encode: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if !site::enabled() {
        return encode();
    }
    let name = type_name::<M>();
    let span = Started::new(place.parent().context, name);
    let start = os::monotonic();
    let result = encode();
    if span.recorded {
        let status = if result.is_ok() { Status::Unset } else { Status::Error };
        finish(Operation::Encode, name, &span, start, len, status);
    }
    result
}

/// Runs `read`, which returns the context of the sender, and lets what follows belong to the message.
#[inline]
fn consume<M>(size: usize, read: impl FnOnce() -> Result<Option<Context>, DecodeError>) -> Result<(), DecodeError> {
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
    let parent = result.as_ref().ok().copied().flatten().unwrap_or_else(thread::scope);
    let span = Started::new(parent, name);
    if span.recorded {
        let status = if result.is_ok() { Status::Unset } else { Status::Error };
        finish(Operation::Decode, name, &span, start, size, status);
    }
    result.map(|header| {
        let in_scope = header.is_none() && parent.is_valid();
        thread::decoded(if in_scope { Context::NONE } else { span.context });
    })
}

fn finish(operation: Operation, name: &str, span: &Started, start: u64, size: usize, status: Status) {
    let kind = if operation == Operation::Encode { Kind::Producer } else { Kind::Consumer };
    let mut record = Buffer::new(operation, kind, name);
    span.stamp(&mut record);
    record.head.status = status as u8;
    record.head.start_ns = start;
    record.head.end_ns = os::monotonic();
    record.head.size = size as u64;
    record.fire();
}

#[cfg(test)]
mod tests;

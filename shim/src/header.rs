//! The header of a message: how a context travels inside the message's own bytes.
//!
//! A message whose type has a `trace_context` field carries it there (`#[derive(Span)]`). Every other message carries a
//! **trailer**: one more protobuf field, appended, which receivers that do not know it skip like any unknown field.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | key of field [`FIELD_NUMBER`], length-delimited: `9a a6 ee 5d` |
//! | 1 | length of the rest: 30 |
//! | 1 | version: 0 |
//! | 1 | W3C trace flags |
//! | 4 | number of message bytes before the trailer, little-endian, modulo 2^32 |
//! | 16 | trace id, all zero for "no context" |
//! | 8 | span id of the sender |
//!
//! A header has one length whatever it says, and is always written, so `encoded_len` is always right. The number of
//! bytes before it ties it to its message: a message that was copied into another one as its last field does not lend the
//! outer one its context. Reading looks at the last 35 bytes and nowhere else.
//! In a buffer of several pieces it takes note of them as they pass by.

use crate::context::Context;
use crate::id::{SpanId, TraceId};
use crate::thread;
use bytes::{Buf, BufMut};

/// Number of the trailer field.
pub const FIELD_NUMBER: u32 = 24_605_283;
/// Length of the trailer in bytes.
pub const TRAILER_LEN: usize = 35;

const KEY: [u8; 4] = key(FIELD_NUMBER);
const CONTENT_LEN: u8 = (TRAILER_LEN - KEY.len() - 1) as u8;
const VERSION: u8 = 0;

/// The key of a length-delimited field as a varint of four bytes.
const fn key(field: u32) -> [u8; 4] {
    let key = field << 3 | 2;
    assert!(key >= 1 << 21 && key < 1 << 28, "the key takes four bytes");
    [key as u8 | 0x80, (key >> 7) as u8 | 0x80, (key >> 14) as u8 | 0x80, (key >> 21) as u8]
}

/// The trailer of a message of `message_len` bytes.
#[inline]
pub(crate) fn trailer(context: Context, message_len: usize) -> [u8; TRAILER_LEN] {
    let mut bytes = [0; TRAILER_LEN];
    bytes[..4].copy_from_slice(&KEY);
    bytes[4] = CONTENT_LEN;
    bytes[5] = VERSION;
    bytes[6] = context.trace_flags();
    bytes[7..11].copy_from_slice(&(message_len as u32).to_le_bytes());
    bytes[11..27].copy_from_slice(&context.trace_id().to_bytes());
    bytes[27..].copy_from_slice(&context.span_id().to_bytes());
    bytes
}

/// The context in the trailer of a whole message, if it has one.
#[inline]
pub(crate) fn read(message: &[u8]) -> Option<Context> {
    let (body, trailer) = message.split_last_chunk::<TRAILER_LEN>()?;
    parse(trailer, body.len())
}

#[inline]
pub(crate) fn parse(trailer: &[u8; TRAILER_LEN], message_len: usize) -> Option<Context> {
    let (field, rest) = trailer.split_first_chunk::<6>()?;
    let (flags, rest) = rest.split_first()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (trace_id, span_id) = rest.split_first_chunk::<16>()?;
    let [k0, k1, k2, k3] = KEY;
    if *field != [k0, k1, k2, k3, CONTENT_LEN, VERSION] || u32::from_le_bytes(*len) != message_len as u32 {
        return None;
    }
    let (trace_id, span_id) = (TraceId::from_bytes(*trace_id), SpanId::from_bytes(span_id.try_into().ok()?));
    let context = Context::new(trace_id, span_id, *flags).from_remote();
    context.is_valid().then_some(context)
}

/// Where the context of a message goes when it is encoded.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Into a trailer.
    Trailer,
    /// Into the message's own `trace_context` field.
    Field {
        /// Its number.
        number: u32,
        /// What the message has there already.
        filled: Option<Context>,
    },
}

/// What a message that is encoded belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(crate) context: Context,
    /// The sender has put a context into the message that is to stay.
    stays: bool,
}

impl Parent {
    /// What the header is to say when the message's span has this context.
    #[inline]
    pub(crate) fn said(self, span: Context) -> Context {
        if self.stays { Context::NONE } else { span }
    }
}

/// `TraceContext { string trace_id = 1; string span_id = 2; bool sampled = 3; }` with both ids and the flag written out.
const FIELD_CONTENT_LEN: usize = 2 + 32 + 2 + 16 + 2;

impl Place {
    /// The parent of the message's span: what is active here, unless the sender has put another trace into the message. A
    /// context of the active trace in it is an old one, of the message that this one was made from.
    #[inline]
    pub(crate) fn parent(self) -> Parent {
        let active = thread::current();
        match self {
            Self::Field { filled: Some(filled), .. } if !filled.same_trace(active) => {
                Parent { context: filled, stays: true }
            }
            _ => Parent { context: active, stays: false },
        }
    }

    /// Bytes that the header adds to the message: the same whatever it says.
    #[inline]
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Trailer => TRAILER_LEN,
            Self::Field { number, .. } => prost::encoding::key_len(number) + 1 + FIELD_CONTENT_LEN,
        }
    }

    /// Appends the header to a message of `message_len` bytes. A second `trace_context` is merged into the first: it counts.
    #[inline]
    pub(crate) fn write(self, context: Context, message_len: usize, buf: &mut impl BufMut) {
        match self {
            Self::Trailer => buf.put_slice(&trailer(context, message_len)),
            Self::Field { number, .. } if context.is_valid() => {
                prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, buf);
                buf.put_slice(&field_content(context));
            }
            Self::Field { .. } => {
                // Nothing to say, but the length has been announced: an empty trailer of the same length.
                let padding = self.len() - KEY.len() - 1;
                buf.put_slice(&KEY);
                buf.put_u8(padding as u8);
                buf.put_bytes(0, padding);
            }
        }
    }
}

fn field_content(context: Context) -> [u8; 1 + FIELD_CONTENT_LEN] {
    let mut bytes = [0; 1 + FIELD_CONTENT_LEN];
    bytes[0] = FIELD_CONTENT_LEN as u8;
    bytes[1..3].copy_from_slice(&[0x0a, 32]);
    crate::hex::encode(&context.trace_id().to_bytes(), &mut bytes[3..35]);
    bytes[35..37].copy_from_slice(&[0x12, 16]);
    crate::hex::encode(&context.span_id().to_bytes(), &mut bytes[37..53]);
    bytes[53..].copy_from_slice(&[0x18, u8::from(context.is_sampled())]);
    bytes
}

/// The whole message that all of `buf` is, if it is in one piece.
#[inline]
pub(crate) fn whole(buf: &impl Buf) -> Option<&[u8]> {
    let chunk = buf.chunk();
    (chunk.len() == buf.remaining()).then_some(chunk)
}

/// The length of the length-delimited message that `buf` begins with, and the message, if it is in one piece.
#[inline]
pub(crate) fn whole_length_delimited(buf: &impl Buf) -> (usize, Option<&[u8]>) {
    let mut chunk = buf.chunk();
    let Ok(len) = prost::encoding::decode_varint(&mut chunk) else {
        return (0, None);
    };
    (len as usize, chunk.get(..len as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn context() -> impl Strategy<Value = Context> {
        (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>()).prop_map(|(trace, span, flags)| {
            Context::new(TraceId::from_bytes(trace), SpanId::from_bytes(span), flags).from_remote()
        })
    }

    fn message(body: &[u8], context: Context) -> Vec<u8> {
        [body, &trailer(context, body.len())].concat()
    }

    #[test]
    fn the_key_is_that_of_the_field() {
        let mut bytes = &KEY[..];
        let (field, wire_type) = prost::encoding::decode_key(&mut bytes).unwrap();
        assert_eq!((field, wire_type), (FIELD_NUMBER, prost::encoding::WireType::LengthDelimited));
        assert!(bytes.is_empty() && !(19_000..=19_999).contains(&FIELD_NUMBER) && FIELD_NUMBER < 1 << 29);
        assert_eq!(KEY, [0x9a, 0xa6, 0xee, 0x5d]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body: Vec<u8>, context in context()) {
            prop_assert_eq!(read(&message(&body, context)), context.is_valid().then_some(context));
        }

        #[test]
        fn any_other_bytes_are_read_without_harm(bytes: Vec<u8>) {
            prop_assert_eq!(read(&bytes), None);
        }

        #[test]
        fn one_wrong_byte_of_the_frame_is_no_header(body: Vec<u8>, context in context(), at in 0..11_usize, flip in 1..=255_u8) {
            prop_assume!(context.is_valid() && at != 6);
            let mut bytes = message(&body, context);
            bytes[body.len() + at] ^= flip;
            prop_assert_eq!(read(&bytes), None);
        }

        #[test]
        fn a_truncated_trailer_is_no_header(body: Vec<u8>, context in context(), cut in 1..=TRAILER_LEN) {
            let bytes = message(&body, context);
            prop_assert_eq!(read(&bytes[..bytes.len() - cut]), None);
        }

        #[test]
        fn a_message_inside_another_does_not_lend_it_its_context(body: Vec<u8>, context in context(), outer in 1..100_usize) {
            prop_assert_eq!(read(&[vec![0; outer], message(&body, context)].concat()), None);
        }

        #[test]
        fn the_length_is_the_same_whatever_it_says(context in context(), field in 1..(1_u32 << 29)) {
            for context in [context, Context::NONE] {
                for place in [Place::Trailer, Place::Field { number: field, filled: None }] {
                    let mut bytes = Vec::new();
                    place.write(context, 7, &mut bytes);
                    prop_assert_eq!(bytes.len(), place.len());
                }
            }
        }

        #[test]
        fn length_delimited_messages_are_found(body: Vec<u8>, context in context(), rest: Vec<u8>) {
            let message = message(&body, context);
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(message.len() as u64, &mut bytes);
            bytes.extend(&message);
            bytes.extend(rest);
            let buf = &bytes[..];
            prop_assert_eq!(whole_length_delimited(&buf), (message.len(), Some(&message[..])));
        }

        #[test]
        fn hostile_lengths_are_harmless(bytes: Vec<u8>) {
            let buf = &bytes[..];
            let (len, message) = whole_length_delimited(&buf);
            prop_assert!(message.is_none_or(|message| message.len() == len && message.len() < bytes.len()));
        }
    }
}

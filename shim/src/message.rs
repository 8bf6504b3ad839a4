//! `use tracer_shim::Message;` in place of `use prost::Message;`.

use crate::codec;
use crate::header::Place;
use bytes::{Buf, BufMut};

// Brings the derive macro `Message` along, as `use prost::Message` does; the trait below shadows prost's.
pub use prost::*;

/// prost's `Message`, with a trace header in every message and a span for every call.
///
/// It has prost's methods with prost's signatures, for every type that is a prost message. Implementing it is done by
/// implementing prost's: `#[derive(Message)]` works with this import as with prost's.
///
/// - **Encoding** appends a header ([`crate::header`]) that says which span sent the message. Receivers that do not know
///   it skip it. The lengths that [`encoded_len`](Message::encoded_len) and length delimiters tell include it. A buffer
///   that has room for the message alone gets the message alone.
/// - **Decoding** reads the header, if there is one, and makes the message's span the active context of the thread: what
///   follows belongs to that message until the next one is decoded or the scope ends.
/// - A message with no header, or with a damaged one, decodes as with prost and begins a new trace (inside a scope such
///   as [`crate::span`] it belongs to that scope).
///
/// Types with `#[derive(Span)]` have these methods too, as their own: there the header is the `trace_context` field.
///
/// Import this trait or prost's, not both: with both, calls are ambiguous.
///
/// ```
/// use tracer_shim::Message;
///
/// #[derive(Clone, PartialEq, Message)]
/// struct Order {
///     #[prost(uint64, tag = "1")]
///     id: u64,
/// }
///
/// let order = Order { id: 7 };
/// let bytes = order.encode_to_vec();
/// assert_eq!(bytes.len(), order.encoded_len());
/// assert_eq!(Order::decode(&bytes[..])?, order);
/// assert_eq!(<Order as prost::Message>::decode(&bytes[..])?, order);
/// # Ok::<(), prost::DecodeError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message of the version of prost that tracer-shim is built for",
    note = "that is 0.14 unless another one is chosen: `default-features = false, features = [\"prost-0_13\"]`, or `prost-0_12`"
)]
pub trait Message: Send + Sync {
    /// Encodes the message and its header to a buffer.
    ///
    /// # Errors
    /// The buffer has too little room for the message.
    fn encode(&self, buf: &mut impl BufMut) -> Result<(), EncodeError>
    where
        Self: Sized;

    /// Encodes the message and its header to a newly allocated buffer.
    fn encode_to_vec(&self) -> Vec<u8>
    where
        Self: Sized;

    /// Encodes the message and its header to a buffer, after their length.
    ///
    /// # Errors
    /// The buffer has too little room for the message and its length.
    fn encode_length_delimited(&self, buf: &mut impl BufMut) -> Result<(), EncodeError>
    where
        Self: Sized;

    /// Encodes the message and its header to a newly allocated buffer, after their length.
    fn encode_length_delimited_to_vec(&self) -> Vec<u8>
    where
        Self: Sized;

    /// Decodes a message from a buffer, which is consumed whole.
    ///
    /// # Errors
    /// The bytes are not this message.
    fn decode(buf: impl Buf) -> Result<Self, DecodeError>
    where
        Self: Default;

    /// Decodes a message after its length from a buffer.
    ///
    /// # Errors
    /// The bytes are not this message with its length.
    fn decode_length_delimited(buf: impl Buf) -> Result<Self, DecodeError>
    where
        Self: Default;

    /// Decodes a message from a buffer, which is consumed whole, and merges it into `self`.
    ///
    /// # Errors
    /// The bytes are not this message.
    fn merge(&mut self, buf: impl Buf) -> Result<(), DecodeError>
    where
        Self: Sized;

    /// Decodes a message after its length from a buffer, and merges it into `self`.
    ///
    /// # Errors
    /// The bytes are not this message with its length.
    fn merge_length_delimited(&mut self, buf: impl Buf) -> Result<(), DecodeError>
    where
        Self: Sized;

    /// The encoded length of the message and its header, without a length delimiter.
    fn encoded_len(&self) -> usize;

    /// Resets all fields to their default.
    fn clear(&mut self);
}

impl<M: prost::Message> Message for M {
    #[inline]
    fn encode(&self, buf: &mut impl BufMut) -> Result<(), EncodeError> {
        codec::encode(self, Place::Trailer, buf)
    }

    #[inline]
    fn encode_to_vec(&self) -> Vec<u8> {
        codec::encode_to_vec(self, Place::Trailer)
    }

    #[inline]
    fn encode_length_delimited(&self, buf: &mut impl BufMut) -> Result<(), EncodeError> {
        codec::encode_length_delimited(self, Place::Trailer, buf)
    }

    #[inline]
    fn encode_length_delimited_to_vec(&self) -> Vec<u8> {
        codec::encode_length_delimited_to_vec(self, Place::Trailer)
    }

    #[inline]
    fn decode(buf: impl Buf) -> Result<Self, DecodeError>
    where
        Self: Default,
    {
        let mut message = Self::default();
        codec::merge(&mut message, buf, |_| None)?;
        Ok(message)
    }

    #[inline]
    fn decode_length_delimited(buf: impl Buf) -> Result<Self, DecodeError>
    where
        Self: Default,
    {
        let mut message = Self::default();
        codec::merge_length_delimited(&mut message, buf, |_| None)?;
        Ok(message)
    }

    #[inline]
    fn merge(&mut self, buf: impl Buf) -> Result<(), DecodeError> {
        codec::merge(self, buf, |_| None)
    }

    #[inline]
    fn merge_length_delimited(&mut self, buf: impl Buf) -> Result<(), DecodeError> {
        codec::merge_length_delimited(self, buf, |_| None)
    }

    #[inline]
    fn encoded_len(&self) -> usize {
        codec::encoded_len(self, Place::Trailer)
    }

    #[inline]
    fn clear(&mut self) {
        prost::Message::clear(self);
    }
}

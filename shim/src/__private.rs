//! What the code made by the macros calls. Not for anybody else.

pub use crate::codec::{
    encode, encode_length_delimited, encode_length_delimited_to_vec, encode_to_vec, merge, merge_length_delimited,
};
pub use bytes::{Buf, BufMut};
#[cfg(feature = "opentelemetry")]
pub use opentelemetry::trace::SpanContext;
pub use prost::{DecodeError, EncodeError};

use crate::carrier::Carrier;
use crate::header::Place;

/// Where the header of this message goes, whose context field has this number.
#[inline]
pub fn place(message: &impl Carrier, number: u32) -> Place {
    Place::Field { number, filled: message.trace_context() }
}

/// The length of a message with its header, whose context field has this number.
#[inline]
pub fn encoded_len(message: &impl prost::Message, number: u32) -> usize {
    crate::codec::encoded_len(message, Place::Field { number, filled: None })
}

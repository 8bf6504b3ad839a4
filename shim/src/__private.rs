//! What the code made by the macros calls. Not for anybody else.

pub use crate::codec::{
    encode, encode_length_delimited, encode_length_delimited_to_vec, encode_to_vec, encoded_len,
    merge, merge_length_delimited,
};
pub use bytes::{Buf, BufMut};
#[cfg(feature = "opentelemetry")]
pub use opentelemetry::trace::SpanContext;
pub use prost::{DecodeError, EncodeError};

use crate::carrier::Carrier;
use crate::header::Place;

/// Where the header of a message goes whose context field has this number.
#[inline]
pub fn place(message: &impl Carrier, field: u32) -> Place {
    message
        .trace_context()
        .map_or(Place::Field(field), Place::Filled)
}

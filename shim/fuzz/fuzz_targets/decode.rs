//! Any bytes decode with the shim as with prost: whole, in pieces, and after a length.
#![no_main]

use bytes::Buf;
use libfuzzer_sys::fuzz_target;

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
    #[prost(message, repeated, tag = "3")]
    legs: Vec<Order>,
    #[prost(bytes = "vec", tag = "4")]
    payload: Vec<u8>,
}

fuzz_target!(|input: (u8, &[u8])| {
    let (split, bytes) = input;
    let (a, b) = bytes.split_at(usize::from(split).min(bytes.len()));
    let expected = <Order as prost::Message>::decode(bytes);
    assert_eq!(<Order as tracer_shim::Message>::decode(bytes), expected);
    assert_eq!(<Order as tracer_shim::Message>::decode(a.chain(b)), expected);
    let expected = <Order as prost::Message>::decode_length_delimited(bytes);
    assert_eq!(<Order as tracer_shim::Message>::decode_length_delimited(bytes), expected);
    assert_eq!(<Order as tracer_shim::Message>::decode_length_delimited(a.chain(b)), expected);
});

//! The parts of an encoded message: strings, bytes and messages in it, without knowing its type.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Shorter parts say nothing: names of instruments, flags.
const MIN_LEN: usize = 12;
/// Parts of one message that are looked at.
const MAX_PARTS: usize = 32;
/// Messages in messages.
const MAX_DEPTH: usize = 3;

/// The message itself and its parts of at least twelve bytes, outermost first; of a cut message what is whole.
pub fn parts(message: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    if message.len() >= MIN_LEN {
        found.push(message);
    }
    walk(message, 0, &mut found);
    found
}

fn walk<'a>(message: &'a [u8], depth: usize, found: &mut Vec<&'a [u8]>) {
    let mut rest = message;
    let start = found.len();
    while !rest.is_empty() && found.len() < MAX_PARTS {
        let Some(part) = next(&mut rest) else {
            if depth > 0 {
                // It was a text that looked like a message.
                found.truncate(start);
            }
            return;
        };
        if part.len() >= MIN_LEN {
            found.push(part);
            if depth < MAX_DEPTH {
                walk(part, depth + 1, found);
            }
        }
    }
}

/// The content of the next field, empty if it is a number; `None` if there is no whole field.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (tag, wire_type) = decode_key(rest).ok()?;
    match wire_type {
        WireType::LengthDelimited => {
            let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (part, after) = rest.split_at_checked(len)?;
            *rest = after;
            Some(part)
        }
        // Groups would need a stack, and nobody sends them any more.
        WireType::StartGroup | WireType::EndGroup => None,
        _ => skip_field(wire_type, tag, rest, DecodeContext::default()).ok().map(|()| &[][..]),
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PARTS, parts};
    use proptest::prelude::*;
    use prost::Message as _;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Inner {
        #[prost(uint64, tag = "1")]
        id: u64,
        #[prost(string, tag = "2")]
        account: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Outer {
        #[prost(message, optional, tag = "1")]
        inner: Option<Inner>,
        #[prost(double, tag = "2")]
        price: f64,
        #[prost(string, repeated, tag = "3")]
        notes: Vec<String>,
    }

    #[test]
    fn messages_in_messages_are_parts_and_short_texts_are_not() {
        let inner = Inner { id: 7, account: "account 0123456".into() };
        let outer = Outer { inner: Some(inner.clone()), price: 1.5, notes: vec!["short".into()] };
        let (bytes, inner_bytes) = (outer.encode_to_vec(), inner.encode_to_vec());
        assert_eq!(parts(&bytes), [&bytes[..], &inner_bytes, b"account 0123456"]);
        assert_eq!(parts(&inner_bytes)[0], inner_bytes);
    }

    #[test]
    fn a_cut_message_has_the_parts_that_are_whole() {
        let outer = Outer { inner: None, price: 0.0, notes: vec!["a".repeat(20), "b".repeat(20)] };
        let bytes = outer.encode_to_vec();
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(parts(cut)[1..], [&b"aaaaaaaaaaaaaaaaaaaa"[..]]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_few_parts(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(parts(&bytes).len() <= MAX_PARTS + 1);
        }
    }
}

//! Names of prost's methods in the debug info: `encode_to_vec<tgt::Order>`, `decode<tgt::Order, &[u8]>`.
//!
//! With line tables only a name has no path, so functions of other crates can look the same; see [`super::origin`].
//!
//! Beside them, what encodes a message for gRPC: `encode_item<tonic_prost::codec::ProstEncoder<tgt::Order>>`.

use std::collections::HashMap;
use std::rc::Rc;

use super::section::DebugSection;
use crate::inspect::plan::Operation;

/// Longest name that is looked at, in bytes.
const MAX_NAME: usize = 16 << 10;
/// Bytes of a section that are looked at together.
const CHUNK: usize = 4 << 20;
/// More names than this are not the work of a compiler.
const MAX_NAMES: usize = 1 << 18;

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method(MethodName),
    /// Of a function of tonic that encodes a message of this type.
    Codec(String),
}

impl Name {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let method = MethodName::parse(name).map(Self::Method);
        method.or_else(|| Some(Self::Codec(encoder_message(name)?.to_owned())))
    }
}

/// The message of tonic's encoder that is among the generic arguments in a name.
pub(in crate::inspect) fn encoder_message(name: &str) -> Option<&str> {
    let (path, rest) = name.split_once("ProstEncoder<")?;
    if !path.ends_with("codec::") && !path.ends_with("codec::prost::") {
        return None;
    }
    let mut depth = 1_usize;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before == '-' => {}
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            // Where a symbol does not say it, it is a single letter.
            return Some(&rest[..at]).filter(|message| message.len() > 1);
        }
        before = c;
    }
    None
}

/// What the name of a method says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodName {
    pub(super) operation: Operation,
    pub(super) message: String,
    pub(super) buffer: Option<String>,
}

impl MethodName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (method, generics) = name.strip_suffix('>')?.split_once('<')?;
        let operation = Operation::from_name(method)?;
        let mut arguments = arguments(generics)?.into_iter();
        let message = unboxed(arguments.next()?).to_owned();
        let buffer = arguments.next().map(|buffer| buffer.replace(", alloc::alloc::Global>", ">"));
        let to_vec = matches!(operation, Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec);
        (arguments.next().is_none() && buffer.is_none() == to_vec).then_some(Self { operation, message, buffer })
    }
}

/// The message that a `Box` of it stands for.
fn unboxed(mut message: &str) -> &str {
    while let Some(inner) = message.strip_prefix("alloc::boxed::Box<").and_then(|rest| rest.strip_suffix('>')) {
        message = inner.strip_suffix(", alloc::alloc::Global").unwrap_or(inner);
    }
    message
}

/// Splits at the commas that are not inside of brackets.
fn arguments(text: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let (mut depth, mut start, mut before) = (0_usize, 0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            '>' if before == '-' => {}
            '>' | ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    found.push(text[start..].trim());
    (depth == 0 && found.iter().all(|argument| !argument.is_empty())).then_some(found)
}

/// The names of methods in a section of strings, by their offsets.
pub(super) fn find(strings: &DebugSection<'_>) -> HashMap<u64, Rc<Name>> {
    let mut found = HashMap::new();
    // The first one has no end of another one before it.
    found.extend(strings.text(0).and_then(|name| Some((0, Rc::new(Name::parse(&name)?)))));
    let finders = [b"\0encode", b"\0decode", &b"\0merge"[..]].map(memchr::memmem::Finder::new);
    let mut offset = 0;
    while let Some(bytes) = strings.read_up_to(offset, CHUNK).filter(|bytes| !bytes.is_empty()) {
        let last = offset + bytes.len() as u64 >= strings.size;
        for finder in &finders {
            for at in finder.find_iter(&bytes) {
                let rest = &bytes[at + 1..];
                let name = memchr::memchr(0, &rest[..rest.len().min(MAX_NAME)]).map(|end| &rest[..end]);
                let name = name.and_then(|name| Name::parse(std::str::from_utf8(name).ok()?));
                if let Some(name) = name.filter(|_| found.len() < MAX_NAMES) {
                    found.insert(offset + at as u64 + 1, Rc::new(name));
                }
            }
        }
        if last {
            break;
        }
        // The last name may go on in the next piece.
        offset += (bytes.len() - MAX_NAME) as u64;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> Option<(&'static str, String, Option<String>)> {
        MethodName::parse(name).map(|name| (name.operation.name(), name.message, name.buffer))
    }

    #[test]
    fn reads_the_methods_of_messages() {
        assert_eq!(parts("encode_to_vec<tgt::Order>"), Some(("encode_to_vec", "tgt::Order".into(), None)));
        assert_eq!(
            parts("encode<tgt::Order, alloc::vec::Vec<u8, alloc::alloc::Global>>"),
            Some(("encode", "tgt::Order".into(), Some("alloc::vec::Vec<u8>".into())))
        );
        assert_eq!(
            parts("decode<a::Map<(u8, fn() -> b::C), [u8; 2]>, &mut &[u8]>"),
            Some(("decode", "a::Map<(u8, fn() -> b::C), [u8; 2]>".into(), Some("&mut &[u8]".into())))
        );
        assert_eq!(
            parts("encode_to_vec<alloc::boxed::Box<tgt::Order, alloc::alloc::Global>>"),
            Some(("encode_to_vec", "tgt::Order".into(), None))
        );
    }

    #[test]
    fn an_encoder_names_its_message() {
        let named = |name| match Name::parse(name) {
            Some(Name::Codec(message)) => Some(message),
            _ => None,
        };
        assert_eq!(named("encode_item<tonic_prost::codec::ProstEncoder<a::Pong>>").as_deref(), Some("a::Pong"));
        assert_eq!(
            named("encode_item<tonic::codec::prost::ProstEncoder<a::Map<b::C, fn() -> b::D>>, x::Y>").as_deref(),
            Some("a::Map<b::C, fn() -> b::D>")
        );
        assert_eq!(
            encoder_message("<tonic::codec::encode::EncodeBody<tonic_prost::codec::ProstEncoder<T>, U>>::poll"),
            None
        );
        assert_eq!(named("encode_item<app::ProstEncoder<a::Pong>>"), None);
        assert_eq!(named("encode_item<tonic_prost::codec::ProstEncoder<a::Pong>"), Some("a::Pong".to_owned()));
        assert_eq!(named("encode_item<tonic_prost::codec::ProstEncoder<a::Pong"), None);
    }

    #[test]
    fn leaves_other_functions_alone() {
        // The encoders of single fields have one type, the methods of user types none.
        for other in [
            "encode<bytes::bytes_mut::BytesMut>",
            "encode",
            "decode<>",
            "merge<a, b, c>",
            "encode_raw<a, b>",
            "decode<a, b>>",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}

//! What the demangled name of a function says about prost.

use crate::inspect::plan::Operation;
use crate::inspect::prost::layout;

/// A method of `prost::Message`, from its symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inspect) struct Method {
    /// `encode`, `merge_field` and so on.
    pub(in crate::inspect) name: String,
    /// The message type, where the symbol has it.
    pub(in crate::inspect) message: Option<String>,
    /// The buffer type, where the symbol has it.
    pub(in crate::inspect) buffer: Option<String>,
    /// It is not prost's, but tonic's encoder: a method that does nothing but to call prost's and to drop the message.
    pub(in crate::inspect) encoder: bool,
}

impl Method {
    /// The operation to trace, if it is one.
    pub(in crate::inspect) fn operation(&self) -> Option<Operation> {
        Operation::from_name(&self.name)
    }
}

const TRAIT: &str = "prost::message::Message";

/// Reads the name of a method of `prost::Message`, in the form of either mangling.
///
/// Legacy: `prost::message::Message::encode` (a default method, without the type),
/// `<a::B as prost::message::Message>::encoded_len`. v0: `<a::B as prost::message::Message>::decode::<&[u8]>`.
pub(in crate::inspect) fn method(name: &str) -> Option<Method> {
    if let Some(rest) = name.strip_prefix(TRAIT) {
        let (name, buffer) = method_and_generic(rest)?;
        return Some(Method { name, message: None, buffer, encoder: false });
    }
    let inside = closing_angle(name)?;
    let (implementation, rest) = (&name[1..inside], &name[inside + 1..]);
    let message = implementation.strip_suffix(TRAIT)?.strip_suffix(" as ")?;
    let (name, buffer) = method_and_generic(rest)?;
    Some(Method { name, message: Some(unboxed(message).to_owned()), buffer, encoder: false })
}

/// Reads the name of `encode` of tonic's encoder, which has been in tonic and is in tonic-prost since 0.14.
pub(in crate::inspect) fn encoder(name: &str) -> Option<Method> {
    let rest = name.strip_prefix("<tonic::codec::prost::").or_else(|| name.strip_prefix("<tonic_prost::codec::"))?;
    let message = rest.strip_prefix("ProstEncoder<")?.strip_suffix("> as tonic::codec::Encoder>::encode")?;
    // Legacy names have the letter.
    let message = Some(message).filter(|message| *message != "T").map(str::to_owned);
    Some(Method { name: "encode".to_owned(), message, buffer: Some(layout::ENCODE_BUF.to_owned()), encoder: true })
}

/// The message that a `Box` of it stands for: prost implements the trait for both.
fn unboxed(mut message: &str) -> &str {
    while let Some(inner) = message.strip_prefix("alloc::boxed::Box<").and_then(|rest| rest.strip_suffix('>')) {
        message = inner;
    }
    message
}

/// Reads `::encode::<B>` or `::encode` with nothing behind.
fn method_and_generic(rest: &str) -> Option<(String, Option<String>)> {
    let rest = rest.strip_prefix("::")?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let (method, generic) = rest.split_at(end);
    if method.is_empty() {
        return None;
    }
    if generic.is_empty() {
        return Some((method.to_owned(), None));
    }
    let generic = generic.strip_prefix("::")?;
    let end = closing_angle(generic)?;
    (end + 1 == generic.len()).then(|| (method.to_owned(), Some(generic[1..end].to_owned())))
}

/// Index of the `>` that closes the `<` with which the text begins; `->` closes nothing.
fn closing_angle(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
        before = c;
    }
    None
}

/// The last path segment of a type, without its generics: `Order` of `tgt::Order`.
pub(in crate::inspect) fn short_name(message: &str) -> &str {
    let path = message.split('<').next().unwrap_or(message);
    path.rsplit("::").next().unwrap_or(path)
}

/// Whether the function makes a prost decode error.
pub(in crate::inspect) fn makes_decode_error(name: &str) -> bool {
    const FROM: &str = "<prost::error::DecodeError as core::convert::From<prost::error::DecodeErrorKind>>::from";
    let inherent = name.strip_prefix("prost::error::DecodeError").or(name.strip_prefix("<prost::error::DecodeError>"));
    name == FROM || inherent.is_some_and(|rest| rest == "::new" || rest.starts_with("::new::<"))
}

/// Whether the function is the one through which every panic goes.
pub(in crate::inspect) fn is_rust_panic(name: &str) -> bool {
    matches!(name, "rust_panic" | "__rustc::rust_panic" | "std::panicking::rust_panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> Option<(String, Option<String>, Option<String>)> {
        method(name).map(|method| (method.name, method.message, method.buffer))
    }

    #[test]
    fn reads_both_manglings() {
        assert_eq!(parts("prost::message::Message::encode"), Some(("encode".into(), None, None)));
        assert_eq!(
            parts("<tgt::Order as prost::message::Message>::encoded_len"),
            Some(("encoded_len".into(), Some("tgt::Order".into()), None))
        );
        assert_eq!(
            parts("<tgt::Order as prost::message::Message>::decode::<&[u8]>"),
            Some(("decode".into(), Some("tgt::Order".into()), Some("&[u8]".into())))
        );
    }

    #[test]
    fn keeps_nested_generics_together() {
        assert_eq!(
            parts(
                "<a::Map<b::C<fn(u8) -> d::E>> as prost::message::Message>::merge::<bytes::buf::take::Take<&mut &[u8]>>"
            ),
            Some((
                "merge".into(),
                Some("a::Map<b::C<fn(u8) -> d::E>>".into()),
                Some("bytes::buf::take::Take<&mut &[u8]>".into())
            ))
        );
    }

    #[test]
    fn knows_the_encoders_of_tonic() {
        let message = |name: &str| encoder(name).map(|method| method.message);
        assert_eq!(message("<tonic::codec::prost::ProstEncoder<T> as tonic::codec::Encoder>::encode"), Some(None));
        assert_eq!(
            message("<tonic_prost::codec::ProstEncoder<a::Ping> as tonic::codec::Encoder>::encode"),
            Some(Some("a::Ping".to_owned()))
        );
        assert_eq!(message("<tonic::codec::prost::ProstDecoder<U> as tonic::codec::Decoder>::decode"), None);
        assert_eq!(message("<app::ProstEncoder<T> as tonic::codec::Encoder>::encode"), None);
    }

    #[test]
    fn sees_through_a_box() {
        assert_eq!(
            parts("<alloc::boxed::Box<tgt::Order> as prost::message::Message>::encode_raw::<alloc::vec::Vec<u8>>"),
            Some(("encode_raw".into(), Some("tgt::Order".into()), Some("alloc::vec::Vec<u8>".into())))
        );
    }

    #[test]
    fn refuses_closures_and_other_traits() {
        assert_eq!(parts("<tgt::Order as prost::message::Message>::decode::<&[u8]>::{closure#0}"), None);
        assert_eq!(parts("<tgt::Order as core::clone::Clone>::clone"), None);
        assert_eq!(parts("prost::message::Messages::encode"), None);
        assert_eq!(parts("<"), None);
        assert_eq!(parts(""), None);
    }

    #[test]
    fn shortens_paths() {
        assert_eq!(short_name("a::b::Order"), "Order");
        assert_eq!(short_name("a::Map<b::C>"), "Map");
        assert_eq!(short_name("()"), "()");
    }

    #[test]
    fn knows_error_and_panic_functions() {
        assert!(makes_decode_error(
            "<prost::error::DecodeError as core::convert::From<prost::error::DecodeErrorKind>>::from"
        ));
        assert!(makes_decode_error("prost::error::DecodeError::new"));
        assert!(makes_decode_error("<prost::error::DecodeError>::new::<&str>"));
        assert!(!makes_decode_error("prost::error::DecodeError::push"));
        assert!(is_rust_panic("__rustc::rust_panic"));
        assert!(!is_rust_panic("__rustc::__rust_panic_cleanup"));
    }
}

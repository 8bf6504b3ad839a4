//! Where the standard and `bytes` types keep pointer and length.
//!
//! rustc chooses the order of the fields and may choose another one in another version, so the offsets hold for the
//! versions whose machine code was read: 1.88 (a published collector), 1.95 and 1.97 (`tests/programs/inspect-sample`).
//! Outside of that range nothing is assumed. Slices have a fixed form.

/// Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) struct Layout {
    pub(in crate::inspect) pointer: u8,
    pub(in crate::inspect) length: u8,
    /// The type holds a pointer to what is laid out so.
    pub(in crate::inspect) behind: bool,
    /// Offset of a length of its own beside that pointer, if there is one.
    pub(in crate::inspect) limit: u8,
}

pub(in crate::inspect) const ENCODE_BUF: &str = "tonic::codec::buffer::EncodeBuf";
pub(in crate::inspect) const DECODE_BUF: &str = "tonic::codec::buffer::DecodeBuf";

/// Whether the bytes of a type are behind two pointers.
pub(in crate::inspect) fn is_behind(name: &str) -> bool {
    of_type(name.strip_prefix("&mut ").unwrap_or(name), true).is_some_and(|layout| layout.behind)
}

/// Compilers of which the layouts are known: 1.`FIRST` to 1.`LAST`.
const FIRST: u32 = 88;
const LAST: u32 = 97;

/// The layout of a type that holds bytes, if it is known.
pub(in crate::inspect) fn of_type(name: &str, compiler_known: bool) -> Option<Layout> {
    let plain = |pointer, length| Some(Layout { pointer, length, behind: false, limit: 0 });
    match name {
        "&[u8]" => plain(0, 8),
        // { capacity, pointer, length }
        "alloc::vec::Vec<u8>" if compiler_known => plain(8, 16),
        // { pointer, length, capacity, data }
        "bytes::bytes_mut::BytesMut" if compiler_known => plain(0, 8),
        // { vtable, pointer, length, data }
        "bytes::bytes::Bytes" if compiler_known => plain(8, 16),
        // { &mut BytesMut }
        ENCODE_BUF if compiler_known => Some(Layout { pointer: 0, length: 8, behind: true, limit: 0 }),
        // { &mut BytesMut, length }
        DECODE_BUF if compiler_known => Some(Layout { pointer: 0, length: 8, behind: true, limit: 8 }),
        _ => None,
    }
}

/// The range, for people.
pub(in crate::inspect) const KNOWN_COMPILERS: &str = "rustc 1.88 to 1.97";

/// Whether the layouts hold for code by this compiler (`rustc version 1.95.0 (...)`).
pub(in crate::inspect) fn known_compiler(producer: &str) -> bool {
    let minor = producer.strip_prefix("rustc version 1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| (FIRST..=LAST).contains(&minor))
}

#[cfg(test)]
mod tests {
    use super::known_compiler;

    #[test]
    fn reads_the_version() {
        assert!(known_compiler("rustc version 1.95.0 (59807616e 2026-04-14)"));
        assert!(!known_compiler("rustc version 1.20.0"));
        assert!(!known_compiler("rustc version 1.87.0 (17067e9ac 2025-05-09)"));
        assert!(!known_compiler("rustc version 2.95.0"));
        assert!(!known_compiler("clang version 18"));
    }
}

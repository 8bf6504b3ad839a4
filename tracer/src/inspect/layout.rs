//! Where the standard and `bytes` types keep pointer and length.
//!
//! rustc chooses the order of the fields and may choose another one in another version, so the offsets hold for the
//! versions whose machine code was read: 1.88 (a published collector), 1.95 and 1.97 (`tests/programs/inspect-sample`).
//! Outside of that range nothing is assumed. Slices have a fixed form.

/// Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) pointer: u8,
    pub(super) length: u8,
}

/// Compilers of which the layouts are known: 1.`FIRST` to 1.`LAST`.
const FIRST: u32 = 88;
const LAST: u32 = 97;

/// The layout of a type that holds bytes, if it is known.
pub(super) fn of_type(name: &str, compiler_known: bool) -> Option<Layout> {
    let (pointer, length) = match name {
        "&[u8]" => (0, 8),
        // { capacity, pointer, length }
        "alloc::vec::Vec<u8>" if compiler_known => (8, 16),
        // { pointer, length, capacity, data }
        "bytes::bytes_mut::BytesMut" if compiler_known => (0, 8),
        // { vtable, pointer, length, data }
        "bytes::bytes::Bytes" if compiler_known => (8, 16),
        _ => return None,
    };
    Some(Layout { pointer, length })
}

/// The range, for people.
pub(super) const KNOWN_COMPILERS: &str = "rustc 1.88 to 1.97";

/// Whether the layouts hold for code by this compiler (`rustc version 1.95.0 (...)`).
pub(super) fn known_compiler(producer: &str) -> bool {
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

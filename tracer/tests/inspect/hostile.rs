//! Files that lie: errors or remarks, never a panic.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use tracer::inspect::{InspectError, inspect_bytes, inspect_file};

use crate::sample::LEGACY;

static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read(LEGACY.path()).unwrap());

fn inspect(bytes: &[u8]) -> Result<usize, InspectError> {
    inspect_bytes(bytes, Path::new("sample")).map(|plan| plan.messages.len())
}

/// Offsets, favouring the headers at both ends, where a change does most.
fn offset() -> impl Strategy<Value = usize> {
    let size = SAMPLE.len();
    prop_oneof![0..4096_usize, (size - 4096)..size, 0..size]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn survives_truncation(size in offset()) {
        let _ = inspect(&SAMPLE[..size]);
    }

    #[test]
    fn survives_other_bytes(changes in prop::collection::vec((offset(), any::<u8>()), 1..64)) {
        let mut bytes = SAMPLE.clone();
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        let _ = inspect(&bytes);
    }

    #[test]
    fn survives_any_symbol_and_section(words in prop::collection::vec((0..4096_usize, any::<u64>()), 1..32), tail in any::<bool>()) {
        let mut bytes = SAMPLE.clone();
        let start = if tail { bytes.len() - 4096 - 8 } else { 0x40 };
        for (offset, word) in words {
            bytes[start + offset..][..8].copy_from_slice(&word.to_le_bytes());
        }
        let _ = inspect(&bytes);
    }
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let message = |path: &Path| inspect_file(path).unwrap_err().to_string();

    let script = write("script", b"#!/bin/sh\n");
    assert!(matches!(inspect_file(&script), Err(InspectError::NotElf { .. })));
    assert!(message(&script).contains("script") && message(&script).contains("not an ELF file"));
    let empty = write("empty", b"");
    assert!(matches!(inspect_file(&empty), Err(InspectError::NotElf { .. })));
    assert!(matches!(inspect_file(directory.path()), Err(InspectError::NotElf { .. })));
    let missing = directory.path().join("missing");
    assert!(matches!(inspect_file(&missing), Err(InspectError::Io { .. })));

    let cut = write("cut", &SAMPLE[..SAMPLE.len() / 2]);
    assert!(matches!(inspect_file(&cut), Err(InspectError::Truncated { .. })));
    assert!(message(&cut).contains("truncated"));
    let mut other = SAMPLE.clone();
    other[18] = 183;
    let other = write("arm", &other);
    assert!(matches!(inspect_file(&other), Err(InspectError::WrongMachine { .. })));
    assert!(message(&other).contains("64-bit ARM"));
    let mut object = SAMPLE.clone();
    object[16] = 1;
    assert!(matches!(inspect_file(&write("object", &object)), Err(InspectError::NotLinked { .. })));
}

#[test]
fn an_announced_size_costs_nothing() {
    // A symbol table of 2^60 bytes, by the size field of every section header.
    let mut bytes = SAMPLE.clone();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[60], bytes[61]]));
    for section in 0..count {
        bytes[table + section * 64 + 32..][..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    }
    assert_eq!(inspect(&bytes).unwrap(), 0);
}

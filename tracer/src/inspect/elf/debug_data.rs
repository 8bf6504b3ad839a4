//! Mini debug info: the symbols of a stripped file, packed into the file itself.
//!
//! Fedora and RHEL strip their programs and put the names of the functions that `.dynsym` lacks into a section `.gnu_debugdata`: an ELF
//! file without code, compressed by xz. Its addresses are those of the file that it is in.

use std::io::Read as _;

use lzma_rust2::XzReader;

use crate::inspect::elf::image::Image;

const SECTION: &[u8] = b".gnu_debugdata";
/// More than this is not unpacked, in bytes: 100 bytes of xz can stand for a gigabyte of zeroes.
const MAX_UNPACKED: u64 = 256 << 20;

/// What a file has of mini debug info.
pub(in crate::inspect) enum DebugData {
    /// No such section.
    Absent,
    /// It cannot be unpacked, or is too large.
    Damaged,
    /// The ELF file in it.
    Unpacked(Vec<u8>),
}

/// Unpacks it.
pub(in crate::inspect) fn read(image: &Image<'_>) -> DebugData {
    let Some(section) = image.section(SECTION).filter(|section| section.in_file()) else { return DebugData::Absent };
    match image.section_bytes(section).and_then(unpack) {
        Some(bytes) => DebugData::Unpacked(bytes),
        None => DebugData::Damaged,
    }
}

/// The content of an xz file. The reader's memory grows with what it has unpacked, not with what the header announces.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    XzReader::new(packed, false).take(MAX_UNPACKED + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_UNPACKED).then_some(bytes)
}

/// Reads an xz file, whatever it is, for the fuzzers.
pub(in crate::inspect) fn fuzz(packed: &[u8]) {
    let _ = unpack(packed);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::num::NonZeroU64;

    use lzma_rust2::{XzOptions, XzWriter};
    use proptest::prelude::*;

    use super::{MAX_UNPACKED, unpack};

    fn pack(bytes: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut options = XzOptions::with_preset(0);
        options.set_block_size(NonZeroU64::new(1 << 26));
        let mut writer = XzWriter::new(Vec::new(), options).expect("valid options");
        for part in bytes {
            writer.write_all(&part).expect("a Vec takes all");
        }
        writer.finish().expect("a Vec takes all")
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeroes = |size: u64| pack((0..size >> 20).map(|_| vec![0; 1 << 20]));
        let bomb = zeroes(MAX_UNPACKED + (1 << 20));
        assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
        assert_eq!(unpack(&bomb), None);
        assert_eq!(unpack(&zeroes(4 << 20)).map(|bytes| bytes.len()), Some(4 << 20));
    }

    proptest! {
        #[test]
        fn survives_other_bytes(
            content in prop::collection::vec(any::<u8>(), 0..2048),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            size in any::<prop::sample::Index>(),
        ) {
            let mut packed = pack([content.clone()]);
            prop_assert_eq!(unpack(&packed), Some(content));
            for (at, byte) in changes {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            let _ = unpack(&packed);
            let _ = unpack(&packed[..size.index(packed.len())]);
        }
    }
}

//! Reading a file in pieces that are given back: for sections too large to hold.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes that can be read from any place.
pub(in crate::inspect) trait ReadAt {
    /// Fills the buffer from an offset; false if there is not that much.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.read_exact_at(buffer, offset).is_ok()
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match start.checked_add(buffer.len()).and_then(|end| self.get(start..end)) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.as_slice().read_at(offset, buffer)
    }
}

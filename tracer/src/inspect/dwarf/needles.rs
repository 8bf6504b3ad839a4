//! Whether bytes hold one of many numbers: a quick look before a unit is read entry by entry.

use std::collections::HashSet;

/// The numbers, of four bytes each.
pub(super) struct Needles {
    bits: Vec<u64>,
    set: HashSet<u32>,
}

impl Needles {
    const BITS: u32 = 1 << 18;

    pub(super) fn new(numbers: impl Iterator<Item = u64>) -> Self {
        let mut needles = Self { bits: vec![0; (Self::BITS / 64) as usize], set: HashSet::new() };
        for number in numbers.filter_map(|number| u32::try_from(number).ok()) {
            let (word, bit) = Self::place(number);
            needles.bits[word] |= 1 << bit;
            needles.set.insert(number);
        }
        needles
    }

    fn place(number: u32) -> (usize, u32) {
        let hash = (number ^ number >> 18) % Self::BITS;
        ((hash / 64) as usize, hash % 64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether one of them is in the bytes, at whatever place.
    pub(super) fn any_in(&self, bytes: &[u8]) -> bool {
        !self.is_empty()
            && bytes.windows(4).any(|bytes| {
                let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let (word, bit) = Self::place(number);
                self.bits[word] >> bit & 1 != 0 && self.set.contains(&number)
            })
    }
}

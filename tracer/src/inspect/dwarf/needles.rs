//! Whether bytes hold one of many numbers: a quick look before a unit is read entry by entry.

/// The numbers, of four bytes each.
pub(super) struct Needles {
    bits: Vec<u64>,
    /// The filter has two to the power of this many bits.
    power: u32,
    /// In order.
    numbers: Vec<u32>,
    span: u32,
}

impl Needles {
    /// The largest filter stays in the processor's cache.
    const MAX_POWER: u32 = 20;

    pub(super) fn new(numbers: impl Iterator<Item = u64>) -> Self {
        let mut numbers: Vec<u32> = numbers.filter_map(|number| u32::try_from(number).ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let span = numbers.last().zip(numbers.first()).map_or(0, |(last, first)| last - first);
        let power = (numbers.len().max(16).ilog2() + 6).min(Self::MAX_POWER);
        let mut needles = Self { bits: vec![0; 1 << (power - 6)], power, numbers: Vec::new(), span };
        for number in &numbers {
            let (word, bit) = needles.place(*number);
            needles.bits[word] |= 1 << bit;
        }
        needles.numbers = numbers;
        needles
    }

    fn place(&self, number: u32) -> (usize, u32) {
        let hash = number.wrapping_mul(0x9e37_79b1) >> (32 - self.power);
        ((hash / 64) as usize, hash % 64)
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let (word, bit) = self.place(number);
        self.bits[word] >> bit & 1 != 0 && self.numbers.binary_search(&number).is_ok()
    }

    /// Whether one of them is in the bytes, at whatever place.
    pub(super) fn any_in(&self, bytes: &[u8]) -> bool {
        let Some(&first) = self.numbers.first() else { return false };
        bytes.windows(4).any(|bytes| {
            let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            number.wrapping_sub(first) <= self.span && self.has(number)
        })
    }
}

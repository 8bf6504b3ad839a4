//! Pointers that the loader fills in: which functions have their address taken, and which GOT slot stands for which
//! function.

use std::collections::{HashMap, HashSet};

use object::elf::{
    R_X86_64_64, R_X86_64_DTPMOD64, R_X86_64_GLOB_DAT, R_X86_64_IRELATIVE, R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE,
    R_X86_64_TLSDESC, SHT_RELA, SHT_RELR,
};

use crate::inspect::elf::image::{Image, Section};
use crate::inspect::elf::symbols::Symbols;

/// A relocation about thread-local storage.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct TlsRelocation {
    pub(in crate::inspect) slot: u64,
    /// A TLSDESC pair, else a module number.
    pub(in crate::inspect) descriptor: bool,
    /// Index of the dynamic symbol, zero if none.
    pub(in crate::inspect) symbol: u32,
    pub(in crate::inspect) addend: u64,
}

/// What the relocations say.
#[derive(Default)]
pub(in crate::inspect) struct Relocations {
    /// GOT slots and the functions they hold.
    pub(in crate::inspect) slots: HashMap<u64, u64>,
    /// Wanted functions whose address is in data.
    pub(in crate::inspect) taken: HashSet<u64>,
    pub(in crate::inspect) tls: Vec<TlsRelocation>,
}

struct Reader<'i, 'a> {
    image: &'i Image<'a>,
    wanted: &'i HashSet<u64>,
    got: Vec<(u64, u64)>,
    found: Relocations,
}

impl Relocations {
    pub(in crate::inspect) fn read(image: &Image<'_>, symbols: &Symbols<'_>, wanted: &HashSet<u64>) -> Self {
        let got = image.sections.iter().filter(|section| matches!(section.name, b".got" | b".got.plt"));
        let got = got.map(|section| (section.address, section.address.saturating_add(section.size))).collect();
        let mut reader = Reader { image, wanted, got, found: Self::default() };
        for section in image.sections.iter().filter(|section| section.address != 0) {
            match section.kind {
                SHT_RELA => reader.explicit(section, symbols),
                SHT_RELR => reader.packed(section),
                _ => {}
            }
        }
        if image.fixed {
            reader.words();
        }
        reader.found
    }
}

impl Reader<'_, '_> {
    fn pointer(&mut self, slot: u64, target: u64) {
        if self.got.iter().any(|(start, end)| (*start..*end).contains(&slot)) {
            if self.image.code_offset(target).is_some() {
                self.found.slots.insert(slot, target);
            }
        } else if self.wanted.contains(&target) {
            self.found.taken.insert(target);
        }
    }

    /// Relocations with an addend.
    fn explicit(&mut self, section: &Section<'_>, symbols: &Symbols<'_>) {
        for entry in self.image.section_bytes(section).unwrap_or_default().chunks_exact(24) {
            let (slot, info, addend) = (word(entry, 0), word(entry, 8), word(entry, 16));
            let (kind, symbol) = (info as u32, (info >> 32) as u32);
            match object::elf::RelocationType(kind) {
                R_X86_64_RELATIVE | R_X86_64_IRELATIVE => self.pointer(slot, addend),
                R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => {
                    if let Some(value) = symbols.dynamic_value(symbol) {
                        self.pointer(slot, value.wrapping_add(addend));
                    }
                }
                R_X86_64_TLSDESC => self.found.tls.push(TlsRelocation { slot, descriptor: true, symbol, addend }),
                R_X86_64_DTPMOD64 => self.found.tls.push(TlsRelocation { slot, descriptor: false, symbol, addend }),
                _ => {}
            }
        }
    }

    /// Relative relocations without an addend: an address, then bitmaps of the 63 words that follow.
    fn packed(&mut self, section: &Section<'_>) {
        let mut next = 0_u64;
        for entry in self.image.section_bytes(section).unwrap_or_default().chunks_exact(8) {
            let entry = word(entry, 0);
            if entry & 1 == 0 {
                self.in_place(entry);
                next = entry.wrapping_add(8);
                continue;
            }
            for bit in 1..64_u64 {
                if entry >> bit & 1 != 0 {
                    self.in_place(next.wrapping_add((bit - 1) * 8));
                }
            }
            next = next.wrapping_add(63 * 8);
        }
    }

    fn in_place(&mut self, slot: u64) {
        if let Some(bytes) = self.image.memory(slot, 8) {
            self.pointer(slot, word(bytes, 0));
        }
    }

    /// Without relocations, every aligned word of data may be a pointer.
    fn words(&mut self) {
        for segment in self.image.segments.iter().filter(|segment| !segment.executable) {
            let bytes = self.image.segment_bytes(segment);
            for (index, bytes) in bytes.chunks_exact(8).enumerate() {
                self.pointer(segment.address.wrapping_add(index as u64 * 8), word(bytes, 0));
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

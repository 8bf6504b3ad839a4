//! The height of the stack from `.eh_frame`, where following the instructions does not tell it.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, CommonInformationEntry, EhFrame, EndianSlice, LittleEndian, UnwindContext,
    UnwindSection as _, X86_64,
};

use crate::inspect::code::function::Function;
use crate::inspect::elf::image::Image;

/// The unwind tables of a file.
pub(in crate::inspect) struct Frames<'a> {
    section: EhFrame<EndianSlice<'a, LittleEndian>>,
    bases: BaseAddresses,
    /// Start of a function and the place of its table, by address.
    index: Vec<(u64, u64, usize)>,
}

impl<'a> Frames<'a> {
    pub(in crate::inspect) fn read(image: &Image<'a>) -> Self {
        let section = image.section(b".eh_frame");
        let bytes = section.and_then(|section| image.section_bytes(section)).unwrap_or_default();
        let bases = BaseAddresses::default().set_eh_frame(section.map_or(0, |section| section.address));
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        let mut frames = Self { section, bases, index: Vec::new() };
        frames.index = frames.functions();
        frames
    }

    fn functions(&self) -> Vec<(u64, u64, usize)> {
        let mut index = Vec::new();
        let mut entries = self.section.entries(&self.bases);
        // Most functions share one.
        let mut common: HashMap<usize, CommonInformationEntry<_>> = HashMap::new();
        while let Ok(Some(entry)) = entries.next() {
            let gimli::CieOrFde::Fde(partial) = entry else { continue };
            let offset = partial.offset();
            let parsed = partial.parse(|section, bases, at| match common.get(&at.0) {
                Some(known) => Ok(known.clone()),
                None => {
                    let parsed = EhFrame::cie_from_offset(section, bases, at)?;
                    common.insert(at.0, parsed.clone());
                    Ok(parsed)
                }
            });
            if let Ok(entry) = parsed {
                index.push((entry.initial_address(), entry.end_address(), offset));
            }
        }
        index.sort_unstable();
        index
    }

    /// Fills in what is not known, and forgets what the tables contradict.
    pub(in crate::inspect) fn complete(&self, function: &Function<'_>, deltas: &mut [Option<i64>]) {
        let at = self.index.partition_point(|(start, _, _)| *start <= function.address);
        let Some((_, end, offset)) = at.checked_sub(1).and_then(|at| self.index.get(at)) else { return };
        if *end < function.end() {
            return;
        }
        let entry =
            self.section.fde_from_offset(&self.bases, gimli::EhFrameOffset::from(*offset), EhFrame::cie_from_offset);
        let Ok(entry) = entry else { return };
        let mut context = UnwindContext::new();
        let Ok(mut table) = entry.rows(&self.section, &self.bases, &mut context) else { return };
        while let Ok(Some(row)) = table.next_row() {
            let CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } = *row.cfa() else { continue };
            let first = function.instructions.partition_point(|i| i.ip() < row.start_address());
            let last = function.instructions.partition_point(|i| i.ip() < row.end_address());
            for delta in deltas.get_mut(first..last).into_iter().flatten() {
                // The return address is the word below the canonical frame address.
                let said = Some(offset - 8);
                *delta = if delta.is_none() || *delta == said { said } else { None };
            }
        }
    }
}

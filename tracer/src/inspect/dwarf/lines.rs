//! The file names of a unit, from its line program.

use std::collections::{BTreeSet, HashMap};

use gimli::{AttributeValue, DebugLine, DebugLineOffset, LittleEndian};

use super::section::DebugSection;
use super::unit::{Sections, Slice, Text, Unit};

/// Longest line program that is read, in bytes.
const MAX_PROGRAM: usize = 64 << 20;

/// The line program of a unit.
pub(super) struct Lines {
    program: Vec<u8>,
    directory: Option<String>,
    address_size: u8,
}

impl Lines {
    pub(super) fn read(sections: &Sections<'_>, unit: &Unit<'_>) -> Option<Self> {
        let offset = unit.lines?;
        let size = usize::try_from(sections.lines.word(offset)?).ok()?.checked_add(4)?;
        sections.fuel.spend(size)?;
        let program = sections.lines.read_up_to(offset, size.min(MAX_PROGRAM))?;
        let directory = unit.directory.as_ref().and_then(|text| resolve(&sections.strings, text));
        Some(Self::of(program, directory, unit.header.address_size()))
    }

    pub(super) fn of(program: Vec<u8>, directory: Option<String>, address_size: u8) -> Self {
        Self { program, directory, address_size }
    }

    /// The paths of these files, by their numbers.
    pub(super) fn paths(&self, sections: &Sections<'_>, numbers: &[u64]) -> Vec<Option<String>> {
        let program = DebugLine::new(&self.program, LittleEndian);
        let Ok(program) = program.program(DebugLineOffset(0), self.address_size, None, None) else {
            return vec![None; numbers.len()];
        };
        let header = program.header();
        let text = |value: AttributeValue<Slice<'_>>| match value {
            AttributeValue::String(text) => text.to_string().ok().map(str::to_owned),
            AttributeValue::DebugLineStrRef(offset) => sections.line_strings.text(offset.0 as u64),
            AttributeValue::DebugStrRef(offset) => sections.line_names.text(offset.0 as u64),
            _ => None,
        };
        let path = |number: &u64| {
            let file = header.file(*number)?;
            let name = text(file.path_name())?;
            let directory = match file.directory_index() {
                // The directory of the compilation, which version 4 does not list.
                0 if header.version() <= 4 => self.directory.clone(),
                index => header.directory(index).and_then(text),
            };
            let directory = match directory {
                Some(directory) if !directory.starts_with('/') => {
                    self.directory.as_ref().map(|base| format!("{base}/{directory}")).or(Some(directory))
                }
                directory => directory,
            };
            Some(match directory {
                Some(directory) if !name.starts_with('/') => format!("{directory}/{name}"),
                _ => name,
            })
        };
        numbers.iter().map(path).collect()
    }

    /// The numbers of the files of the instructions at these addresses, and the parts of these functions that are from no line.
    pub(super) fn at(
        &self,
        addresses: &BTreeSet<u64>,
        functions: &BTreeSet<(u64, u64)>,
    ) -> (HashMap<u64, u64>, Vec<(u64, u64)>) {
        let (mut files, mut nowhere) = (HashMap::new(), Vec::new());
        let program = DebugLine::new(&self.program, LittleEndian);
        let Ok(program) = program.program(DebugLineOffset(0), self.address_size, None, None) else {
            return (files, nowhere);
        };
        let wanted =
            |address: u64| functions.range(..=(address, u64::MAX)).next_back().is_some_and(|(_, end)| address < *end);
        let mut rows = program.rows();
        let mut before: Option<(u64, u64, bool)> = None;
        while let Ok(Some((_, row))) = rows.next_row() {
            if let Some((start, file, placed)) = before
                && start < row.address()
            {
                files.extend(addresses.range(start..row.address()).map(|address| (*address, file)));
                if !placed && wanted(start) {
                    nowhere.push((start, row.address()));
                }
            }
            before = (!row.end_sequence()).then(|| (row.address(), row.file_index(), row.line().is_some()));
        }
        nowhere.sort_unstable();
        (files, nowhere)
    }
}

/// The text itself.
pub(super) fn resolve(strings: &DebugSection<'_>, text: &Text) -> Option<String> {
    match text {
        Text::At(offset) => strings.text(*offset),
        Text::Inline(text) => Some(text.clone()),
    }
}

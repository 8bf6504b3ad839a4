//! One unit of `.debug_info` in memory: its entries, and the attributes that matter here.

use std::ops::Range;
use std::rc::Rc;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, EntriesRaw, LittleEndian, Reader as _,
    UnitHeader, UnitType, constants as dw,
};

use super::lines::resolve;
use super::section::DebugSection;
use super::split::{Skeleton, Skeletons};
use crate::inspect::code::fuel::Fuel;

pub(super) type Slice<'u> = EndianSlice<'u, LittleEndian>;

/// Units larger than this are passed over, in bytes.
const MAX_UNIT: u64 = 128 << 20;
/// Largest table of abbreviations of one unit, in bytes.
const MAX_TABLE: usize = 1 << 20;
/// Longest list of ranges, in bytes.
const MAX_RANGES: usize = 1 << 20;

/// All sections that are read.
pub(super) struct Sections<'i> {
    pub(super) info: DebugSection<'i>,
    pub(super) strings: DebugSection<'i>,
    pub(super) string_offsets: DebugSection<'i>,
    pub(super) addresses: DebugSection<'i>,
    pub(super) ranges: DebugSection<'i>,
    pub(super) range_lists: DebugSection<'i>,
    pub(super) lines: DebugSection<'i>,
    pub(super) line_strings: DebugSection<'i>,
    /// The strings of the file that has the line programs.
    pub(super) line_names: DebugSection<'i>,
    pub(super) abbreviations: Vec<u8>,
    pub(super) fuel: Rc<Fuel>,
    /// The other halves of the units, if these are only the entries of split ones.
    pub(super) skeletons: Option<Rc<Skeletons>>,
}

/// The next unit's bytes.
pub(super) enum Next {
    Unit,
    /// It is too large or of a form that is not known.
    Skipped,
    End,
}

/// The offset behind the unit at an offset.
pub(super) fn end(info: &DebugSection<'_>, offset: u64) -> Option<u64> {
    let length = info.word(offset).filter(|length| *length < 0xffff_fff0)?;
    Some(offset + u64::from(length) + 4)
}

/// Whether entries of a unit can refer to other units, by its abbreviations; none if that cannot be told.
pub(super) fn refers_outside(sections: &Sections<'_>, offset: u64) -> Option<bool> {
    let version = sections.info.word(offset.checked_add(4)?)? as u16;
    let place = offset.checked_add(if version >= 5 { 8 } else { 6 })?;
    let start = sections.info.word(place)? as usize;
    Some(Table::skim(sections, start)?.outside)
}

/// The abbreviations of a unit.
struct Table {
    /// In bytes.
    size: usize,
    outside: bool,
}

impl Table {
    /// Finds the end of a table. Many units can share one, or pretend to.
    fn skim(sections: &Sections<'_>, start: usize) -> Option<Self> {
        let bytes = sections.abbreviations.get(start..)?;
        let mut rest = EndianSlice::new(bytes, LittleEndian);
        let mut outside = false;
        while rest.read_uleb128().ok()? != 0 {
            rest.read_uleb128().ok()?;
            rest.read_u8().ok()?;
            loop {
                let (name, form) = (rest.read_uleb128().ok()?, rest.read_uleb128().ok()?);
                outside |= form == u64::from(dw::DW_FORM_ref_addr.0);
                if form == u64::from(dw::DW_FORM_implicit_const.0) {
                    rest.read_sleb128().ok()?;
                }
                if (name, form) == (0, 0) {
                    break;
                }
            }
            if bytes.len() - rest.len() > MAX_TABLE {
                return None;
            }
        }
        let size = bytes.len() - rest.len();
        sections.fuel.spend(size)?;
        Some(Self { size, outside })
    }
}

/// Reads the unit at an offset into the buffer, and gives the offset of the next one.
pub(super) fn read(info: &DebugSection<'_>, offset: u64, buffer: &mut Vec<u8>) -> (Next, u64) {
    // Only the 32-bit form: the other one is for sections of more than 4 GiB.
    let Some(next) = end(info, offset) else { return (Next::End, offset) };
    let size = next - offset;
    // The buffer is made only for what is there.
    if next > info.size {
        return (Next::End, next);
    }
    if size > MAX_UNIT {
        return (Next::Skipped, next);
    }
    buffer.resize(size as usize, 0);
    match info.read_into(offset, buffer) {
        Some(()) => (Next::Unit, next),
        None => (Next::End, next),
    }
}

/// Something with a name: by its offset in the strings, or in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    At(u64),
    Inline(String),
}

/// The list of ranges of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ranges {
    None,
    Pair(u64, u64),
    List(u64),
}

/// The attributes of an entry.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) name: Option<Text>,
    pub(super) linkage_name: Option<Text>,
    /// Offset in `.debug_info` of the abstract instance or the declaration.
    pub(super) origin: Option<u64>,
    pub(super) ranges: Ranges,
    pub(super) entry: Option<u64>,
    pub(super) call_file: Option<u64>,
    pub(super) call_line: Option<u32>,
    lines: Option<u64>,
    directory: Option<Text>,
}

/// A unit.
pub(super) struct Unit<'u> {
    /// Its offset in `.debug_info`.
    pub(super) offset: u64,
    pub(super) header: UnitHeader<Slice<'u>>,
    pub(super) abbreviations: Abbreviations,
    sections: &'u Sections<'u>,
    base: u64,
    string_base: u64,
    address_base: u64,
    range_base: u64,
    /// What the offset of a list of ranges is counted from.
    list_base: u64,
    pub(super) lines: Option<u64>,
    pub(super) directory: Option<Text>,
    /// Where the entries are, if this is only the skeleton of the unit.
    pub(super) elsewhere: Option<Text>,
    /// The number that both halves of a split unit have.
    id: Option<u64>,
}

impl<'u> Unit<'u> {
    pub(super) fn parse(sections: &'u Sections<'u>, offset: u64, bytes: &'u [u8]) -> Option<Self> {
        let info = DebugInfo::new(bytes, LittleEndian);
        let header = info.units().next().ok()??;
        let start = header.debug_abbrev_offset().0;
        let table = Table::skim(sections, start)?;
        let table = sections.abbreviations.get(start..start.checked_add(table.size)?)?;
        let table = DebugAbbrev::new(table, LittleEndian);
        let abbreviations = table.abbreviations(gimli::DebugAbbrevOffset(0)).ok()?;
        let mut unit = Self {
            offset,
            header,
            abbreviations,
            sections,
            base: 0,
            string_base: 8,
            address_base: 8,
            range_base: 0,
            list_base: 0,
            lines: None,
            directory: None,
            elsewhere: None,
            id: match header.type_() {
                UnitType::Skeleton(id) | UnitType::SplitCompilation(id) => Some(id.0),
                _ => None,
            },
        };
        if let Some(skeletons) = &sections.skeletons {
            // Without a base of their own, the tables of such a unit begin behind the header of the section.
            let old = header.version() <= 4;
            (unit.string_base, unit.range_base) = if old { (0, 0) } else { (8, 12) };
            unit.read_root()?;
            let Skeleton { base, address_base, list_base, lines, directory, .. } = skeletons.get(&unit.id?)?;
            (unit.base, unit.address_base, unit.lines) = (*base, *address_base, *lines);
            unit.list_base = if old { *list_base } else { 0 };
            unit.directory = directory.clone().map(Text::Inline);
        } else {
            unit.read_root()?;
        }
        Some(unit)
    }

    /// What its other half needs of it, if it is the skeleton of a split unit.
    pub(super) fn skeleton(&self) -> Option<(u64, Skeleton)> {
        let text = |text: &Text| resolve(&self.sections.strings, text);
        let skeleton = Skeleton {
            name: text(self.elsewhere.as_ref()?)?,
            directory: self.directory.as_ref().and_then(text),
            base: self.base,
            address_base: self.address_base,
            list_base: self.range_base,
            lines: self.lines,
        };
        Some((self.id?, skeleton))
    }

    fn read_root(&mut self) -> Option<()> {
        let abbreviations = std::mem::take(&mut self.abbreviations);
        let root = self.root(&abbreviations);
        self.abbreviations = abbreviations;
        let root = root?;
        if let Ranges::Pair(low, _) = root.ranges {
            self.base = low;
        }
        (self.lines, self.directory) = (root.lines, root.directory);
        Some(())
    }

    fn root(&mut self, abbreviations: &Abbreviations) -> Option<Attributes> {
        // The bases come first: other attributes of the root may need them.
        let mut entries = self.header.entries_raw(abbreviations, None).ok()?;
        let mut elsewhere = None;
        for spec in entries.read_abbreviation().ok()??.attributes() {
            let attribute = entries.read_attribute(*spec).ok()?;
            match attribute.value() {
                AttributeValue::DebugStrOffsetsBase(base) => self.string_base = base.0 as u64,
                AttributeValue::DebugAddrBase(base) => self.address_base = base.0 as u64,
                AttributeValue::DebugRngListsBase(base) => self.range_base = base.0 as u64,
                AttributeValue::DwoId(id) => self.id = Some(id.0),
                name if matches!(attribute.name(), dw::DW_AT_dwo_name | dw::DW_AT_GNU_dwo_name) => {
                    elsewhere = Some(name)
                }
                _ => {}
            }
        }
        self.elsewhere = elsewhere.and_then(|name| self.text(&name));
        let mut entries = self.header.entries_raw(abbreviations, None).ok()?;
        let root = entries.read_abbreviation().ok()??;
        self.attributes(&mut entries, root.attributes())
    }

    /// Its entries from the root on.
    pub(super) fn entries(&self) -> Option<EntriesRaw<'_, Slice<'u>>> {
        self.header.entries_raw(&self.abbreviations, None).ok()
    }

    /// The attributes of the entry at an offset in `.debug_info`.
    pub(super) fn entry_at(&self, offset: u64) -> Option<Attributes> {
        let offset = gimli::UnitOffset(usize::try_from(offset.checked_sub(self.offset)?).ok()?);
        let mut entries = self.header.entries_raw(&self.abbreviations, Some(offset)).ok()?;
        let abbreviation = entries.read_abbreviation().ok()??;
        self.attributes(&mut entries, abbreviation.attributes())
    }

    /// Reads the attributes of the entry whose abbreviation was just read.
    pub(super) fn attributes(
        &self,
        entries: &mut EntriesRaw<'_, Slice<'u>>,
        specs: &[gimli::AttributeSpecification],
    ) -> Option<Attributes> {
        let mut found = Attributes {
            name: None,
            linkage_name: None,
            origin: None,
            ranges: Ranges::None,
            entry: None,
            call_file: None,
            call_line: None,
            lines: None,
            directory: None,
        };
        let (mut low, mut high) = (None, None);
        for spec in specs {
            let attribute = entries.read_attribute(*spec).ok()?;
            let value = attribute.value();
            match attribute.name() {
                dw::DW_AT_name => found.name = self.text(&value),
                dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => found.linkage_name = self.text(&value),
                dw::DW_AT_abstract_origin | dw::DW_AT_specification => {
                    found.origin = match value {
                        AttributeValue::UnitRef(offset) => Some(self.offset + offset.0 as u64),
                        AttributeValue::DebugInfoRef(offset) => Some(offset.0 as u64),
                        _ => None,
                    };
                }
                dw::DW_AT_low_pc => low = self.address(&value),
                dw::DW_AT_high_pc => high = Some(value),
                dw::DW_AT_entry_pc => found.entry = self.address(&value),
                dw::DW_AT_ranges => {
                    found.ranges = match value {
                        AttributeValue::RangeListsRef(offset) => self.list_at(offset.0),
                        AttributeValue::SecOffset(offset) => self.list_at(offset),
                        AttributeValue::DebugRngListsIndex(index) => self.range_list(index.0 as u64),
                        _ => Ranges::None,
                    };
                }
                dw::DW_AT_call_file => {
                    found.call_file = match value {
                        AttributeValue::FileIndex(index) => Some(index),
                        value => value.udata_value(),
                    };
                }
                dw::DW_AT_call_line => found.call_line = value.udata_value().and_then(|line| u32::try_from(line).ok()),
                dw::DW_AT_stmt_list => {
                    found.lines = match value {
                        AttributeValue::DebugLineRef(offset) => Some(offset.0 as u64),
                        AttributeValue::SecOffset(offset) => Some(offset as u64),
                        _ => None,
                    };
                }
                dw::DW_AT_comp_dir => found.directory = self.text(&value),
                _ => {}
            }
        }
        if let (Some(low), Some(high)) = (low, high) {
            let high = match high {
                AttributeValue::Udata(size) => low.checked_add(size),
                value => self.address(&value),
            };
            found.ranges = high.filter(|high| *high > low).map_or(found.ranges, |high| Ranges::Pair(low, high));
        } else if let (Some(low), Ranges::None) = (low, found.ranges) {
            found.ranges = Ranges::Pair(low, low);
        }
        Some(found)
    }

    fn address(&self, value: &AttributeValue<Slice<'u>>) -> Option<u64> {
        match value {
            AttributeValue::Addr(address) => Some(*address),
            AttributeValue::DebugAddrIndex(index) => self.indexed_address(index.0 as u64),
            _ => None,
        }
    }

    fn indexed_address(&self, index: u64) -> Option<u64> {
        self.sections.addresses.long(self.address_base.checked_add(index.checked_mul(8)?)?)
    }

    fn list_at(&self, offset: usize) -> Ranges {
        self.list_base.checked_add(offset as u64).map_or(Ranges::None, Ranges::List)
    }

    fn range_list(&self, index: u64) -> Ranges {
        let place = index.checked_mul(4).and_then(|into| self.range_base.checked_add(into));
        let offset = place.and_then(|place| self.sections.range_lists.word(place));
        offset.and_then(|offset| self.range_base.checked_add(offset.into())).map_or(Ranges::None, Ranges::List)
    }

    fn text(&self, value: &AttributeValue<Slice<'u>>) -> Option<Text> {
        match value {
            AttributeValue::DebugStrRef(offset) => Some(Text::At(offset.0 as u64)),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let place = self.string_base.checked_add((index.0 as u64).checked_mul(4)?)?;
                Some(Text::At(self.sections.string_offsets.word(place)?.into()))
            }
            AttributeValue::DebugLineStrRef(offset) => {
                Some(Text::Inline(self.sections.line_strings.text(offset.0 as u64)?))
            }
            AttributeValue::String(text) => Some(Text::Inline(text.to_string().ok()?.to_owned())),
            _ => None,
        }
    }

    /// Where the table is in `.debug_str_offsets` that has the unit's strings.
    pub(super) fn string_table(&self) -> Range<u64> {
        if self.sections.skeletons.is_some() {
            return 0..u64::MAX;
        }
        // Its length stands eight bytes before its first entry, and counts from four bytes before that.
        let length = self.string_base.checked_sub(8).and_then(|place| self.sections.string_offsets.word(place));
        let start = self.string_base;
        start..start.saturating_add(length.unwrap_or(0).into())
    }

    /// The ranges of an entry, in the order of the list; none if they cannot be read.
    pub(super) fn ranges(&self, ranges: Ranges) -> Option<Vec<(u64, u64)>> {
        let offset = match ranges {
            Ranges::None => return None,
            Ranges::Pair(low, high) => return Some(if low < high { vec![(low, high)] } else { Vec::new() }),
            Ranges::List(offset) => offset,
        };
        let encoding = self.header.encoding();
        let section = if encoding.version <= 4 { &self.sections.ranges } else { &self.sections.range_lists };
        // Most lists are short.
        [1 << 10, MAX_RANGES].into_iter().find_map(|most| {
            self.sections.fuel.spend(most / 16)?;
            self.decode(&section.read_up_to(offset, most)?)
        })
    }

    fn decode(&self, bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
        use gimli::RawRngListEntry::*;
        let lists = gimli::RangeLists::new(
            gimli::DebugRanges::new(bytes, LittleEndian),
            gimli::DebugRngLists::new(bytes, LittleEndian),
        );
        let mut raw = lists.raw_ranges(gimli::RangeListsOffset(0), self.header.encoding()).ok()?;
        let mut base = self.base;
        let mut found = Vec::new();
        while let Some(entry) = raw.next().ok()? {
            let (begin, end) = match entry {
                AddressOrOffsetPair { begin, end } | OffsetPair { begin, end } => {
                    (base.wrapping_add(begin), base.wrapping_add(end))
                }
                BaseAddress { addr } => {
                    base = addr;
                    continue;
                }
                BaseAddressx { addr } => {
                    base = self.indexed_address(addr.0 as u64)?;
                    continue;
                }
                StartxEndx { begin, end } => {
                    (self.indexed_address(begin.0 as u64)?, self.indexed_address(end.0 as u64)?)
                }
                StartxLength { begin, length } => {
                    let begin = self.indexed_address(begin.0 as u64)?;
                    (begin, begin.wrapping_add(length))
                }
                StartEnd { begin, end } => (begin, end),
                StartLength { begin, length } => (begin, begin.wrapping_add(length)),
            };
            self.sections.fuel.spend(16)?;
            if begin < end {
                found.push((begin, end));
            }
        }
        Some(found)
    }
}

//! Inlined prost calls, from the debug info.
//!
//! `.debug_info` is read unit by unit, and a unit is looked at entry by entry only if its bytes hold the name of a method or a
//! reference to one. So a file with much debug info costs a pass over its bytes, and the memory of its largest unit.

pub(super) mod fuzz;
mod lines;
pub(super) mod names;
mod needles;
mod origin;
mod section;
mod split;
mod unit;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

use crate::inspect::code::fuel::Fuel;
use crate::inspect::elf::debug_file::Elsewhere;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::symbols::demangle;
use crate::inspect::plan::Operation;
use lines::resolve;
use names::Name;
use needles::Needles;
use section::DebugSection;
use unit::{Next, Sections, Unit};

/// More calls than this are not planned.
const MAX_CALLS: usize = 65_536;
/// Bytes of tables and lists that are read again for each unit or entry, all together.
const MAX_WORK: u64 = 1 << 30;
/// Abbreviations beyond this many bytes are not read.
const MAX_ABBREVIATIONS: usize = 64 << 20;

/// A call of one of prost's methods whose code is part of another function.
#[derive(Clone, Debug)]
pub(super) struct InlinedCall {
    pub(super) operation: Operation,
    pub(super) message: String,
    pub(super) buffer: Option<String>,
    /// Start and end of the function around it.
    pub(super) function: (u64, u64),
    /// The function that calls, which may be inlined itself.
    pub(super) caller: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// Where its code is: start and end of each part.
    pub(super) ranges: Vec<(u64, u64)>,
    /// Code of its unit, or of the functions around its calls, that is from no line of the source; by address.
    pub(super) nowhere: Rc<[(u64, u64)]>,
    /// What is inlined into it, each behind the one that it is part of.
    pub(super) scopes: Vec<Scope>,
}

/// A function that is inlined into an inlined call.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// 1 for what the method itself calls.
    pub(super) depth: u16,
    /// Name without generics, where it matters.
    pub(super) name: Option<String>,
    pub(super) ranges: Vec<(u64, u64)>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) calls: Vec<InlinedCall>,
    /// Message and buffer of the methods that are functions, by address; none where several share one.
    pub(super) functions: HashMap<u64, Option<(String, Option<String>)>>,
    /// Code of tonic that encodes messages of one type: start and end of each part, and the type.
    pub(super) codecs: Vec<(Vec<(u64, u64)>, String)>,
    /// Some units could not be read.
    pub(super) incomplete: bool,
    /// Files with entries of split units that are not there.
    pub(super) missing: Vec<String>,
}

/// Finds the inlined calls of a file with debug info, and of the files in which the entries of its split units are.
pub(super) fn inlined_calls(image: &Image<'_>, elsewhere: Elsewhere<'_>) -> Found {
    let mut found = Found::default();
    let sections = Sections::open(image);
    let names = names::find(&sections.strings);
    search(&sections, &names, &mut found);
    split::search(&sections, elsewhere, &mut found);
    found
}

impl<'i> Sections<'i> {
    fn open(image: &Image<'i>) -> Self {
        let open = |name| DebugSection::open(image, name);
        let strings = open(".debug_str");
        Self {
            info: open(".debug_info"),
            string_offsets: open(".debug_str_offsets"),
            addresses: open(".debug_addr"),
            ranges: open(".debug_ranges"),
            range_lists: open(".debug_rnglists"),
            lines: open(".debug_line"),
            line_strings: open(".debug_line_str"),
            line_names: strings.clone(),
            strings,
            abbreviations: open(".debug_abbrev").read_up_to(0, MAX_ABBREVIATIONS).unwrap_or_default(),
            fuel: Rc::new(Fuel::new(MAX_WORK)),
            skeletons: None,
        }
    }
}

/// Finds the calls in these sections, of methods with these names.
fn search(sections: &Sections<'_>, names: &HashMap<u64, Rc<Name>>, found: &mut Found) {
    if names.is_empty() {
        return;
    }
    let methods = methods(sections, names, found);
    if methods.is_empty() {
        return;
    }
    let own: BTreeSet<u64> = methods.values().map(|(unit, _)| *unit).collect();
    let references = Needles::new(methods.keys().copied());
    let mut raw = Vec::new();
    let mut codecs = std::mem::take(&mut found.codecs);
    // Only units that can refer to others are of interest besides those that have a method themselves.
    let needed =
        |place: Range<u64>| own.contains(&place.start) || unit::refers_outside(sections, place.start).unwrap_or(true);
    some_units(sections, needed, &mut found.incomplete, |offset, bytes| {
        if own.contains(&offset) || references.any_in(bytes) {
            let unit = Unit::parse(sections, offset, bytes)?;
            walk::calls(sections, &unit, &methods, &mut codecs, &mut raw)?;
        }
        Some(())
    });
    found.codecs = codecs;
    found.incomplete |= raw.len() >= MAX_CALLS;
    let texts = texts(sections, &raw);
    let most = MAX_CALLS - found.calls.len().min(MAX_CALLS);
    found.calls.extend(raw.into_iter().take(most).map(|call| call.named(&texts)));
}

/// Calls `visit` for each unit; what it gives none for is not complete.
fn each_unit(sections: &Sections<'_>, incomplete: &mut bool, visit: impl FnMut(u64, &[u8]) -> Option<()>) {
    some_units(sections, |_| true, incomplete, visit);
}

/// Calls `visit` for each unit whose place is needed.
fn some_units(
    sections: &Sections<'_>,
    needed: impl Fn(Range<u64>) -> bool,
    incomplete: &mut bool,
    mut visit: impl FnMut(u64, &[u8]) -> Option<()>,
) {
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < sections.info.size {
        if let Some(behind) = unit::end(&sections.info, offset)
            && !needed(offset..behind)
        {
            offset = behind;
            continue;
        }
        let (next, behind) = unit::read(&sections.info, offset, &mut buffer);
        match next {
            Next::Unit => *incomplete |= visit(offset, &buffer).is_none(),
            Next::Skipped => *incomplete = true,
            Next::End => {
                *incomplete = true;
                break;
            }
        }
        offset = behind;
    }
}

/// The abstract instances of the methods, by their offsets, each with its unit.
fn methods(
    sections: &Sections<'_>,
    names: &HashMap<u64, Rc<Name>>,
    found: &mut Found,
) -> BTreeMap<u64, (u64, Rc<Name>)> {
    let direct = Needles::new(names.keys().copied());
    let tables = string_tables(sections, &direct);
    let mut methods = BTreeMap::new();
    let mut incomplete = found.incomplete;
    each_unit(sections, &mut incomplete, |offset, bytes| {
        // From version 5 on a unit has its strings by number, in a table of its own; a split one had that before.
        let numbered = sections.skeletons.is_some() || bytes.get(4).is_some_and(|version| *version >= 5);
        let by_number = numbered && !tables.is_empty();
        let by_offset = direct.any_in(bytes);
        if !by_offset && !by_number {
            return Some(());
        }
        let unit = Unit::parse(sections, offset, bytes)?;
        if !by_offset && tables.range(unit.string_table()).next().is_none() {
            return Some(());
        }
        walk::methods(&unit, names, &mut methods, found)
    });
    found.incomplete = incomplete;
    methods
}

/// Places in `.debug_str_offsets` that lead to one of the names.
fn string_tables(sections: &Sections<'_>, names: &Needles) -> BTreeSet<u64> {
    const CHUNK: usize = 4 << 20;
    let mut places = BTreeSet::new();
    let mut offset = 0;
    while let Some(bytes) = sections.string_offsets.read_up_to(offset, CHUNK).filter(|bytes| !bytes.is_empty()) {
        for (index, word) in bytes.chunks_exact(4).enumerate() {
            if names.has(u32::from_le_bytes([word[0], word[1], word[2], word[3]])) {
                places.insert(offset + index as u64 * 4);
            }
        }
        offset += bytes.len() as u64;
    }
    places
}

/// The names of the entries that calls refer to, by their offsets.
fn texts(sections: &Sections<'_>, raw: &[walk::RawCall]) -> HashMap<u64, String> {
    let mut wanted: BTreeSet<u64> = raw.iter().flat_map(walk::RawCall::references).collect();
    let mut found = HashMap::new();
    // A name can be that of another entry, in another unit.
    let mut aliases: Vec<(u64, u64)> = Vec::new();
    for _ in 0..4 {
        let mut more = BTreeSet::new();
        let needed = |place| wanted.range(place).next().is_some();
        some_units(sections, needed, &mut false, |offset, bytes| {
            let mut unit = None;
            for entry in wanted.range(offset..offset + bytes.len() as u64) {
                if unit.is_none() {
                    unit = Some(Unit::parse(sections, offset, bytes)?);
                }
                let Some(attributes) = unit.as_ref().and_then(|unit| unit.entry_at(*entry)) else { continue };
                let linkage = attributes.linkage_name.as_ref().and_then(|text| resolve(&sections.strings, text));
                let linkage = linkage.map(|name| demangle(&name)).filter(|name| !name.is_empty());
                let name = attributes.name.as_ref().and_then(|text| resolve(&sections.strings, text));
                match (linkage.or(name), attributes.origin) {
                    (Some(name), _) => drop(found.insert(*entry, name)),
                    (None, Some(origin)) => {
                        aliases.push((*entry, origin));
                        more.insert(origin);
                    }
                    _ => {}
                }
            }
            Some(())
        });
        more.retain(|entry| !found.contains_key(entry));
        if more.is_empty() {
            break;
        }
        wanted = more;
    }
    for (entry, origin) in aliases.into_iter().rev() {
        if let Some(name) = found.get(&origin).cloned() {
            found.insert(entry, name);
        }
    }
    found
}

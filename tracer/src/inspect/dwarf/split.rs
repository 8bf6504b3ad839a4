//! Split debug info: units whose entries are in other files (`-C split-debuginfo=unpacked` and `packed`).
//!
//! The program keeps a skeleton of each unit, with its addresses, lines and (before version 5) ranges. The entries are in a `.dwo`
//! file per unit, or all in one `.dwp` package with an index. Both halves have the same number of 64 bits, by which they are
//! matched: a file of another build is as good as none. One unit's entries are read after the other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use gimli::{DebugCuIndex, IndexSectionId, LittleEndian};

use super::section::DebugSection;
use super::unit::{self, Next, Sections, Unit};
use super::{Found, MAX_ABBREVIATIONS, names, search as search_in};
use crate::inspect::elf::debug_file::{Elsewhere, Opened};
use crate::inspect::elf::image::Image;

/// A skeleton has one entry: larger units are none.
const MAX_SKELETON: u64 = 4 << 10;
/// More of them than this are not the work of a compiler.
const MAX_SKELETONS: usize = 1 << 18;
/// The largest index of a package that is read, in bytes.
const MAX_INDEX: usize = 64 << 20;
/// Missing files beyond this many are not named.
const MAX_MISSING: usize = 64;

/// What a skeleton says for its unit.
#[derive(Clone, Debug)]
pub(super) struct Skeleton {
    /// The file with the entries.
    pub(super) name: String,
    pub(super) directory: Option<String>,
    pub(super) base: u64,
    pub(super) address_base: u64,
    pub(super) list_base: u64,
    pub(super) lines: Option<u64>,
}

/// By the numbers of their units.
pub(super) type Skeletons = HashMap<u64, Skeleton>;

/// Finds the calls in the split units of a file.
pub(super) fn search(main: &Sections<'_>, elsewhere: Elsewhere<'_>, found: &mut Found) {
    let skeletons = Rc::new(skeletons(main));
    if skeletons.is_empty() {
        return;
    }
    let packed = with(elsewhere.package(), |image| package(image, main, &skeletons, found)).unwrap_or_default();
    let others = skeletons.iter().filter(|(id, _)| !packed.contains(*id));
    // Several units can be in one file.
    let files: BTreeSet<_> =
        others.map(|(_, skeleton)| (skeleton.directory.as_deref(), skeleton.name.as_str())).collect();
    for (directory, name) in files {
        let read = with(elsewhere.object(directory, name), |image| object(image, main, &skeletons, found));
        if read.is_none() && found.missing.len() < MAX_MISSING {
            found.missing.push(name.to_owned());
        }
    }
}

fn with<T>(opened: Option<Opened>, work: impl FnOnce(&Image<'_>) -> T) -> Option<T> {
    let (cache, file) = opened?;
    Image::parse_any(&cache, &file).ok().map(|image| work(&image))
}

pub(super) fn skeletons(main: &Sections<'_>) -> Skeletons {
    let mut found = Skeletons::new();
    let (mut buffer, mut offset) = (Vec::new(), 0);
    while let Some(behind) = unit::end(&main.info, offset).filter(|_| found.len() < MAX_SKELETONS) {
        if behind - offset <= MAX_SKELETON {
            let (Next::Unit, _) = unit::read(&main.info, offset, &mut buffer) else { break };
            let unit = Unit::parse(main, offset, &buffer);
            found.extend(unit.and_then(|unit| unit.skeleton()));
        }
        offset = behind;
    }
    found
}

/// The sections that hold entries, of one object or of one in a package.
struct Parts<'i> {
    info: DebugSection<'i>,
    abbreviations: DebugSection<'i>,
    string_offsets: DebugSection<'i>,
    range_lists: DebugSection<'i>,
}

impl<'i> Parts<'i> {
    fn open(image: &Image<'i>) -> Self {
        let open = |name| DebugSection::open(image, name);
        Self {
            info: open(".debug_info.dwo"),
            abbreviations: open(".debug_abbrev.dwo"),
            string_offsets: open(".debug_str_offsets.dwo"),
            range_lists: open(".debug_rnglists.dwo"),
        }
    }

    /// The contributions of an object, in the same order.
    fn part(&self, [info, abbreviations, string_offsets, range_lists]: [(u32, u32); 4]) -> Self {
        let part = |section: &DebugSection<'i>, (start, size): (u32, u32)| section.part(start.into(), size.into());
        Self {
            info: part(&self.info, info),
            abbreviations: part(&self.abbreviations, abbreviations),
            string_offsets: part(&self.string_offsets, string_offsets),
            range_lists: part(&self.range_lists, range_lists),
        }
    }

    /// With what is in the program itself.
    fn sections(self, main: &Sections<'i>, strings: DebugSection<'i>, skeletons: &Rc<Skeletons>) -> Sections<'i> {
        let abbreviations = self.abbreviations.read_up_to(0, MAX_ABBREVIATIONS).unwrap_or_default();
        // Hostile indexes can name the same bytes again and again.
        let abbreviations = if main.fuel.spend(abbreviations.len()).is_some() { abbreviations } else { Vec::new() };
        Sections {
            info: self.info,
            strings,
            string_offsets: self.string_offsets,
            addresses: main.addresses.clone(),
            ranges: main.ranges.clone(),
            range_lists: self.range_lists,
            lines: main.lines.clone(),
            line_strings: main.line_strings.clone(),
            line_names: main.line_names.clone(),
            abbreviations,
            fuel: Rc::clone(&main.fuel),
            skeletons: Some(Rc::clone(skeletons)),
        }
    }
}

/// Finds the calls in a `.dwo` file.
pub(super) fn object(image: &Image<'_>, main: &Sections<'_>, skeletons: &Rc<Skeletons>, found: &mut Found) {
    let strings = DebugSection::open(image, ".debug_str.dwo");
    let names = names::find(&strings);
    search_in(&Parts::open(image).sections(main, strings, skeletons), &names, found);
}

/// Finds the calls in those units of a package that belong to the skeletons, and says which were there.
pub(super) fn package(
    image: &Image<'_>,
    main: &Sections<'_>,
    skeletons: &Rc<Skeletons>,
    found: &mut Found,
) -> HashSet<u64> {
    let index = DebugSection::open(image, ".debug_cu_index").read_up_to(0, MAX_INDEX).unwrap_or_default();
    let Ok(index) = DebugCuIndex::new(&index, LittleEndian).index() else { return HashSet::new() };
    let whole = Parts::open(image);
    let strings = DebugSection::open(image, ".debug_str.dwo");
    let names = names::find(&strings);
    // The units of one object share its contributions, which are read once.
    let mut rows: BTreeSet<[(u32, u32); 4]> = BTreeSet::new();
    let mut packed = HashSet::new();
    for id in skeletons.keys() {
        let Some(sections) = index.find(*id).and_then(|row| index.sections(row).ok()) else { continue };
        let mut row = [(0, 0); 4];
        for section in sections {
            let place = match section.section {
                IndexSectionId::DebugInfo => 0,
                IndexSectionId::DebugAbbrev => 1,
                IndexSectionId::DebugStrOffsets => 2,
                IndexSectionId::DebugRngLists => 3,
                _ => continue,
            };
            row[place] = (section.offset, section.size);
        }
        packed.insert(*id);
        rows.insert(row);
    }
    for row in rows {
        search_in(&whole.part(row).sections(main, strings.clone(), skeletons), &names, found);
    }
    packed
}

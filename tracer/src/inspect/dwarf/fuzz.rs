//! The parsers of debug info, one by one, for the fuzzers.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::lines::Lines;
use super::names::Name;
use super::section::DebugSection;
use super::split::{self, Skeleton};
use super::unit::Sections;
use super::{Found, origin};
use crate::inspect::elf::image::Image;

/// Reads a name as that of a method.
pub(in crate::inspect) fn name(name: &str) {
    let _ = Name::parse(name);
    let _ = origin::is_message_file(name);
}

/// Runs a line program.
pub(in crate::inspect) fn lines(image: &Image<'_>, program: &[u8]) {
    let lines = Lines::of(program.to_vec(), Some("/build".to_owned()), 8);
    let _ = lines.paths(&Sections::open(image), &[0, 1, 2, 255]);
    let _ = lines.at(&BTreeSet::from([0x1000, 0x1010]), &BTreeSet::from([(0x1000, 0x2000)]));
}

/// Reads the other halves of a file's units from objects, and from a package.
pub(in crate::inspect) fn split(main: &Image<'_>, other: &Image<'_>) {
    let sections = Sections::open(main);
    let mut skeletons = split::skeletons(&sections);
    // Numbers that fit are hard to guess.
    for id in [0, 1, u64::MAX] {
        let skeleton =
            Skeleton { name: String::new(), directory: None, base: 0, address_base: 0, list_base: 0, lines: Some(0) };
        skeletons.entry(id).or_insert(skeleton);
    }
    let skeletons = Rc::new(skeletons);
    let mut found = Found::default();
    let _ = split::package(other, &sections, &skeletons, &mut found);
    split::object(other, &sections, &skeletons, &mut found);
}

/// Unpacks a section.
pub(in crate::inspect) fn unpack(image: &Image<'_>) {
    let section = DebugSection::open(image, ".debug_str");
    let _: (Option<Vec<u8>>, HashMap<_, _>) = (section.read_up_to(0, 1 << 16), super::names::find(&section));
}

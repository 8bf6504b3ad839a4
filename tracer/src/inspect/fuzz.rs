//! The parsers one by one, for the fuzzers: each is quicker alone than behind all others.

use std::collections::HashSet;

use super::prost::names;
use super::runtime::tokio;
use super::{Elsewhere, debug_data, notes, producers, tls};
use crate::inspect::code::flow::Flow;
use crate::inspect::code::frames::Frames;
use crate::inspect::code::function::Function;
use crate::inspect::dwarf::{self, fuzz};
use crate::inspect::elf::debug_data::DebugData;
use crate::inspect::elf::debug_file;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{self, Symbols};
use crate::inspect::prost::messages::Catalog;

/// Reads a name in every way.
pub fn name(name: &str) {
    let demangled = symbols::demangle(name);
    for name in [name, &demangled] {
        let _ = names::method(name);
        let _ = names::short_name(name);
        let _ = (names::makes_decode_error(name), names::is_rust_panic(name));
        fuzz::name(name);
    }
}

/// Everything of a file but debug info and code: headers, symbols, relocations, notes, links and versions.
pub fn tables(bytes: &[u8]) {
    let Ok(image) = Image::parse_any(bytes, &bytes) else { return };
    let symbols = Symbols::read(&image, Some(&image), &DebugData::Absent);
    let catalog = Catalog::read(&symbols);
    let relocations = Relocations::read(&image, &symbols, &catalog.wanted());
    let _ = (tls::tls(&image, &symbols, &relocations), tokio::task_id_offset(&image, 0));
    let _ = (notes::build_id(&image), notes::usdt(&image), producers(&image));
    let _ = (debug_file::link(&image), debug_file::checksum(&image));
    let _ = Relocations::read(&image, &symbols, &HashSet::from([0]));
}

/// The debug info of a file.
pub fn debug_info(bytes: &[u8]) {
    let Ok(image) = Image::parse_any(bytes, &bytes) else { return };
    let found = dwarf::inlined_calls(&image, Elsewhere { program: None });
    for call in found.calls {
        assert!(!call.ranges.is_empty() && call.function.0 < call.function.1, "{call:?}");
    }
}

/// The debug info of a file whose units are split, with the other halves in another file.
pub fn split(main: &[u8], other: &[u8]) {
    let (Ok(main), Ok(other)) = (Image::parse_any(main, &main), Image::parse_any(other, &other)) else { return };
    fuzz::split(&main, &other);
}

/// A line program, and a file with the sections that it refers to.
pub fn lines(file: &[u8], program: &[u8]) {
    let Ok(image) = Image::parse_any(file, &file) else { return };
    fuzz::lines(&image, program);
}

/// A packed section.
pub fn unpack(bytes: &[u8]) {
    let Ok(image) = Image::parse_any(bytes, &bytes) else { return };
    fuzz::unpack(&image);
}

/// An xz file, as in `.gnu_debugdata`.
pub fn debug_data(bytes: &[u8]) {
    debug_data::fuzz(bytes);
}

/// The unwind tables of a file, for the function at an address.
pub fn unwind(bytes: &[u8], address: u64, size: u64) {
    let Ok(image) = Image::parse_any(bytes, &bytes) else { return };
    let frames = Frames::read(&image);
    let Some(function) = Function::decode(&image, address, size) else { return };
    let mut deltas = Flow::new(&image, &function).stack_deltas();
    frames.complete(&function, &mut deltas);
}

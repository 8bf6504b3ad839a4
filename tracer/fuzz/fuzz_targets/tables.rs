//! Any bytes as symbols, relocations, notes, links and texts of a well-formed file, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, TABLES};
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::tables(&elf::from_sections(&TABLES, &elf::split(bytes))));

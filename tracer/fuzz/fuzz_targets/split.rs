//! Any bytes as split debug info: the sections of a program, then those of an object or a package, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, DEBUG, SPLIT};
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| {
    let parts = elf::split(bytes);
    let (main, other) = parts.split_at(parts.len().min(DEBUG.len()));
    fuzz::split(&elf::from_sections(&DEBUG, main), &elf::from_sections(&SPLIT, other));
});

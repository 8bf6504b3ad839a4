//! Any bytes as unwind tables, behind the code of a function with its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, CODE};
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| {
    let parts = elf::split(bytes);
    let size = parts.first().map_or(0, |code| code.len().min(256));
    fuzz::unwind(&elf::from_sections(&[(".text", 1, 6), (".eh_frame", 1, 2)], &parts), CODE, size as u64);
});

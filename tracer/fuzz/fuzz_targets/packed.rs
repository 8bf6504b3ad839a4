//! Any bytes as a packed section, of both kinds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf;
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::unpack(&elf::from_sections(&[(".debug_str", 1, 0x800)], &[bytes]));
    fuzz::debug_data(bytes);
});

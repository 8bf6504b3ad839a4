//! Any bytes as the sections of debug info, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, DEBUG};
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::debug_info(&elf::from_sections(&DEBUG, &elf::split(bytes))));

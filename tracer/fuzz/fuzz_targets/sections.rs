//! Any bytes as the content of each section of a well-formed file: no headers stand in the way of the parsers.
//!
//! The input is the contents one after the other, each behind its length in two bytes.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, PROGRAM};
use tracer_fuzz::inspect::inspect_bytes;

fuzz_target!(|bytes: &[u8]| {
    let file = elf::from_sections(&PROGRAM, &elf::split(bytes));
    let plan = inspect_bytes(&file, Path::new("fuzz")).expect("the headers are well formed");
    for function in &plan.messages {
        let sites = std::iter::once(&function.entry).chain(&function.exits);
        assert!(sites.into_iter().all(|site| site.offset < file.len() as u64), "a probe outside of the file");
    }
});

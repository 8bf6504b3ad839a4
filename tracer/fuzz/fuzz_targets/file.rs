//! Any bytes as a file: every parser of ELF, DWARF, notes, symbols and unwind tables, behind whatever headers there are.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::inspect::{inspect_bytes, render};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plan) = inspect_bytes(bytes, Path::new("fuzz")) {
        let _ = render::table(&plan, 100);
    }
});

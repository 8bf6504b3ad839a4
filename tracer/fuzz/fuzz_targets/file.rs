//! Any bytes as a file: every parser of ELF, DWARF, notes, symbols and unwind tables, behind whatever headers there are.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

// By path: the rest of the agent would only make the build long.
#[expect(dead_code, unreachable_pub, reason = "the agent uses more of it")]
#[path = "../../src/inspect/mod.rs"]
mod inspect;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plan) = inspect::inspect_bytes(bytes, Path::new("fuzz")) {
        let _ = inspect::render::table(&plan, 100);
    }
});

//! Any bytes as a line program.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::elf::{self, DEBUG};
use tracer_fuzz::inspect::fuzz;

/// With the texts that a program refers to.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    elf::from_sections(&DEBUG, &[b"", b"", b"dir\0message.rs\0", b"", b"", b"", b"", b"", b"src\0file\0"])
});

fuzz_target!(|program: &[u8]| fuzz::lines(&FILE, program));

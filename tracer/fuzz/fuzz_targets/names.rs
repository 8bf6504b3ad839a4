//! Any bytes as names: symbols in both manglings, and functions of the debug info.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|name: &str| fuzz::name(name));

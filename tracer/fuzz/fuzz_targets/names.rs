//! Any bytes as names: symbols in both manglings, and functions of the debug info.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[expect(dead_code, unreachable_pub, reason = "the agent uses more of it")]
#[path = "../../src/inspect/mod.rs"]
mod inspect;

fuzz_target!(|name: &str| inspect::fuzz_names(name));

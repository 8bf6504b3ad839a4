//! Any bytes as a file, of which all but code and debug info is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::inspect::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::tables(bytes));

//! `tracer`: parses arguments and calls the library.

fn main() {}

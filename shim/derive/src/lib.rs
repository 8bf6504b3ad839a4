//! Macros of `tracer-shim`.

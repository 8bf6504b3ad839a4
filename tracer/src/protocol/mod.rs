//! What the captured bytes say: RESP, MySQL, trace headers. Pure and incremental: no I/O, no clock, no thread.
//!
//! Everything here reads bytes of programs that may be broken or hostile: whatever they hold, there is no panic, memory
//! is bounded, and what could not be understood is counted.

pub mod mysql;
pub mod parts;
pub mod redis;
pub mod resp;
pub mod stream;
pub mod trace_context;
pub mod traceparent;

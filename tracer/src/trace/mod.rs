//! From events to spans: flows, parents, sampling. Pure and deterministic: no /proc, no clock, no I/O.

pub mod sampler;
pub mod span;

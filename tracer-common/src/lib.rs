//! What the eBPF programs and the agent share: ring-buffer records, map keys and values, limits.
//!
//! Everything here is `#[repr(C)]`, without padding, `bool`, `Option` or enum fields, so that any bit pattern that the
//! kernel side writes is a valid value on the agent side. Times are nanoseconds of `CLOCK_MONOTONIC`
//! (`bpf_ktime_get_ns`). Process and thread numbers are those of the initial pid namespace.
#![no_std]

pub mod map;
pub mod record;

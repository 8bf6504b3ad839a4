//! The probe planner on real binaries: a sample built in several ways, and damaged copies of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod debug_info;
mod hostile;
mod live;
mod plan;
mod sample;

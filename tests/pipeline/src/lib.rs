//! What the order services share: flags, Aeron, frames on a TCP stream, and a log of what happened when.
//!
//! Nothing here knows of the tracer. What the shim changes in a service stands in the service, behind `cfg(feature = "shim")`,
//! and `tests/tests/shim_lines.rs` counts it.

pub mod aeron;
pub mod frames;
pub mod hops;
#[cfg(feature = "otel")]
mod otel;
pub mod settings;
pub mod stop;

pub use hops::{Hops, now};
pub use settings::Settings;
pub use stop::Stop;

/// Aeron streams between the services, all on `aeron:ipc`.
pub mod streams {
    /// ufes to risk_control.
    pub const REQUESTS: i32 = 1001;
    /// risk_control to msg_order_engine.
    pub const RESULTS: i32 = 1002;
    /// msg_order_engine to risk_control.
    pub const EXECUTIONS: i32 = 1003;
    /// risk_control to ufes.
    pub const REPORTS: i32 = 1004;
}

//! From events to spans: flows, parents, sampling. Pure and deterministic: no /proc, no clock, no I/O.
//!
//! The parent of what happens on a thread is, by the first rule that applies:
//! 1. the thread's active context (OTEP 4947), as the probe saw it;
//! 2. the header that the sender put into the message ([`crate::protocol::trace_context`]);
//! 3. the flow: the message that the same tokio task, else the same thread, decoded last.
//!
//! Otherwise a new trace begins. A decoded message has no flow yet: without a header, and unless another process was seen to
//! encode the same bytes ([`parents::payload`]), it begins a trace, because a consumer that handles one message
//! after the other would else make one trace of them all.

mod correlator;
mod counts;
pub mod database;
mod ids;
mod memory;
mod message;
mod parents;
pub mod sampler;
mod shim;
#[cfg(test)]
mod tests;
pub mod waits;

pub use correlator::{Correlator, Options, Output};
pub use counts::Counts;
pub use database::durations::{self, Durations, Figures, Histogram, Series};
pub use waits::server;
pub use waits::spans::Wait;

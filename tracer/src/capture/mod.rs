//! Ring-buffer records to events, and the recorded form of the same events.
//!
//! Live capture and a recording feed the same [`crate::trace::Correlator`] with the same [`Item`]s, so that everything behind
//! capture can be tested, replayed and measured without root.

pub mod event;
pub mod item;
pub mod recording;

pub use event::{Event, Malformed, addresses, steps};
pub use item::Item;

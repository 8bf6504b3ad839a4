//! What the page asks, each answered as JSON from the [`Traces`](super::store::Traces).
//!
//! Durations and times within a trace are nanoseconds as numbers. Times since 1970 are nanoseconds as texts, because a number of
//! JavaScript has too few digits for them. Values of attributes are texts for the same reason.

mod attributes;
mod critical_path;
mod download;
mod duration;
mod latency;
mod map;
mod redis;
mod search;
mod summary;
mod trace;
mod tree;

#[cfg(test)]
pub use attributes::text;
pub use download::{Format, download};
pub use latency::{Wanted, heat_map, operations};
pub use map::map;
pub use redis::redis;
pub use search::{Query, search};
pub use summary::summary;
pub use trace::trace;

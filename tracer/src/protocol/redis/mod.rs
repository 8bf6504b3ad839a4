//! Redis as a client process speaks it: socket bytes in, one [`Command`] per command out.
//!
//! A [`Tracker`] reads both directions of one connection. Requests and replies are framed independently and paired in
//! order by a session that knows what a reply means: `+QUEUED`, a subscription's confirmation, a push message that answers
//! nothing.
//!
//! What is never done: values are not kept (only a bounded prefix of each argument is looked at), and a span is not made
//! of bytes that were not understood. What could not be told apart is counted in [`Diagnostics`].
//!
//! ```
//! use tracer::protocol::redis::{Chunk, Direction, Role, Tracker};
//!
//! let mut tracker = Tracker::new(Role::Client);
//! let mut commands = Vec::new();
//! let mut call = |direction, data: &[u8], start_ns, end_ns| {
//!     let chunk = Chunk { direction, offset: 0, len: data.len() as u64, data, start_ns, end_ns };
//!     tracker.feed(chunk, (), &mut commands);
//! };
//! call(Direction::Sent, b"*2\r\n$3\r\nGET\r\n$5\r\norder\r\n", 100, 110);
//! call(Direction::Received, b"$-1\r\n", 200, 210);
//! assert_eq!(commands[0].query_text.as_deref(), Some("GET ?"));
//! assert_eq!(commands[0].end_ns - commands[0].start_ns, 110);
//! ```

mod batch;
mod classify;
mod command;
mod commands;
mod diagnostics;
mod error;
mod print;
mod reply;
mod request;
mod session;
mod silence;
mod subcommands;
mod subscriptions;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod tracker;

pub use super::stream::{Chunk, Direction, Quality, Verdict};
pub use classify::{looks_like_redis, looks_like_replies};
pub use command::{Batch, BatchKind, Command, Failure, span_name};
pub use diagnostics::Diagnostics;
pub use error::ErrorReply;
pub use print::fingerprints;
pub use text::QueryText;
pub use tracker::{Role, Tracker};

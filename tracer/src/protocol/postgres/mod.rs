//! PostgreSQL as a client process speaks it: socket bytes in, one [`Command`](super::command::Command) per command out.
//!
//! A [`Tracker`] reads both directions of one connection. A simple query is a command. Of the extended protocol a command is what
//! leads to an Execute (Parse, Bind, Describe, Execute), and what a client sends without one until it waits for an answer: a
//! statement that is prepared, described or closed. Each message that is answered is a step, and the steps wait for their answers
//! in order; after an error the server answers nothing up to the next Sync. The last command before a Sync ends with the answer to
//! that, which is when its transaction is committed.
//!
//! What is never done: rows, parameters and authentication messages are not kept, and a span is not made of bytes that were not
//! understood. A connection that was open before the agent came is followed from a call that consists of whole messages on.
//! What could not be told apart is counted in [`Diagnostics`](super::diagnostics::Diagnostics).
//!
//! Source: the chapter "Frontend/Backend Protocol" of the PostgreSQL documentation.

use std::fmt::Debug;

use tracer_common::record::PROTOCOL_POSTGRES;

use super::conversation::{Protocol, attributes};
use super::stream::Direction;

mod message;
mod reply;
mod request;
mod session;
mod startup;
mod statements;
mod steps;
#[cfg(test)]
mod tests;
mod tracker;

pub use tracker::Tracker;

/// Its row in the table of protocols.
pub const fn protocol<T: Clone + Debug + 'static>() -> Protocol<T> {
    Protocol {
        number: PROTOCOL_POSTGRES,
        name: "postgresql",
        port: 5432,
        attributes: attributes!("postgresql"),
        begins: |direction, bytes| direction == Direction::Sent && startup::is_startup(bytes),
        follow: |shown, opened_before| Box::new(Tracker::new(shown, opened_before)),
    }
}

//! MySQL and MariaDB as a client process speaks them: socket bytes in, one [`Command`](super::command::Command) per command out.
//!
//! A [`Tracker`] reads both directions of one connection. Packets are framed independently; what a reply packet means depends
//! on the command that it answers and on what both sides agreed on when they connected. A connection that was open before the
//! agent came has agreed on things unseen: those are told from the shape of the replies.
//!
//! What is never done: rows, parameters and authentication data are not kept (the first bytes of a packet are looked at), and a
//! span is not made of bytes that were not understood. Every packet has a number in its exchange, which must fit. What could not
//! be told apart is counted in [`Diagnostics`](super::diagnostics::Diagnostics).
//!
//! Source: the chapters "Client/Server Protocol" of the MySQL and MariaDB documentation.

use std::fmt::Debug;

use tracer_common::record::PROTOCOL_MYSQL;

use super::conversation::{Protocol, attributes};
use super::stream::Direction;

mod classify;
mod dialect;
mod handshake;
mod packet;
mod reply;
mod session;
mod statements;
#[cfg(test)]
mod tests;
mod tracker;
mod verb;

pub use tracker::Tracker;

/// Its row in the table of protocols.
pub const fn protocol<T: Clone + Debug + 'static>() -> Protocol<T> {
    Protocol {
        number: PROTOCOL_MYSQL,
        name: "mysql",
        port: 3306,
        attributes: attributes!("mysql"),
        // The server greets. The programs take the first bytes that are received for MySQL only if they are a greeting.
        begins: |direction, _| direction == Direction::Received,
        follow: |shown, opened_before| Box::new(Tracker::new(shown, opened_before)),
    }
}

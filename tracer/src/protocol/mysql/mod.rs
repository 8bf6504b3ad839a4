//! MySQL and MariaDB as a client process speaks them: socket bytes in, one [`Command`] per command out.
//!
//! A [`Tracker`] reads both directions of one connection. Packets are framed independently; what a reply packet means depends
//! on the command that it answers and on what both sides agreed on when they connected. A connection that was open before the
//! agent came has agreed on things unseen: those are told from the shape of the replies.
//!
//! What is never done: rows, parameters and authentication data are not kept (the first bytes of a packet are looked at), and a
//! span is not made of bytes that were not understood. Every packet has a number in its exchange, which must fit. What could not
//! be told apart is counted in [`Diagnostics`].
//!
//! Source: the chapters "Client/Server Protocol" of the MySQL and MariaDB documentation.

mod classify;
mod command;
mod diagnostics;
mod dialect;
mod handshake;
mod packet;
mod reply;
mod session;
mod sql;
mod statements;
#[cfg(test)]
mod tests;
mod tracker;
mod verb;

pub use command::{Command, ErrorReply, Failure};
pub use diagnostics::Diagnostics;
pub use sql::{Shown, Statement};
pub use tracker::Tracker;

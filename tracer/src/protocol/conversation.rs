//! What a protocol of databases has to offer: something that follows one connection, and a row that says how it is called.
//!
//! A conversation is fed with what socket calls passed, in both directions and with gaps, and gives out finished commands. It is
//! pure and bounded, and bytes that it cannot make sense of cost spans, never a panic.

use std::fmt::Debug;

use super::command::Command;
use super::diagnostics::Diagnostics;
use super::sql::Shown;
use super::stream::{Chunk, Direction, Quality, Verdict};

/// Follows one connection of a client. `T` is what the caller wants to know again of a command's sender.
pub trait Conversation<T>: Debug {
    /// Takes what a call passed; finished commands go to `out`. Chunks of one direction come in order, perhaps with gaps.
    fn feed(&mut self, chunk: Chunk<'_>, tag: T, out: &mut Vec<Command<T>>);

    /// Whether this is the protocol, by what was understood so far. `No` is also what has become unreadable.
    fn verdict(&self) -> Verdict;

    /// It is the protocol, but cannot be followed any further.
    fn has_ended(&self) -> bool;

    /// What follows is encrypted, because the client has asked for it.
    fn is_encrypted(&self) -> bool;

    /// Stream offset below which bytes of this direction are not needed, because they are the inside of a long value. Never goes
    /// back.
    fn skip(&self, direction: Direction) -> u64;

    /// The connection ended: commands that wait for a reply have failed.
    fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>);

    /// Commands that are neither given out nor counted in the diagnostics.
    fn open_commands(&self) -> usize;

    /// About how many bytes it takes beside itself.
    fn bytes(&self) -> usize;

    /// Gives back what [`Conversation::bytes`] counts, as if bytes of both directions had been lost: commands that wait are
    /// counted, and statements that were prepared have no text any more.
    fn give_up(&mut self);

    /// The counters since the last call; none of a connection that may be something else.
    fn diagnostics(&mut self) -> Diagnostics;
}

/// The beginning of a message of the client, as the record that brought it tells.
#[derive(Clone, Debug)]
pub(super) struct Begun<T> {
    pub tag: T,
    pub start_ns: u64,
    pub earliest_ns: u64,
    /// It is clear which answer is whose.
    pub aligned: bool,
    pub quality: Quality,
}

/// A protocol: a row of the table [`Protocol::ALL`].
#[derive(Debug)]
pub struct Protocol<T: 'static> {
    /// One of the records' `PROTOCOL_*`.
    pub number: u16,
    /// In the names of counters.
    pub name: &'static str,
    /// Port that need not be said.
    pub port: u16,
    /// Names of its attributes.
    pub attributes: Attributes,
    /// Whether a connection begins with these bytes: then nothing passed it before.
    pub begins: fn(Direction, &[u8]) -> bool,
    /// Follows a new connection, or one that was open before the agent came.
    pub follow: fn(Shown, opened_before: bool) -> Box<dyn Conversation<T>>,
}

impl<T: Clone + Debug + 'static> Protocol<T> {
    /// The protocol of a record, and its place in the table.
    pub fn of(number: u16) -> Option<(usize, &'static Self)> {
        Self::ALL.iter().enumerate().find(|(_, protocol)| protocol.number == number)
    }
}

/// Names of attributes that the conventions do not have.
#[derive(Debug)]
pub struct Attributes {
    /// [`Command::name`].
    pub command: &'static str,
    /// [`Command::affected_rows`].
    pub affected_rows: &'static str,
    /// [`Command::request_bytes`].
    pub request_size: &'static str,
    /// [`Command::response_bytes`].
    pub response_size: &'static str,
    /// [`Command::quality`], where it is in doubt.
    pub pairing: &'static str,
}

/// The [`Attributes`] of a protocol: `tracer.mysql.command` and so on.
macro_rules! attributes {
    ($name:literal) => {
        $crate::protocol::conversation::Attributes {
            command: concat!("tracer.", $name, ".command"),
            affected_rows: concat!("tracer.", $name, ".affected_rows"),
            request_size: concat!("tracer.", $name, ".request.size"),
            response_size: concat!("tracer.", $name, ".response.size"),
            pairing: concat!("tracer.", $name, ".pairing"),
        }
    };
}
pub(crate) use attributes;

//! Conversations made by hand, whole and in pieces.

mod copies;
mod dialogue;
mod losses;
mod pipelines;

use super::Tracker;
use crate::protocol::command::{Command, Failure};
use crate::protocol::conversation::Conversation as _;
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::sql::Shown;
use crate::protocol::stream::{Chunk, Direction};

/// A message of a kind.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 + 4).to_be_bytes();
    [&[kind], &len[..], body].concat()
}

/// A client's first message.
pub(super) fn startup(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

pub(super) fn login() -> Vec<u8> {
    startup(b"\0\x03\0\0user\0tester\0database\0shop\0client_encoding\0UTF8\0\0")
}

pub(super) const TLS: &[u8] = b"\x04\xd2\x16\x2f";

/// The server accepts, and tells its settings.
pub(super) fn accepted() -> Vec<u8> {
    [
        message(b'R', b"\0\0\0\0"),
        message(b'S', b"client_encoding\0UTF8\0"),
        message(b'S', b"standard_conforming_strings\0on\0"),
        message(b'K', b"\0\0\0\x01SECR"),
        ready(),
    ]
    .concat()
}

pub(super) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(super) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

pub(super) fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\x01\0\0\0\x06SECRET\0\0").as_bytes())
}

pub(super) fn describe(what: &str, name: &str) -> Vec<u8> {
    message(b'D', format!("{what}{name}\0").as_bytes())
}

pub(super) fn close(what: &str, name: &str) -> Vec<u8> {
    message(b'C', format!("{what}{name}\0").as_bytes())
}

pub(super) fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// Parse, Bind, Describe and Execute of the statement without a name.
pub(super) fn unnamed(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), describe("P", ""), execute("")].concat()
}

pub(super) fn done(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

pub(super) fn row() -> Vec<u8> {
    message(b'D', b"\0\x01\0\0\0\x06SECRET")
}

pub(super) fn columns() -> Vec<u8> {
    message(b'T', b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0")
}

/// Rows of a simple query, and that the server is ready.
pub(super) fn rows(count: usize) -> Vec<u8> {
    [columns(), row().repeat(count), done(&format!("SELECT {count}")), ready()].concat()
}

/// The answers to [`unnamed`].
pub(super) fn executed(tag: &str, count: usize) -> Vec<u8> {
    [message(b'1', b""), message(b'2', b""), columns(), row().repeat(count), done(tag)].concat()
}

pub(super) fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mrelation \"SECRET\" does not exist\0\0").as_bytes())
}

/// One conversation; each call takes a microsecond.
pub(super) struct Dialogue {
    pub tracker: Tracker<u32>,
    pub commands: Vec<Command<u32>>,
    pub now: u64,
    pub offsets: [u64; 2],
    tag: u32,
}

impl Dialogue {
    pub fn new(opened_before: bool) -> Self {
        let tracker = Tracker::new(Shown::Sanitized, opened_before);
        Self { tracker, commands: Vec::new(), now: 1_000, offsets: [0; 2], tag: 0 }
    }

    /// Connected, and logged in.
    pub fn connected() -> Self {
        let mut dialogue = Self::new(false);
        dialogue.sent(&login());
        dialogue.received(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
        dialogue.sent(&message(b'p', b"SCRAM-SHA-256\0SECRET"));
        dialogue.received(&accepted());
        dialogue
    }

    pub fn sent(&mut self, bytes: &[u8]) {
        self.tag += 1;
        self.pass(Direction::Sent, bytes, bytes.len() as u64);
    }

    pub fn received(&mut self, bytes: &[u8]) {
        self.pass(Direction::Received, bytes, bytes.len() as u64);
    }

    /// `len` bytes, of which `bytes` were captured.
    pub fn pass(&mut self, direction: Direction, bytes: &[u8], len: u64) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Sent)];
        let (start_ns, end_ns) = (self.now, self.now + 1_000);
        let chunk = Chunk { direction, offset: *offset, len, data: bytes, start_ns, end_ns };
        *offset += len;
        self.now += 2_000;
        self.tracker.feed(chunk, self.tag, &mut self.commands);
    }

    /// Bytes that no record tells of.
    pub fn lost(&mut self, direction: Direction, len: u64) {
        self.offsets[usize::from(direction == Direction::Sent)] += len;
    }

    pub fn take(&mut self) -> Vec<Command<u32>> {
        std::mem::take(&mut self.commands)
    }

    pub fn one(&mut self) -> Command<u32> {
        let mut commands = self.take();
        assert_eq!(commands.len(), 1, "{commands:#?}\n{:?}", self.tracker);
        commands.remove(0)
    }

    /// Fails unless everything was understood.
    pub fn clean(&mut self) {
        assert_eq!(self.tracker.diagnostics(), Diagnostics::default());
        assert_eq!(self.tracker.open_commands(), 0);
    }
}

pub(super) fn text(command: &Command<u32>) -> &str {
    command.statement.as_ref().and_then(|statement| statement.text.as_deref()).unwrap_or_default()
}

/// Name, text and error of each command.
pub(super) fn told(commands: &[Command<u32>]) -> Vec<(&str, &str, &str)> {
    commands
        .iter()
        .map(|command| (command.name, text(command), command.error.as_ref().map_or("", Failure::kind)))
        .collect()
}

//! Conversations made by hand, whole and in pieces.

mod dialogue;
mod losses;
mod reading;

use std::sync::Arc;

use super::Tracker;
use crate::protocol::command::{Command, Failure};
use crate::protocol::conversation::Conversation as _;
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::sql::Shown;
use crate::protocol::stream::{Chunk, Direction};

/// A body with its header.
pub(super) fn packet(seq: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    [&len[..3], &[seq], body].concat()
}

pub(super) fn packets(first: u8, bodies: &[&[u8]]) -> Vec<u8> {
    bodies.iter().zip(first..).flat_map(|(body, seq)| packet(seq, body)).collect()
}

pub(super) const OK: &[u8] = b"\x00\x02\x00\x02\x00\x00\x00";
pub(super) const OK_MORE: &[u8] = b"\x00\x01\x00\x0a\x00\x00\x00";
pub(super) const EOF: &[u8] = b"\xfe\x00\x00\x02\x00";
pub(super) const EOF_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00";
/// The OK packet at the end of rows.
pub(super) const END: &[u8] = b"\xfe\x00\x00\x02\x00\x00\x00";
pub(super) const COLUMN: &[u8] =
    b"\x03def\x04shop\x06orders\x06orders\x02id\x02id\x0c\x3f\x00\x0b\x00\x00\x00\x03\x00\x00\x00\x00\x00";
pub(super) const NO_TABLE: &[u8] = b"\xff\x7a\x04#42S02Table 'shop.secret' doesn't exist";
pub(super) const PREPARED: &[u8] = b"\x00\x07\x00\x00\x00\x01\x00\x02\x00\x00\x00\x00";
pub(super) const EXECUTE: &[u8] = b"\x17\x07\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x03\x00\x2a\x00\x00\x00";

pub(super) const DEPRECATE_EOF: u32 = 1 << 24;
const BASE: u32 = 1 | 1 << 3 | 1 << 9 | 1 << 15 | 1 << 19;

/// A greeting that offers everything.
pub(super) fn greeting(version: &str) -> Vec<u8> {
    let mut body = vec![10];
    body.extend(version.as_bytes());
    body.extend(b"\0\x01\0\0\0AAAAAAAA\0");
    // Everything, also compression.
    body.extend(b"\xff\xff\x21\x02\x00\xff\xff\x15");
    body.extend([0; 10]);
    body.extend(b"BBBBBBBBBBBB\0caching_sha2_password\0");
    packet(0, &body)
}

pub(super) fn login(capabilities: u32) -> Vec<u8> {
    let mut body = (BASE | capabilities).to_le_bytes().to_vec();
    body.extend(b"\0\0\0\x01\x21");
    body.extend([0; 23]);
    body.extend(b"tester\0\x06SECRETshop\0caching_sha2_password\0");
    packet(1, &body)
}

/// One conversation; each call takes a microsecond.
pub(super) struct Dialogue {
    pub tracker: Tracker<u32>,
    pub commands: Vec<Command<u32>>,
    now: u64,
    offsets: [u64; 2],
    tag: u32,
}

impl Dialogue {
    pub fn new(opened_before: bool) -> Self {
        let tracker = Tracker::new(Shown::Sanitized, opened_before);
        Self { tracker, commands: Vec::new(), now: 1_000, offsets: [0; 2], tag: 0 }
    }

    /// Connected, with these capabilities.
    pub fn connected(capabilities: u32) -> Self {
        let mut dialogue = Self::new(false);
        dialogue.received(&greeting("8.0.36"));
        dialogue.sent(&login(capabilities));
        dialogue.received(&packet(2, b"\x01\x03"));
        dialogue.received(&packet(3, OK));
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
        self.call(direction, bytes, len, self.now);
    }

    /// A call whose beginning was not seen.
    pub fn at_once(&mut self, direction: Direction, bytes: &[u8]) {
        self.call(direction, bytes, bytes.len() as u64, self.now + 1_000);
    }

    fn call(&mut self, direction: Direction, bytes: &[u8], len: u64, start_ns: u64) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Sent)];
        let end_ns = self.now + 1_000;
        let chunk = Chunk { direction, offset: *offset, len, data: bytes, start_ns, end_ns };
        *offset += len;
        self.now += 2_000;
        self.tracker.feed(chunk, self.tag, &mut self.commands);
    }

    /// Bytes that no record tells of.
    pub fn lost(&mut self, direction: Direction, len: u64) {
        self.offsets[usize::from(direction == Direction::Sent)] += len;
    }

    pub fn query(&mut self, sql: &str, reply: &[u8]) {
        self.sent(&packet(0, &[b"\x03", sql.as_bytes()].concat()));
        self.received(reply);
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

pub(super) fn code(command: &Command<u32>) -> Option<u16> {
    match &command.error {
        Some(Failure::Reply(error)) => error.code.parse().ok(),
        _ => None,
    }
}

pub(super) fn text(command: &Command<u32>) -> &str {
    command.statement.as_ref().and_then(|statement| statement.text.as_deref()).unwrap_or_default()
}

pub(super) fn database(command: &Command<u32>) -> Option<&str> {
    command.database.as_deref().map(|name: &str| name)
}

/// The statement of two commands is the same one.
pub(super) fn same_statement(one: &Command<u32>, other: &Command<u32>) -> bool {
    matches!((&one.statement, &other.statement), (Some(one), Some(other)) if Arc::ptr_eq(one, other))
}

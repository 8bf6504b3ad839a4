//! Dialogues, from the bytes of both sides to commands.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod classify;
mod dialogue;
mod losses;
mod pubsub;
mod replies;
mod split;
mod text;
mod transactions;

use super::*;

/// One connection, with calls of 5 ns every 10 ns.
struct Connection {
    tracker: Tracker<u64>,
    now: u64,
    sent: u64,
    received: u64,
    commands: Vec<Command<u64>>,
}

impl Connection {
    fn new() -> Self {
        Self::with(Tracker::new(Role::Client))
    }

    fn opened_before() -> Self {
        Self::with(Tracker::with(Role::Client, QueryText::Sanitized, true))
    }

    fn with(tracker: Tracker<u64>) -> Self {
        Self { tracker, now: 1000, sent: 0, received: 0, commands: Vec::new() }
    }

    /// A send call; its tag is its start.
    fn send(&mut self, data: impl AsRef<[u8]>) -> &mut Self {
        let data = data.as_ref();
        self.call(Direction::Sent, data, data.len() as u64)
    }

    fn receive(&mut self, data: impl AsRef<[u8]>) -> &mut Self {
        let data = data.as_ref();
        self.call(Direction::Received, data, data.len() as u64)
    }

    /// A call of which only the first bytes were captured.
    fn call(&mut self, direction: Direction, data: &[u8], len: u64) -> &mut Self {
        self.now += 10;
        let offset = if direction == Direction::Sent { &mut self.sent } else { &mut self.received };
        let chunk = Chunk { direction, offset: *offset, len, data, start_ns: self.now, end_ns: self.now + 5 };
        *offset += len;
        self.tracker.feed(chunk, self.now, &mut self.commands);
        self
    }

    /// Bytes that no record tells of.
    fn lose(&mut self, direction: Direction, len: u64) -> &mut Self {
        *(if direction == Direction::Sent { &mut self.sent } else { &mut self.received }) += len;
        self
    }

    fn take(&mut self) -> Vec<Command<u64>> {
        std::mem::take(&mut self.commands)
    }

    fn one(&mut self) -> Command<u64> {
        assert_eq!(self.commands.len(), 1, "{:?}", self.names());
        self.commands.remove(0)
    }

    fn names(&self) -> Vec<&str> {
        self.commands.iter().map(|command| command.name.as_ref()).collect()
    }
}

/// A request as an array.
fn request(words: &str) -> Vec<u8> {
    array(&words.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn array(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// What one request and its reply give.
fn exchange(request: &[u8], reply: &[u8]) -> Command<u64> {
    Connection::new().send(request).receive(reply).one()
}

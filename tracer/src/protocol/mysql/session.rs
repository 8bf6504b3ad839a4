//! Pairs commands with replies, in order, and follows what they do to the session.
//!
//! A client sends a command when it has the reply to the one before; some send several at once. Replies carry no name: the
//! oldest command that waits is answered next. A reply that finds none is kept for a while, because records of calls are written
//! when the calls end: a reply may have been read by one thread before another has left the send call.

use std::collections::VecDeque;
use std::sync::Arc;

use super::classify::is_late_eof;
use super::dialect::Dialect;
use super::packet::Packet;
use super::reply::Reply;
use super::statements::Statements;
use super::verb::{Answer, Effect, Verb};
use crate::protocol::command::{Command, Failure};
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::sql::{Reading, Statement};
use crate::protocol::stream::Quality;

/// Most commands that wait for a reply.
const MAX_WAITING: usize = 1 << 12;
/// Most packets that wait for a command.
const MAX_EARLY: usize = 1 << 12;
/// Status: `\` is a byte like any other.
const NO_BACKSLASH_ESCAPES: u64 = 0x0200;
/// Bytes kept of a packet: enough for all that matters in one.
pub(super) const KEPT: usize = 64;
/// About how many bytes a statement takes: its text is at most 2 KiB, and mostly much shorter.
const TEXT: usize = 1024;

/// A reply packet, when it was there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub packet: Packet<'a>,
    pub end_ns: u64,
}

/// A packet that waits for its command.
#[derive(Debug)]
struct Early {
    seq: u8,
    last_seq: u8,
    len: u64,
    wire: u64,
    head: [u8; KEPT],
    kept: u8,
    end_ns: u64,
}

/// A command without its reply.
#[derive(Debug)]
struct Waiting<T> {
    command: Command<T>,
    /// It had not begun before this. When it began may not have been seen.
    earliest_ns: u64,
    reply: Reply,
    effect: Effect,
    /// Schema once it has succeeded.
    database: Option<Arc<str>>,
}

/// A request that is complete.
#[derive(Debug)]
pub(super) struct Request<T> {
    pub verb: &'static Verb,
    pub command: Command<T>,
    /// It had not begun before this.
    pub earliest_ns: u64,
    /// Number of its last packet.
    pub seq: u8,
    /// Schema once it has succeeded.
    pub database: Option<Arc<str>>,
}

/// Which reply is whose cannot be told any more.
#[derive(Debug)]
pub(super) struct Lost;

/// State of one connection.
#[derive(Debug)]
pub(super) struct Session<T> {
    waiting: VecDeque<Waiting<T>>,
    early: VecDeque<Early>,
    pub dialect: Dialect,
    pub statements: Statements,
    pub database: Option<Arc<str>>,
    /// Whether `\` escapes, as the last reply says; `None` where none did.
    backslash: Option<bool>,
    /// The client's character set has ASCII bytes only where they mean themselves, for all that was seen.
    pub ascii_safe: bool,
    /// Number of an EOF packet that may still come.
    late_eof: Option<u8>,
    /// Replies that were understood.
    pub understood: u64,
    pub diagnostics: Diagnostics,
}

impl<T> Session<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            early: VecDeque::new(),
            dialect: Dialect::default(),
            statements: Statements::default(),
            database: None,
            backslash: None,
            ascii_safe: false,
            late_eof: None,
            understood: 0,
            diagnostics: Diagnostics::default(),
        }
    }

    /// No command waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// About how many bytes it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        // A command's text is that of its prepared statement, or one of its own.
        let waiting = self.waiting.capacity() * size_of::<Waiting<T>>() + self.waiting.len() * TEXT;
        waiting + self.early.capacity() * size_of::<Early>() + self.statements.len() * TEXT
    }

    /// How the next text is to be read. A command that waits may change it.
    pub(super) fn reading(&self) -> Reading {
        let backslash = self.backslash.filter(|_| self.is_idle());
        Reading { backslash, ascii_safe: self.ascii_safe && self.is_idle(), ..Reading::default() }
    }

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Before when the oldest command that waits had not begun, and the number that its reply begins with.
    pub(super) fn due(&self) -> Option<(u64, Option<u8>)> {
        self.waiting.front().map(|waiting| (waiting.earliest_ns, waiting.reply.first_seq()))
    }

    /// The client has sent something that is no command.
    pub(super) fn interrupted(&mut self) {
        if let Some(waiting) = self.waiting.front_mut() {
            waiting.reply.interrupted();
        }
    }

    /// Takes a complete request.
    pub(super) fn request(&mut self, request: Request<T>, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        let Request { verb, command, earliest_ns, seq, database } = request;
        self.late_eof = None;
        if verb.answer == Answer::None {
            out.push(command);
            return Ok(());
        }
        if self.waiting.len() == MAX_WAITING {
            self.diagnostics.commands_overflow += 1;
            return Err(Lost);
        }
        let reply = Reply::new(verb.answer, seq);
        self.waiting.push_back(Waiting { command, earliest_ns, reply, effect: verb.effect, database });
        while !self.waiting.is_empty()
            && let Some(early) = self.early.pop_front()
        {
            let Early { seq, last_seq, len, wire, head, kept, end_ns } = early;
            let packet = Packet { seq, last_seq, len, wire, head: &head[..usize::from(kept)] };
            self.answer(&Received { packet, end_ns }, out)?;
        }
        Ok(())
    }

    /// Takes a reply packet.
    pub(super) fn reply(&mut self, received: &Received<'_>, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        let packet = received.packet;
        if self.late_eof.take() == Some(packet.seq) && is_late_eof(&packet) {
            self.dialect.deprecate_eof = Some(false);
            return Ok(());
        }
        if !self.waiting.is_empty() {
            return self.answer(received, out);
        }
        self.keep(received)
    }

    /// Keeps a packet that the client has not asked for yet.
    pub(super) fn keep(&mut self, received: &Received<'_>) -> Result<(), Lost> {
        if self.early.len() == MAX_EARLY {
            return Err(Lost);
        }
        let packet = received.packet;
        let kept = packet.head.len().min(KEPT);
        let mut head = [0; KEPT];
        head[..kept].copy_from_slice(&packet.head[..kept]);
        let Packet { seq, last_seq, len, wire, .. } = packet;
        self.early.push_back(Early { seq, last_seq, len, wire, head, kept: kept as u8, end_ns: received.end_ns });
        Ok(())
    }

    /// The first packet that was kept, for the authentication.
    pub(super) fn pop_early(&mut self) -> Option<u8> {
        self.early.pop_front().map(|early| if early.kept == 0 { 0xfe } else { early.head[0] })
    }

    /// No more bytes of replies are there for now: a reply that may be complete is.
    pub(super) fn pause(&mut self, seq: u8, end_ns: u64, out: &mut Vec<Command<T>>) {
        if self.waiting.front().is_some_and(|waiting| waiting.reply.may_be_complete()) {
            self.late_eof = Some(seq.wrapping_add(1));
            self.finish(end_ns, out);
        }
    }

    /// The last request goes on: bytes that were not looked at.
    pub(super) fn more_sent(&mut self, len: u64, end_ns: u64) {
        if let Some(Waiting { command, .. }) = self.waiting.back_mut() {
            command.request_bytes = command.request_bytes.saturating_add(len);
            command.sent_ns = end_ns;
        }
    }

    /// The reply to the only command that waits goes on, in rows whose bounds are not known. False if it is something else.
    pub(super) fn tear_reply(&mut self, len: u64) -> bool {
        let [Waiting { reply, command, .. }] = self.waiting.make_contiguous() else { return false };
        reply.bytes = reply.bytes.saturating_add(len);
        command.quality = Quality::Resynced;
        reply.tear()
    }

    /// The client goes on: the reply was complete at `end_ns`.
    pub(super) fn finish_torn(&mut self, end_ns: u64, out: &mut Vec<Command<T>>) {
        self.finish(end_ns, out);
    }

    fn answer(&mut self, received: &Received<'_>, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        let Some(front) = self.waiting.front_mut() else { return Ok(()) };
        if received.end_ns < front.earliest_ns {
            self.diagnostics.replies_unseen += 1;
            return Ok(());
        }
        match front.reply.packet(&received.packet, &mut self.dialect) {
            Ok(true) => self.finish(received.end_ns, out),
            Ok(false) => {}
            Err(_) => {
                self.diagnostics.replies_malformed += 1;
                return Err(Lost);
            }
        }
        Ok(())
    }

    /// The oldest command has its reply.
    fn finish(&mut self, end_ns: u64, out: &mut Vec<Command<T>>) {
        let Some(Waiting { mut command, earliest_ns, reply, effect, database }) = self.waiting.pop_front() else {
            return;
        };
        self.understood += 1;
        // A statement that fails may have changed it on the way.
        if reply.status.is_some() || reply.error.is_some() || reply.answer == Answer::Results {
            self.backslash =
                reply.status.map(|status| status & NO_BACKSLASH_ESCAPES == 0).filter(|_| reply.error.is_none());
        }
        // Its beginning may not have been seen: it was before the reply.
        command.start_ns = command.start_ns.min(end_ns.max(earliest_ns));
        command.end_ns = end_ns.max(command.start_ns);
        command.response_bytes = reply.bytes;
        command.rows = reply.rows;
        command.affected_rows = reply.affected_rows;
        command.error = reply.error.map(Failure::from);
        if command.error.is_none() {
            self.succeeded(effect, &command.statement, database);
            if let Some(id) = reply.prepared
                && !self.statements.prepared(id, command.statement.clone())
            {
                self.diagnostics.statements_overflow += 1;
            }
        }
        // It may have failed before or behind a `USE`.
        if command.error.is_some() && command.statement.as_ref().is_some_and(|statement| statement.uses.is_some()) {
            self.database = None;
        }
        out.push(command);
    }

    fn succeeded(&mut self, effect: Effect, statement: &Option<Arc<Statement>>, database: Option<Arc<str>>) {
        match effect {
            Effect::InitDb => self.database = database,
            Effect::ChangeUser => {
                self.database = database;
                self.statements.clear();
            }
            Effect::Reset => self.statements.clear(),
            Effect::Query => {
                if let Some(name) = statement.as_ref().and_then(|statement| statement.uses.as_ref()) {
                    self.database = Some(Arc::from(name.as_str()));
                }
            }
            _ => {}
        }
    }

    /// The replies of the commands that wait are lost.
    pub(super) fn give_up(&mut self) {
        self.diagnostics.commands_unpaired += self.waiting.len() as u64;
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.waiting = VecDeque::new();
        self.early = VecDeque::new();
        self.late_eof = None;
        // What was lost may have changed either.
        (self.backslash, self.ascii_safe) = (None, false);
    }

    /// The connection ended.
    pub(super) fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        for Waiting { mut command, reply, .. } in self.waiting.drain(..) {
            command.error = Some(Failure::ConnectionClosed);
            command.end_ns = now_ns.max(command.sent_ns);
            command.response_bytes = reply.bytes;
            command.rows = reply.rows;
            out.push(command);
        }
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.early.clear();
    }
}

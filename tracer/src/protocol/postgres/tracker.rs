//! One connection: finds the messages of both sides in captured socket calls.
//!
//! As long as no byte that matters is missing, this is plain parsing. Otherwise the position is found again at the start of a call
//! that consists of whole messages of a client, when nothing is under way: no command waits and the last call was one that received.
//! The answer must begin at the start of a call too.

use std::fmt::Debug;
use std::sync::Arc;

use super::message::{Message, Messages};
use super::reply::is_reply;
use super::request::is_request;
use super::session::Session;
use super::startup::{Startup, startup};
use super::steps::{KEPT, Lost};
use super::{reply, request};
use crate::protocol::command::Command;
use crate::protocol::conversation::{Begun, Conversation};
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::sql::Shown;
use crate::protocol::stream::{Chunk, Direction, Piece, Quality, Stream, Verdict};

/// Bytes kept of a request: as much SQL is looked at.
const MAX_REQUEST: usize = 8 * 1024;
/// Bytes kept of what the server says before the record of the client's first message is there.
const MAX_AHEAD: usize = 1024;
/// Silence after which no answer can be under way.
const SILENCE_NS: u64 = 1_000_000_000;
/// Losses and commands that cannot be followed, after which a connection on which nothing was understood is something else.
const MAX_DOUBTS: u32 = 64;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client will say what it wants.
    Startup,
    /// The client has asked for encryption: the server will answer with one byte.
    Asked,
    /// The server will accept or refuse.
    Authentication,
    /// Commands.
    Commands,
    /// It was made to cancel a command of another connection; nothing follows.
    Cancelled,
    /// Nothing that can be followed.
    Over,
}

/// Follows one connection of a client. `T` is what the caller wants to know again of a command's sender.
#[derive(Debug)]
pub struct Tracker<T> {
    quality: Quality,
    phase: Phase,
    sent: Stream,
    received: Stream,
    requests: Messages,
    replies: Messages,
    session: Session<T>,
    /// Start of the message of the client that is being read.
    begun: Option<Begun<T>>,
    /// What the server said too early.
    ahead: Vec<u8>,
    /// It is clear which answer is whose.
    aligned: bool,
    /// The last chunk was one of requests.
    requesting: bool,
    /// End of the last call that sent.
    last_request_ns: u64,
    /// End of the last call that received.
    last_reply_ns: u64,
    /// The end of the last request is not known, but its answer will tell.
    torn_request: bool,
    /// The end of the answer that is being read is not known, but the next request will tell.
    torn_reply: bool,
    doubts: u32,
}

impl<T: Clone> Tracker<T> {
    /// `opened_before`: the connection was open before the agent came, so its first chunk may be the middle of anything.
    pub fn new(shown: Shown, opened_before: bool) -> Self {
        let mut requests = Messages::new(MAX_REQUEST, request::fits);
        requests.startup = !opened_before;
        Self {
            quality: if opened_before { Quality::OpenedBefore } else { Quality::Certain },
            phase: if opened_before { Phase::Commands } else { Phase::Startup },
            sent: Stream::new(!opened_before),
            received: Stream::new(!opened_before),
            requests,
            replies: Messages::new(KEPT, reply::fits),
            session: Session::new(shown),
            begun: None,
            ahead: Vec::new(),
            aligned: !opened_before,
            requesting: false,
            last_request_ns: 0,
            last_reply_ns: 0,
            torn_request: false,
            torn_reply: false,
            doubts: 0,
        }
    }
}

impl<T: Clone + Debug> Conversation<T> for Tracker<T> {
    fn feed(&mut self, chunk: Chunk<'_>, tag: T, out: &mut Vec<Command<T>>) {
        if chunk.len == 0 || matches!(self.phase, Phase::Over | Phase::Cancelled) {
            return;
        }
        let is_request = chunk.direction == Direction::Sent;
        let stream = if is_request { &mut self.sent } else { &mut self.received };
        let piece = stream.take(chunk.offset, chunk.len, chunk.data);
        let stale = &mut self.session.steps.diagnostics.bytes_stale;
        *stale = stale.saturating_add(piece.stale);
        if is_request {
            self.feed_requests(&chunk, piece, &tag, out);
            self.last_request_ns = self.last_request_ns.max(chunk.end_ns);
        } else {
            self.feed_replies(&chunk, piece, out);
            self.last_reply_ns = self.last_reply_ns.max(chunk.end_ns);
        }
        self.requesting = is_request;
    }

    fn verdict(&self) -> Verdict {
        let logged_in = self.quality != Quality::OpenedBefore && !matches!(self.phase, Phase::Startup | Phase::Asked);
        match self.phase {
            Phase::Over => Verdict::No,
            _ if logged_in || self.session.steps.understood > 0 => Verdict::Yes,
            _ if self.doubts >= MAX_DOUBTS => Verdict::No,
            _ => Verdict::Maybe,
        }
    }

    /// It is encrypted, or was refused.
    fn has_ended(&self) -> bool {
        self.phase == Phase::Over
    }

    fn is_encrypted(&self) -> bool {
        self.session.steps.diagnostics.connections_encrypted > 0
    }

    fn skip(&self, direction: Direction) -> u64 {
        if direction == Direction::Sent { self.sent.skip() } else { self.received.skip() }
    }

    fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        let cut = self.begun.take().is_some_and(|begun| begun.aligned) && self.phase == Phase::Commands;
        self.session.steps.diagnostics.commands_truncated += u64::from(cut);
        self.requests.reset();
        if self.torn_reply {
            // It may have been complete.
            self.session.give_up();
        }
        self.session.close(now_ns, out);
    }

    fn open_commands(&self) -> usize {
        self.session.steps.commands()
    }

    fn bytes(&self) -> usize {
        self.session.steps.bytes() + self.requests.bytes() + self.replies.bytes() + self.ahead.capacity()
    }

    /// Before the first command there is nothing to give back.
    fn give_up(&mut self) {
        if self.phase == Phase::Commands {
            self.lose();
            self.session.steps.statements.clear();
            self.requests.give_back();
            self.replies.give_back();
        }
    }

    fn diagnostics(&mut self) -> Diagnostics {
        let diagnostics = std::mem::take(&mut self.session.steps.diagnostics);
        if self.verdict() == Verdict::Yes || self.has_ended() { diagnostics } else { Diagnostics::default() }
    }
}

impl<T: Clone> Tracker<T> {
    fn feed_requests(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        self.pass_request_bytes(piece.missing, chunk, tag, out);
        let at_start = piece.stale == 0;
        if !self.sent.synced {
            self.sent.synced = at_start && is_request(piece.data, chunk.len);
            self.torn_request &= !self.sent.synced;
            self.doubts = self.doubts.saturating_add(u32::from(!self.sent.synced));
        }
        if self.sent.synced && std::mem::take(&mut self.torn_reply) {
            self.session.steps.finish_torn(self.last_reply_ns, out);
        }
        if self.sent.synced {
            self.parse_requests(piece.data, at_start, chunk, tag, out);
        } else {
            self.pass_over_request(piece.data.len() as u64, chunk);
        }
        self.pass_request_bytes(piece.rest, chunk, tag, out);
        self.sent.announce(self.requests.body_left());
    }

    /// `len` bytes of requests were not captured.
    fn pass_request_bytes(&mut self, len: u64, chunk: &Chunk<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        if len == 0 {
        } else if !self.sent.synced {
            self.pass_over_request(len, chunk);
        } else if self.requests.gap(len) {
            self.parse_requests(&[], false, chunk, tag, out);
        } else if self.tear_request(chunk, out) {
            self.pass_over_request(len, chunk);
        } else {
            self.session.steps.diagnostics.requests_lost += 1;
            // A name may be another statement's by now.
            self.session.steps.statements.clear();
            self.pass_over(len);
            self.lose();
        }
    }

    /// The end of a long message was not captured, nor what follows it.
    fn tear_request(&mut self, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) -> bool {
        let aligned = self.aligned && self.phase == Phase::Commands;
        let torn = match (self.requests.torn(), self.begun.take()) {
            (Some(message), Some(begun)) if aligned => self.session.torn(&message, begun, chunk.end_ns, out),
            _ => false,
        };
        self.requests.reset();
        self.torn_request = torn;
        self.sent.synced &= !torn;
        torn
    }

    /// Bytes of requests that are not looked at.
    fn pass_over_request(&mut self, len: u64, chunk: &Chunk<'_>) {
        if self.torn_request {
            self.session.steps.more_sent(len, chunk.end_ns);
        } else {
            self.pass_over(len);
        }
    }

    fn parse_requests(&mut self, data: &[u8], at_start: bool, chunk: &Chunk<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        let mut data = data;
        let mut at_start = at_start;
        // Out of the tracker while its messages are looked at: they borrow from it.
        let mut requests = std::mem::replace(&mut self.requests, Messages::new(0, request::fits));
        let result = loop {
            if self.begun.is_none() && !data.is_empty() {
                self.begin(at_start, chunk, tag);
            }
            at_start = false;
            match requests.next(&mut data) {
                Ok(Some(message)) => {
                    let taken = self.sent_message(&message, chunk, out);
                    if taken.is_err() || matches!(self.phase, Phase::Over | Phase::Cancelled) {
                        requests.reset();
                        break taken;
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => {
                    self.session.steps.diagnostics.requests_malformed += 1;
                    break Err(Lost);
                }
            }
            requests.wipe();
            requests.startup = matches!(self.phase, Phase::Startup | Phase::Asked);
        };
        self.requests = requests;
        if result.is_err() {
            self.pass_over(data.len() as u64);
            self.session.steps.statements.clear();
            self.lose();
        }
    }

    /// A message begins.
    fn begin(&mut self, at_start: bool, chunk: &Chunk<'_>, tag: &T) {
        let quiet = self.session.steps.is_idle() && chunk.start_ns >= self.last_reply_ns;
        if !self.aligned {
            let between = self.replies.is_between() || !self.received.synced;
            self.aligned = at_start && quiet && between && !self.requesting;
            if self.aligned {
                self.session.give_up();
                self.received.synced = false;
                self.replies.reset();
            }
        }
        if self.aligned && quiet && self.last_reply_ns > 0 && chunk.start_ns - self.last_reply_ns > SILENCE_NS {
            self.quality = Quality::Certain;
        }
        self.begun = Some(Begun {
            tag: tag.clone(),
            start_ns: chunk.start_ns,
            earliest_ns: chunk.earliest_ns(self.last_request_ns),
            aligned: self.aligned,
            quality: self.quality,
        });
    }

    fn sent_message(
        &mut self,
        message: &Message<'_>,
        chunk: &Chunk<'_>,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        match self.phase {
            Phase::Startup | Phase::Asked => self.start(message, begun, chunk, out),
            Phase::Authentication | Phase::Commands if begun.aligned => {
                self.session.request(message, begun, chunk.end_ns, out)
            }
            Phase::Commands => {
                self.session.pass_over(message);
                // Each of these would have been a command.
                if matches!(message.kind, b'Q' | b'F' | b'E') {
                    self.session.steps.diagnostics.commands_unaligned += 1;
                    self.doubts += 1;
                }
                Ok(())
            }
            Phase::Authentication | Phase::Cancelled | Phase::Over => Ok(()),
        }
    }

    /// A client's first message, or the one after it was refused encryption.
    fn start(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        chunk: &Chunk<'_>,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        match startup(message.head) {
            Startup::Encryption => self.phase = Phase::Asked,
            Startup::Cancel => {
                self.session.cancel(message, begun, chunk.end_ns, out);
                self.phase = Phase::Cancelled;
            }
            Startup::Login { database } => {
                self.session.database = database.map(Arc::from);
                self.phase = Phase::Authentication;
            }
            Startup::Unsupported => self.end(|diagnostics| diagnostics.connections_unsupported += 1),
        }
        // What the server said before the record of this message was there.
        let ahead = std::mem::take(&mut self.ahead);
        if !ahead.is_empty() {
            self.parse_replies(&ahead, self.last_reply_ns, out);
        }
        Ok(())
    }

    fn feed_replies(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, out: &mut Vec<Command<T>>) {
        if self.torn_reply {
            self.session.steps.tear(piece.missing + piece.data.len() as u64 + piece.rest);
            return;
        }
        self.pass_reply_bytes(piece.missing, chunk, out);
        if self.torn_reply {
            self.session.steps.tear(piece.data.len() as u64 + piece.rest);
            return;
        }
        if !self.received.synced {
            let joined = piece.missing == 0 && piece.stale == 0;
            let due = self.session.steps.due().filter(|earliest_ns| self.aligned && *earliest_ns <= chunk.end_ns);
            self.received.synced = joined && due.is_some() && is_reply(piece.data);
        }
        if self.received.synced {
            self.parse_replies(piece.data, chunk.end_ns, out);
        } else {
            self.pass_over(piece.data.len() as u64);
            // These may have been the answers to the commands that wait.
            self.unalign();
        }
        self.pass_reply_bytes(piece.rest, chunk, out);
        self.received.announce(self.replies.body_left());
    }

    /// `len` bytes of answers were not captured.
    fn pass_reply_bytes(&mut self, len: u64, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        if len == 0 {
        } else if !self.received.synced {
            self.pass_over(len);
        } else if self.replies.gap(len) {
            self.parse_replies(&[], chunk.end_ns, out);
        } else if self.phase == Phase::Commands && self.session.steps.tear(len) {
            // The end of the answer is when the client goes on.
            self.replies.reset();
            self.torn_reply = true;
            self.received.synced = false;
        } else {
            self.session.steps.diagnostics.replies_lost += 1;
            self.pass_over(len);
            self.lose();
        }
    }

    fn parse_replies(&mut self, data: &[u8], end_ns: u64, out: &mut Vec<Command<T>>) {
        let mut data = data;
        if let (Phase::Asked, Some((answer, rest))) = (self.phase, data.split_first()) {
            match answer {
                b'N' => {
                    self.phase = Phase::Startup;
                    data = rest;
                }
                b'S' | b'G' => return self.end(|diagnostics| diagnostics.connections_encrypted += 1),
                // A server that does not know the question: the client will begin anew.
                _ => {
                    self.phase = Phase::Over;
                    return;
                }
            }
        }
        if self.phase == Phase::Startup {
            if self.ahead.len() + data.len() > MAX_AHEAD {
                return self.end(|diagnostics| diagnostics.connections_unsupported += 1);
            }
            return self.ahead.extend_from_slice(data);
        }
        let mut replies = std::mem::replace(&mut self.replies, Messages::new(0, reply::fits));
        let result = loop {
            match replies.next(&mut data) {
                Ok(Some(message)) => {
                    let taken = self.received_message(&message, end_ns, out);
                    if taken.is_err() || self.phase == Phase::Over {
                        break taken;
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => {
                    self.session.steps.diagnostics.replies_malformed += 1;
                    break Err(Lost);
                }
            }
        };
        self.replies = replies;
        if result.is_err() {
            self.pass_over(data.len() as u64);
            self.lose();
        }
    }

    fn received_message(&mut self, message: &Message<'_>, end_ns: u64, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        match (self.phase, message.kind) {
            (Phase::Authentication, b'Z') => self.phase = Phase::Commands,
            (Phase::Authentication, b'S') | (Phase::Commands, _) => {
                return self.session.steps.reply(message, end_ns, out);
            }
            // Refused.
            (Phase::Authentication, b'E') => self.phase = Phase::Over,
            _ => {}
        }
        Ok(())
    }

    /// The connection cannot be followed.
    fn end(&mut self, count: impl FnOnce(&mut Diagnostics)) {
        count(&mut self.session.steps.diagnostics);
        self.session.give_up();
        self.phase = Phase::Over;
    }

    /// Counts bytes that nobody reads.
    fn pass_over(&mut self, len: u64) {
        let skipped = &mut self.session.steps.diagnostics.bytes_skipped;
        *skipped = skipped.saturating_add(len);
    }

    /// The position in either direction is lost: both are found again together.
    fn lose(&mut self) {
        let cut = self.begun.take().is_some_and(|begun| begun.aligned);
        self.session.steps.diagnostics.commands_truncated += u64::from(cut);
        self.doubts = self.doubts.saturating_add(1);
        if self.phase != Phase::Commands {
            return self.end(|diagnostics| diagnostics.connections_unsupported += 1);
        }
        self.requests.reset();
        self.replies.reset();
        (self.torn_request, self.torn_reply) = (false, false);
        self.sent.synced = false;
        self.received.synced = false;
        if self.quality == Quality::Certain {
            self.quality = Quality::Resynced;
        }
        self.unalign();
    }

    /// Answers can no longer be told apart.
    fn unalign(&mut self) {
        self.aligned = false;
        if let Some(begun) = &mut self.begun {
            begun.aligned = false;
        }
        self.session.give_up();
    }
}

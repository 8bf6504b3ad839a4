//! One connection: finds the commands and replies in captured socket calls.
//!
//! As long as no byte that matters is missing, this is plain parsing. Otherwise the position is found again at the start of a
//! call that sends a command, when nothing is under way: no command waits and the last call was one that received. Its reply must
//! begin at the start of a call too, with the number that follows the command's.

mod replies;

use std::fmt::Debug;
use std::sync::Arc;

use super::classify::begins_command;
use super::dialect::Dialect;
use super::handshake::{changed_database, schema};
use super::packet::{Fields, Packet, Packets};
use super::session::{KEPT, Lost, Request, Session};
use super::verb::{Answer, Effect, lookup};
use crate::protocol::command::Command;
use crate::protocol::conversation::{Begun, Conversation};
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::sql::{Shown, Statement};
use crate::protocol::stream::{Chunk, Direction, Piece, Quality, Stream, Verdict};

/// Bytes kept of a request: as much SQL is looked at.
const MAX_REQUEST: usize = 8 * 1024;
/// Silence after which no reply can be under way.
const SILENCE_NS: u64 = 1_000_000_000;
/// Losses and unanswered commands after which a connection on which nothing was understood is something else.
const MAX_DOUBTS: u32 = 64;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The server will greet.
    Greeting,
    /// The client will answer with what it can do. What the server can:
    Login { capabilities: u64, ascii_safe: bool },
    /// The server will accept or refuse.
    Authentication,
    /// Commands.
    Commands,
    /// Nothing that can be followed.
    Over,
}

/// Follows one connection of a client. `T` is what the caller wants to know again of a command's sender.
#[derive(Debug)]
pub struct Tracker<T> {
    shown: Shown,
    quality: Quality,
    phase: Phase,
    mariadb: bool,
    sent: Stream,
    received: Stream,
    requests: Packets,
    replies: Packets,
    session: Session<T>,
    /// Start of the request that is being read.
    begun: Option<Begun<T>>,
    /// It is clear which reply answers which command.
    aligned: bool,
    /// The last chunk was one of requests.
    requesting: bool,
    /// End of the last call that sent.
    last_request_ns: u64,
    /// End of the last call that received.
    last_reply_ns: u64,
    /// The end of the last request is not known, but that of its reply will tell.
    torn_request: bool,
    /// The end of the reply that is being read is not known, but the next request will tell.
    torn_reply: bool,
    /// Number of the last packet that was sent, if it was not empty.
    last_sent: Option<u8>,
    /// Number of the last packet that was received.
    last_received: u8,
    doubts: u32,
}

impl<T: Clone> Tracker<T> {
    /// `opened_before`: the connection was open before the agent came, so its first chunk may be the middle of anything.
    pub fn new(shown: Shown, opened_before: bool) -> Self {
        Self {
            shown,
            quality: if opened_before { Quality::OpenedBefore } else { Quality::Certain },
            phase: if opened_before { Phase::Commands } else { Phase::Greeting },
            mariadb: false,
            sent: Stream::new(!opened_before),
            received: Stream::new(!opened_before),
            requests: Packets::new(MAX_REQUEST),
            replies: Packets::new(if opened_before { KEPT } else { MAX_REQUEST }),
            session: Session::new(),
            begun: None,
            aligned: !opened_before,
            requesting: false,
            last_request_ns: 0,
            last_reply_ns: 0,
            torn_request: false,
            torn_reply: false,
            last_sent: None,
            last_received: 0,
            doubts: 0,
        }
    }
}

impl<T: Clone + Debug> Conversation<T> for Tracker<T> {
    fn feed(&mut self, chunk: Chunk<'_>, tag: T, out: &mut Vec<Command<T>>) {
        if chunk.len == 0 || self.phase == Phase::Over {
            return;
        }
        let is_request = chunk.direction == Direction::Sent;
        let stream = if is_request { &mut self.sent } else { &mut self.received };
        let piece = stream.take(chunk.offset, chunk.len, chunk.data);
        let stale = &mut self.session.diagnostics.bytes_stale;
        *stale = stale.saturating_add(piece.stale);
        if is_request {
            self.feed_requests(&chunk, piece, &tag, out);
            self.requesting = true;
            self.last_request_ns = self.last_request_ns.max(chunk.end_ns);
        } else {
            self.feed_replies(&chunk, piece, out);
            self.requesting = false;
            self.last_reply_ns = self.last_reply_ns.max(chunk.end_ns);
        }
    }

    fn verdict(&self) -> Verdict {
        let greeted = self.quality != Quality::OpenedBefore && self.phase != Phase::Greeting;
        match self.phase {
            Phase::Over => Verdict::No,
            _ if greeted || self.session.understood > 0 => Verdict::Yes,
            _ if self.doubts >= MAX_DOUBTS => Verdict::No,
            _ => Verdict::Maybe,
        }
    }

    fn bytes(&self) -> usize {
        self.session.bytes() + self.requests.bytes() + self.replies.bytes()
    }

    /// Before the first command there is nothing to give back.
    fn give_up(&mut self) {
        if self.phase == Phase::Commands {
            self.lose();
            self.session.statements.clear();
            self.requests.give_back();
            self.replies.give_back();
        }
    }

    /// It is encrypted or compressed, or was refused.
    fn has_ended(&self) -> bool {
        self.phase == Phase::Over
    }

    fn is_encrypted(&self) -> bool {
        self.session.diagnostics.connections_encrypted > 0
    }

    fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        if self.begun.take().is_some_and(|begun| begun.aligned) && self.phase == Phase::Commands {
            self.session.diagnostics.commands_truncated += 1;
        }
        self.requests.reset();
        if self.torn_reply {
            // It may have been complete.
            self.session.give_up();
        }
        self.session.close(now_ns, out);
    }

    fn open_commands(&self) -> usize {
        self.session.waiting()
    }

    fn skip(&self, direction: Direction) -> u64 {
        if direction == Direction::Sent { self.sent.skip() } else { self.received.skip() }
    }

    fn diagnostics(&mut self) -> Diagnostics {
        let diagnostics = std::mem::take(&mut self.session.diagnostics);
        if self.verdict() == Verdict::Yes || self.has_ended() { diagnostics } else { Diagnostics::default() }
    }
}

impl<T: Clone> Tracker<T> {
    fn feed_requests(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        self.pass_request_bytes(piece.missing, chunk, tag, out);
        let at_start = piece.stale == 0;
        if !self.sent.synced {
            self.sent.synced = at_start && begins_command(piece.data, chunk.len);
            self.torn_request &= !self.sent.synced;
        }
        if self.sent.synced && std::mem::take(&mut self.torn_reply) {
            self.session.finish_torn(self.last_reply_ns, out);
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
            self.session.diagnostics.requests_lost += 1;
            self.pass_over(len);
            self.lose();
        }
    }

    /// A length within a long request was not captured: where it ends is not known, but what it is. The server answers when it
    /// has all of it.
    fn tear_request(&mut self, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) -> bool {
        let mut requests = std::mem::replace(&mut self.requests, Packets::new(0));
        let torn = match requests.torn() {
            Some(packet) if self.phase == Phase::Commands && packet.seq == 0 => {
                let taken = self.sent_packet(&packet, chunk, out).is_ok();
                self.session.interrupted();
                taken
            }
            _ => false,
        };
        requests.reset();
        self.requests = requests;
        self.torn_request = torn;
        self.sent.synced &= !torn;
        torn
    }

    /// Bytes of requests that are not looked at.
    fn pass_over_request(&mut self, len: u64, chunk: &Chunk<'_>) {
        if self.torn_request {
            self.session.more_sent(len, chunk.end_ns);
        } else {
            self.pass_over(len);
        }
    }

    fn parse_requests(&mut self, data: &[u8], at_start: bool, chunk: &Chunk<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        let mut data = data;
        let mut at_start = at_start;
        // Out of the tracker while its packets are looked at: they borrow from it.
        let mut requests = std::mem::replace(&mut self.requests, Packets::new(0));
        let result = loop {
            if self.begun.is_none() && !data.is_empty() {
                self.begin(at_start, chunk, tag);
            }
            at_start = false;
            match requests.next(&mut data) {
                Ok(Some(packet)) => {
                    let taken = self.sent_packet(&packet, chunk, out);
                    self.last_sent = (packet.len > 0).then_some(packet.last_seq);
                    if taken.is_err() {
                        break taken;
                    }
                    if self.phase == Phase::Over {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => {
                    self.session.diagnostics.requests_malformed += 1;
                    break Err(Lost);
                }
            }
            requests.wipe();
        };
        self.requests = requests;
        if result.is_err() {
            self.pass_over(data.len() as u64);
            self.lose();
        }
    }

    /// A packet begins.
    fn begin(&mut self, at_start: bool, chunk: &Chunk<'_>, tag: &T) {
        let quiet = self.session.is_idle() && chunk.start_ns >= self.last_reply_ns;
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

    fn sent_packet(&mut self, packet: &Packet<'_>, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        match self.phase {
            Phase::Login { capabilities, ascii_safe } => {
                self.log_in(packet, capabilities, ascii_safe);
                self.authenticate_early();
                Ok(())
            }
            Phase::Commands if is_command(packet, self.last_sent) => self.command(packet, begun, chunk, out),
            // An answer to a challenge, or a piece of a file.
            Phase::Commands | Phase::Authentication => {
                self.session.interrupted();
                Ok(())
            }
            Phase::Greeting => {
                self.end(|diagnostics| diagnostics.connections_unsupported += 1);
                Ok(())
            }
            Phase::Over => Ok(()),
        }
    }

    fn command(
        &mut self,
        packet: &Packet<'_>,
        begun: Begun<T>,
        chunk: &Chunk<'_>,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        let Begun { tag, start_ns, earliest_ns, aligned, quality } = begun;
        let Some(verb) = lookup(packet.head, packet.len) else {
            self.session.diagnostics.requests_malformed += 1;
            return Err(Lost);
        };
        if verb.answer == Answer::Stream {
            self.end(|diagnostics| diagnostics.connections_unsupported += 1);
            return Ok(());
        }
        let body = &packet.head[1..];
        let complete = packet.head.len() as u64 == packet.len;
        let id = Fields(body).int(4).map(|id| id as u32);
        let reading = self.session.reading();
        let statements = &mut self.session.statements;
        let statement = match verb.effect {
            Effect::Query => {
                let sql = query_text(body, &self.session.dialect);
                sql.map(|sql| Arc::new(Statement::new(sql, complete, self.shown, reading)))
            }
            Effect::Prepare => {
                let statement = Some(Arc::new(Statement::new(body, complete, self.shown, reading)));
                statements.preparing(statement.clone());
                statement
            }
            Effect::Execute => id.and_then(|id| statements.get(id)),
            Effect::Close => id.and_then(|id| statements.close(id)),
            _ => None,
        };
        let made = matches!(verb.effect, Effect::Query | Effect::Prepare);
        if verb.effect == Effect::ChangeUser
            || (made && statement.as_ref().is_none_or(|statement| statement.changes_charset))
        {
            self.session.ascii_safe = false;
        }
        if !aligned {
            self.session.diagnostics.commands_unaligned += 1;
            self.doubts += 1;
            return Ok(());
        }
        let database = match verb.effect {
            Effect::InitDb => schema(body),
            Effect::ChangeUser => changed_database(body),
            _ => None,
        };
        if verb.answer == Answer::None && self.session.understood == 0 {
            self.doubts += 1;
        }
        let command = Command {
            tag,
            system: if self.mariadb { "mariadb" } else { "mysql" },
            name: verb.name,
            runs: verb.answer == Answer::Results,
            statement,
            database: self.session.database.clone(),
            request_bytes: packet.wire,
            response_bytes: 0,
            start_ns,
            sent_ns: chunk.end_ns,
            end_ns: chunk.end_ns,
            rows: None,
            affected_rows: None,
            error: None,
            quality,
        };
        let database = database.map(Arc::from);
        self.session.request(Request { verb, command, earliest_ns, seq: packet.last_seq, database }, out)
    }

    /// The connection cannot be followed.
    fn end(&mut self, count: impl FnOnce(&mut Diagnostics)) {
        count(&mut self.session.diagnostics);
        self.session.give_up();
        self.phase = Phase::Over;
    }

    /// Counts bytes that nobody reads.
    fn pass_over(&mut self, len: u64) {
        let skipped = &mut self.session.diagnostics.bytes_skipped;
        *skipped = skipped.saturating_add(len);
    }

    /// The position in either direction is lost: both are found again together.
    fn lose(&mut self) {
        if self.begun.take().is_some_and(|begun| begun.aligned) {
            self.session.diagnostics.commands_truncated += 1;
        }
        self.doubts = self.doubts.saturating_add(1);
        if matches!(self.phase, Phase::Greeting | Phase::Login { .. } | Phase::Authentication) {
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

    /// Replies can no longer be told apart.
    fn unalign(&mut self) {
        self.aligned = false;
        if let Some(begun) = &mut self.begun {
            begun.aligned = false;
        }
        self.session.give_up();
    }
}

/// A packet with the number zero begins an exchange, unless it follows one with the last number there is: a long file.
fn is_command(packet: &Packet<'_>, last_sent: Option<u8>) -> bool {
    packet.seq == 0 && last_sent != Some(u8::MAX)
}

/// The SQL in the body of a COM_QUERY, behind parameters if there are any. `None` when it is too far behind.
fn query_text<'a>(body: &'a [u8], dialect: &Dialect) -> Option<&'a [u8]> {
    let guess = body.first().is_some_and(|count| *count < b' ' && body.get(1) == Some(&1));
    if !dialect.query_attributes.unwrap_or(guess) {
        return Some(body);
    }
    let mut fields = Fields(body);
    let count = usize::try_from(fields.lenenc()?).ok()?;
    fields.lenenc()?;
    if count == 0 {
        return Some(fields.0);
    }
    let nulls = fields.bytes(count.div_ceil(8))?;
    // Types follow always.
    fields.u8()?;
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(fields.int(2)? as u8);
        fields.lenenc_bytes()?;
    }
    for (index, kind) in kinds.into_iter().enumerate() {
        if nulls[index / 8] & (1 << (index % 8)) != 0 {
            continue;
        }
        match kind {
            // TINY, SHORT and YEAR, LONG and FLOAT and INT24, DOUBLE and LONGLONG, NULL.
            1 => fields.bytes(1)?,
            2 | 13 => fields.bytes(2)?,
            3 | 4 | 9 => fields.bytes(4)?,
            5 | 8 => fields.bytes(8)?,
            6 => &[],
            _ => fields.lenenc_bytes()?,
        };
    }
    Some(fields.0)
}

//! One connection: finds the requests and replies in captured socket calls.
//!
//! As long as no framing byte is missing, this is plain parsing. Otherwise the position is found again in two steps. The
//! *stream* is in step at the start of a chunk that looks like the start of a request or reply. The *pairing* is in step
//! when, besides, nothing seems to be under way: no command waits, and the last call before this send was a receive.
//! Commands until then are counted ([`Diagnostics::commands_unaligned`]) and not given out, because their replies could be
//! anybody's. On a connection that many tasks share more may be under way than can be seen: the session settles that.

use super::classify::{find_request, looks_like_redis, looks_like_replies};
use super::command::Command;
use super::diagnostics::Diagnostics;
use super::reply::Replies;
use super::request::{Request, Requests};
use super::session::{Sent, Session};
use super::table::Effect;
use super::text::QueryText;
use crate::protocol::resp::Malformed;
use crate::protocol::stream::{Chunk, Direction, Piece, Quality, Stream, Verdict};

/// Silence after which no reply can be under way, save those of blocking commands.
const SILENCE_NS: u64 = 1_000_000_000;

/// Which side of the connection the traced process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends commands.
    Client,
    /// It receives commands.
    Server,
}

/// Follows one connection. `T` is what the caller wants to know again of a command's sender.
#[derive(Debug)]
pub struct Tracker<T> {
    role: Role,
    quality: Quality,
    request_stream: Stream,
    reply_stream: Stream,
    requests: Requests,
    replies: Replies,
    session: Session<T>,
    /// Start of the request that is being read.
    begun: Option<Begun<T>>,
    /// It is clear which reply answers which command.
    aligned: bool,
    /// The last chunk was one of requests.
    requesting: bool,
    /// End of the last call that brought requests.
    last_request_ns: u64,
    /// End of the last call that brought replies.
    last_reply_ns: u64,
    /// The connection has become a replication stream: no more commands.
    replicating: bool,
}

#[derive(Debug)]
struct Begun<T> {
    tag: T,
    start_ns: u64,
    earliest_ns: u64,
    aligned: bool,
    alone: bool,
    quality: Quality,
}

impl<T: Clone> Tracker<T> {
    /// For a connection that is seen from its first byte, with [`QueryText::Sanitized`].
    pub fn new(role: Role) -> Self {
        Self::with(role, QueryText::default(), false)
    }

    /// `opened_before`: the connection was open before the agent came, so its first chunk may be the middle of anything.
    pub fn with(role: Role, query_text: QueryText, opened_before: bool) -> Self {
        Self {
            role,
            quality: if opened_before { Quality::OpenedBefore } else { Quality::Certain },
            request_stream: Stream::new(!opened_before),
            reply_stream: Stream::new(!opened_before),
            requests: Requests::new(query_text),
            replies: Replies::new(),
            session: Session::new((!opened_before).then_some(0)),
            begun: None,
            aligned: !opened_before,
            requesting: false,
            last_request_ns: 0,
            last_reply_ns: 0,
            replicating: false,
        }
    }

    /// Takes what a call passed; finished commands go to `out`. Chunks of one direction come in order.
    ///
    /// `tag` is kept for the commands that begin in this chunk. A command comes out with the chunk that completes its reply;
    /// only after a loss, or on a connection that was open before the agent came, some may come out later
    /// ([`Tracker::flush`]).
    pub fn feed(&mut self, chunk: Chunk<'_>, tag: T, out: &mut Vec<Command<T>>) {
        if chunk.len == 0 || self.replicating {
            return;
        }
        let is_request = self.is_request(chunk.direction);
        let stream = if is_request { &mut self.request_stream } else { &mut self.reply_stream };
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

    /// The connection ended: commands that wait for a reply have failed.
    pub fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        if self.begun.take().is_some() {
            self.session.diagnostics.commands_truncated += 1;
        }
        self.requests.reset();
        self.session.close(now_ns, out);
    }

    /// Nothing came for a while, or the agent ends: commands that are held back, because replies to unseen commands might
    /// have been under way, are given out if they have been answered.
    pub fn flush(&mut self, out: &mut Vec<Command<T>>) {
        self.session.settle(out);
    }

    /// Whether [`Tracker::flush`] would do nothing.
    pub fn is_settled(&self) -> bool {
        self.session.is_settled()
    }

    /// Commands that are neither given out nor counted in the diagnostics.
    pub fn open_commands(&self) -> usize {
        self.session.waiting()
    }

    /// Stream offset below which bytes of this direction are not needed, because they are the inside of a long value.
    /// Never goes back.
    pub fn skip(&self, direction: Direction) -> u64 {
        if self.is_request(direction) { self.request_stream.skip() } else { self.reply_stream.skip() }
    }

    /// About how many bytes it takes beside itself.
    pub fn bytes(&self) -> usize {
        self.session.bytes()
    }

    /// Gives back what [`Tracker::bytes`] counts, as if bytes of both directions had been lost: commands that wait are counted.
    pub fn give_up(&mut self, out: &mut Vec<Command<T>>) {
        self.flush(out);
        self.lose_requests();
        self.lose_replies();
    }

    /// The counters since the last call.
    pub fn diagnostics(&mut self) -> Diagnostics {
        std::mem::take(&mut self.session.diagnostics)
    }

    fn is_request(&self, direction: Direction) -> bool {
        (direction == Direction::Sent) == (self.role == Role::Client)
    }

    fn feed_requests(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        let end = chunk.offset.saturating_add(chunk.len);
        self.pass_request_bytes(piece.missing, chunk.offset, chunk, tag, out);
        let mut data = piece.data;
        let mut at_start = piece.stale == 0;
        if !self.request_stream.synced {
            let found = if at_start && looks_like_redis(data) != Verdict::No { Some(0) } else { find_request(data) };
            let skipped = found.unwrap_or(data.len());
            self.pass_over(skipped as u64);
            data = &data[skipped..];
            at_start &= skipped == 0;
            self.request_stream.synced = found.is_some();
        }
        if self.request_stream.synced {
            self.parse_requests(data, at_start, end.saturating_sub(piece.rest), chunk, tag, out);
        }
        self.pass_request_bytes(piece.rest, end, chunk, tag, out);
        self.request_stream.announce(self.requests.body_left());
    }

    /// `len` bytes of requests, up to the offset `end`, were not captured.
    fn pass_request_bytes(&mut self, len: u64, end: u64, chunk: &Chunk<'_>, tag: &T, out: &mut Vec<Command<T>>) {
        if len == 0 {
        } else if !self.request_stream.synced {
            self.pass_over(len);
        } else if self.requests.gap(len) {
            self.parse_requests(&[], false, end, chunk, tag, out);
        } else {
            self.session.diagnostics.requests_lost += 1;
            self.pass_over(len);
            self.lose_requests();
        }
    }

    fn parse_requests(
        &mut self,
        mut data: &[u8],
        mut at_start: bool,
        end: u64,
        chunk: &Chunk<'_>,
        tag: &T,
        out: &mut Vec<Command<T>>,
    ) {
        loop {
            if self.begun.is_none() && !data.is_empty() {
                self.begin(at_start, chunk, tag);
            }
            at_start = false;
            match self.requests.next(&mut data) {
                Ok(Some(request)) => self.complete(request, end.saturating_sub(data.len() as u64), chunk, out),
                Ok(None) => {
                    if self.requests.is_between() {
                        // Empty lines before a command are not its start.
                        self.begun = None;
                    }
                    return;
                }
                Err(Malformed) => {
                    self.session.diagnostics.requests_malformed += 1;
                    self.pass_over(data.len() as u64);
                    return self.lose_requests();
                }
            }
            if self.replicating {
                return;
            }
        }
    }

    /// A request begins.
    fn begin(&mut self, at_start: bool, chunk: &Chunk<'_>, tag: &T) {
        let quiet = self.session.is_idle() && chunk.start_ns >= self.last_reply_ns;
        if !self.aligned {
            let between = self.replies.is_between() || !self.reply_stream.synced;
            self.aligned = at_start && quiet && between && !self.requesting;
            if self.aligned {
                self.session.unsettle();
            }
        }
        if self.aligned && quiet && self.last_reply_ns > 0 && chunk.start_ns - self.last_reply_ns > SILENCE_NS {
            self.quality = Quality::Certain;
        }
        // A server has read the request before it begins to write the reply.
        let earliest_ns =
            if self.role == Role::Client { chunk.earliest_ns(self.last_request_ns) } else { chunk.start_ns };
        self.begun = Some(Begun {
            tag: tag.clone(),
            start_ns: chunk.start_ns,
            earliest_ns,
            aligned: self.aligned,
            alone: quiet,
            quality: self.quality,
        });
    }

    fn complete(&mut self, request: Request, end_offset: u64, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        let Some(begun) = self.begun.take() else { return };
        self.replicating = request.effect == Effect::Replicate;
        if !begun.aligned {
            self.session.diagnostics.commands_unaligned += 1;
            return;
        }
        let Begun { tag, start_ns, earliest_ns, alone, quality, .. } = begun;
        let sent = Sent { tag, start_ns, earliest_ns, end_ns: chunk.end_ns, end_offset, alone, quality };
        self.session.request(request, sent, out);
    }

    fn feed_replies(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, out: &mut Vec<Command<T>>) {
        self.pass_reply_bytes(piece.missing, chunk, out);
        if !self.reply_stream.synced {
            let due = self.aligned && self.session.oldest_ns().is_some_and(|oldest| oldest <= chunk.end_ns);
            let joined = piece.missing == 0 && piece.stale == 0;
            self.reply_stream.synced = due && joined && looks_like_replies(piece.data) != Verdict::No;
        }
        if self.reply_stream.synced {
            self.parse_replies(piece.data, chunk, out);
        } else {
            self.pass_over(piece.data.len() as u64);
            // These may have been the replies of the commands that wait.
            self.unalign();
        }
        self.pass_reply_bytes(piece.rest, chunk, out);
        self.reply_stream.announce(self.replies.body_left());
    }

    /// `len` bytes of replies were not captured.
    fn pass_reply_bytes(&mut self, len: u64, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        if len == 0 {
        } else if !self.reply_stream.synced {
            self.pass_over(len);
        } else if self.replies.gap(len) {
            self.parse_replies(&[], chunk, out);
        } else {
            self.session.diagnostics.replies_lost += 1;
            self.pass_over(len);
            self.lose_replies();
        }
    }

    fn parse_replies(&mut self, mut data: &[u8], chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        // A client has the reply when its call ends; a server has written nothing before its call begins.
        let first_ns = if self.role == Role::Client { chunk.end_ns } else { chunk.start_ns };
        loop {
            match self.replies.next(&mut data, first_ns, chunk.end_ns) {
                Ok(Some(reply)) => {
                    if self.session.reply(reply, out).is_err() {
                        self.unalign();
                    }
                }
                Ok(None) => return,
                Err(Malformed) => {
                    self.session.diagnostics.replies_malformed += 1;
                    self.pass_over(data.len() as u64);
                    return self.lose_replies();
                }
            }
        }
    }

    /// Counts bytes that nobody reads.
    fn pass_over(&mut self, len: u64) {
        let skipped = &mut self.session.diagnostics.bytes_skipped;
        *skipped = skipped.saturating_add(len);
    }

    fn lose_requests(&mut self) {
        if self.begun.take().is_some() {
            self.session.diagnostics.commands_truncated += 1;
        }
        // Replies to the lost commands will come: what is held back cannot be told apart any longer.
        self.session.give_up_held();
        self.requests.reset();
        self.request_stream.synced = false;
        self.quality = Quality::Resynced;
        self.aligned = false;
    }

    fn lose_replies(&mut self) {
        self.replies.reset();
        self.reply_stream.synced = false;
        self.quality = Quality::Resynced;
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

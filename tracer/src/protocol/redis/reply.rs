//! Replies of RESP2 and RESP3, in pieces of any size: one [`Reply`] per value at the top level.

use super::error::ErrorReply;
use super::subscriptions::Topic;
use crate::protocol::resp::{MAX_BULK, Malformed, Scanner, Token, number};

/// Deepest nesting that is believed; Redis's own replies nest about ten deep.
const MAX_DEPTH: usize = 128;
/// Most elements of one aggregate that are believed.
const MAX_ELEMENTS: i64 = 1 << 40;
/// Bytes kept of a line that comes in pieces.
const KEPT_LINE: usize = 256;
/// Longest line that is not a text: a marker and a number.
const MAX_HEADER: usize = 64;
/// Bytes kept of a bulk that is looked at.
const KEPT_BULK: usize = 64;

/// What a status reply says, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    /// Something else, or not a status.
    #[default]
    Other,
    /// `+QUEUED`
    Queued,
    /// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`
    MonitorLine,
}

/// A complete reply. Values in it are gone.
#[derive(Debug)]
pub(super) struct Reply {
    /// When its first byte was there.
    pub first_ns: u64,
    /// When its last byte was there.
    pub end_ns: u64,
    pub bytes: u64,
    /// RESP type.
    pub marker: u8,
    pub null: bool,
    pub status: Status,
    pub error: Option<ErrorReply>,
    pub inner_errors: u32,
    pub inner_error: Option<ErrorReply>,
    pub topic: Topic,
    /// Last integer among the elements of the top level.
    pub number: u64,
}

impl Reply {
    fn new(first_ns: u64) -> Self {
        Self {
            first_ns,
            end_ns: first_ns,
            bytes: 0,
            marker: 0,
            null: false,
            status: Status::Other,
            error: None,
            inner_errors: 0,
            inner_error: None,
            topic: Topic::Other,
            number: 0,
        }
    }

    fn error(&mut self, text: &[u8], top: bool) {
        if top {
            self.error = Some(ErrorReply::parse(text));
        } else {
            self.inner_errors = self.inner_errors.saturating_add(1);
            if self.inner_error.is_none() {
                self.inner_error = Some(ErrorReply::parse(text));
            }
        }
    }
}

/// An aggregate that is not complete.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// Elements to come; `u64::MAX` when an end marker will say.
    left: u64,
    /// Elements that it has.
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Aggregate,
    /// Describes the value after it.
    Attribute,
    /// A string in chunks.
    String,
}

/// What the bulk that is being read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bulk {
    Value,
    /// First element of the top level.
    Topic,
    Error,
    /// Chunk of a streamed string.
    Chunk,
}

/// Whether a token completed a value.
enum Step {
    Value,
    More,
}

/// Incremental parser of replies.
#[derive(Debug)]
pub(super) struct Replies {
    scanner: Scanner,
    stack: Vec<Frame>,
    /// Attribute frames on the stack.
    attributes: u32,
    /// The reply that is being read.
    reply: Option<Reply>,
    bulk: Bulk,
    kept: Vec<u8>,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self {
            scanner: Scanner::new(KEPT_LINE, MAX_HEADER),
            stack: Vec::new(),
            attributes: 0,
            reply: None,
            bulk: Bulk::Value,
            kept: Vec::new(),
        }
    }

    /// True between two replies.
    pub(super) fn is_between(&self) -> bool {
        self.reply.is_none()
    }

    /// Bytes of the current bulk that need not be seen.
    pub(super) fn body_left(&self) -> u64 {
        self.scanner.body_left()
    }

    /// Forgets a reply that is not complete.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.stack.clear();
        self.attributes = 0;
        self.reply = None;
    }

    /// `len` bytes are missing. False when framing was among them.
    pub(super) fn gap(&mut self, len: u64) -> bool {
        let inside = self.scanner.gap(len);
        if let Some(reply) = self.reply.as_mut().filter(|_| inside) {
            reply.bytes = reply.bytes.saturating_add(len);
        }
        inside
    }

    /// The next complete reply; `None` when more input is needed. A reply that begins in `input` was there first at
    /// `first_ns`, one that ends in it was complete at `end_ns`.
    pub(super) fn next(&mut self, input: &mut &[u8], first_ns: u64, end_ns: u64) -> Result<Option<Reply>, Malformed> {
        loop {
            if self.reply.is_none() {
                if input.is_empty() {
                    return Ok(None);
                }
                self.reply = Some(Reply::new(first_ns));
            }
            let before = input.len();
            let step = self.step(input)?;
            if let Some(reply) = &mut self.reply {
                reply.bytes += (before - input.len()) as u64;
            }
            match step {
                None => return Ok(None),
                Some(Step::More) => {}
                Some(Step::Value) => {
                    if self.value() {
                        let mut reply = self.reply.take();
                        if let Some(reply) = &mut reply {
                            reply.end_ns = end_ns;
                        }
                        return Ok(reply);
                    }
                }
            }
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Step>, Malformed> {
        let Some(token) = self.scanner.next(input)? else { return Ok(None) };
        let Some(reply) = &mut self.reply else { return Err(Malformed) };
        match token {
            Token::Body(data) => {
                if matches!(self.bulk, Bulk::Topic | Bulk::Error) {
                    let room = KEPT_BULK.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&data[..data.len().min(room)]);
                }
                Ok(Some(Step::More))
            }
            Token::End => Ok(Some(match self.bulk {
                Bulk::Chunk => Step::More,
                Bulk::Value => Step::Value,
                Bulk::Topic => {
                    reply.topic = Topic::parse(&self.kept, self.stack.first().map_or(0, |frame| frame.size));
                    Step::Value
                }
                Bulk::Error => {
                    reply.error(&self.kept, self.stack.is_empty());
                    Step::Value
                }
            })),
            Token::Line(line) => {
                let Some((&marker, rest)) = line.split_first() else { return Err(Malformed) };
                let top = self.stack.is_empty();
                if top && marker != b'|' {
                    reply.marker = marker;
                }
                if self.stack.last().is_some_and(|frame| frame.kind == Kind::String) != (marker == b';') {
                    return Err(Malformed);
                }
                let step = match marker {
                    b'+' => {
                        if top {
                            reply.status = status(rest);
                        }
                        Step::Value
                    }
                    b'-' => {
                        reply.error(rest, top);
                        Step::Value
                    }
                    b':' => {
                        let value = number(rest).ok_or(Malformed)?;
                        if self.stack.len() == 1 && self.attributes == 0 {
                            reply.number = u64::try_from(value).unwrap_or(0);
                        }
                        Step::Value
                    }
                    b',' | b'(' => Step::Value,
                    b'#' if rest == b"t" || rest == b"f" => Step::Value,
                    b'_' if rest.is_empty() => {
                        reply.null |= top;
                        Step::Value
                    }
                    b'$' | b'=' | b'!' | b';' => {
                        let head = bulk_head(marker, rest)?;
                        return self.begin_bulk(marker, head, top);
                    }
                    b'*' | b'~' | b'>' | b'%' | b'|' => {
                        let head = aggregate_head(marker, rest)?;
                        return self.begin_aggregate(marker, head, top);
                    }
                    b'.' if rest.is_empty() => return self.end_streamed(),
                    _ => return Err(Malformed),
                };
                Ok(Some(step))
            }
        }
    }

    fn begin_bulk(&mut self, marker: u8, head: Head, top: bool) -> Result<Option<Step>, Malformed> {
        let len = match head {
            Head::Null => {
                if let Some(reply) = &mut self.reply {
                    reply.null |= top;
                }
                return Ok(Some(Step::Value));
            }
            Head::Streamed => {
                self.push(Kind::String, u64::MAX)?;
                return Ok(Some(Step::More));
            }
            Head::Size(0) if marker == b';' => {
                self.stack.pop();
                return Ok(Some(Step::Value));
            }
            Head::Size(len) => len,
        };
        self.kept.clear();
        self.bulk = match marker {
            b';' => Bulk::Chunk,
            b'!' => Bulk::Error,
            b'$' if self.is_first_element() => Bulk::Topic,
            _ => Bulk::Value,
        };
        self.scanner.body(len);
        Ok(Some(Step::More))
    }

    fn begin_aggregate(&mut self, marker: u8, head: Head, top: bool) -> Result<Option<Step>, Malformed> {
        let kind = if marker == b'|' { Kind::Attribute } else { Kind::Aggregate };
        match head {
            Head::Null => {
                if let Some(reply) = &mut self.reply {
                    reply.null |= top;
                }
                Ok(Some(Step::Value))
            }
            Head::Size(0) if kind == Kind::Attribute => Ok(Some(Step::More)),
            Head::Size(0) => Ok(Some(Step::Value)),
            Head::Size(size) => {
                self.push(kind, size)?;
                Ok(Some(Step::More))
            }
            Head::Streamed => {
                self.push(kind, u64::MAX)?;
                Ok(Some(Step::More))
            }
        }
    }

    fn end_streamed(&mut self) -> Result<Option<Step>, Malformed> {
        let frame = self.stack.pop_if(|frame| frame.left == u64::MAX).ok_or(Malformed)?;
        if frame.kind == Kind::Attribute {
            self.attributes -= 1;
            return Ok(Some(Step::More));
        }
        Ok(Some(Step::Value))
    }

    fn push(&mut self, kind: Kind, size: u64) -> Result<(), Malformed> {
        if self.stack.len() == MAX_DEPTH {
            return Err(Malformed);
        }
        self.attributes += u32::from(kind == Kind::Attribute);
        self.stack.push(Frame { kind, left: size, size });
        Ok(())
    }

    fn is_first_element(&self) -> bool {
        matches!(self.stack.as_slice(), [Frame { kind: Kind::Aggregate, left, size }] if left == size)
    }

    /// Counts a complete value in the aggregates around it. True when it completed the reply.
    fn value(&mut self) -> bool {
        loop {
            let Some(frame) = self.stack.last_mut() else { return true };
            if frame.left != u64::MAX {
                frame.left -= 1;
            }
            if frame.left != 0 {
                return false;
            }
            let attribute = frame.kind == Kind::Attribute;
            self.stack.pop();
            if attribute {
                self.attributes -= 1;
                return false;
            }
        }
    }
}

/// Number in a header line.
enum Head {
    Null,
    Streamed,
    Size(u64),
}

fn bulk_head(marker: u8, text: &[u8]) -> Result<Head, Malformed> {
    match (number(text), text) {
        (None, b"?") if marker == b'$' => Ok(Head::Streamed),
        (Some(-1), _) if marker == b'$' => Ok(Head::Null),
        (Some(len), _) => u64::try_from(len).ok().filter(|len| *len <= MAX_BULK).map(Head::Size).ok_or(Malformed),
        (None, _) => Err(Malformed),
    }
}

fn aggregate_head(marker: u8, text: &[u8]) -> Result<Head, Malformed> {
    let pairs = matches!(marker, b'%' | b'|');
    match (number(text), text) {
        (None, b"?") => Ok(Head::Streamed),
        (Some(-1), _) if marker == b'*' => Ok(Head::Null),
        (Some(size @ 0..=MAX_ELEMENTS), _) => Ok(Head::Size(size.unsigned_abs() * if pairs { 2 } else { 1 })),
        _ => Err(Malformed),
    }
}

fn status(text: &[u8]) -> Status {
    if text == b"QUEUED" {
        return Status::Queued;
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && text.get(digits) == Some(&b'.') { Status::MonitorLine } else { Status::Other }
}

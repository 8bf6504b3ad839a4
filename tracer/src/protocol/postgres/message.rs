//! Messages of one direction, in pieces of any size.
//!
//! A message has one byte of kind, four of length (which count themselves) and a body; the first ones of a client have no kind. Only
//! the first bytes of a body are kept, and only when it does not come in one piece.

use crate::protocol::resp::Malformed;

/// Longest message that servers and clients take.
const MAX_LEN: u64 = 1 << 30;

/// Kind of the messages that have none.
pub(super) const STARTUP: u8 = 0;

/// A complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub kind: u8,
    /// Bytes of the body.
    pub len: u64,
    /// Bytes on the wire.
    pub wire: u64,
    /// The start of the body.
    pub head: &'a [u8],
}

impl Message<'_> {
    /// Its body is all there.
    pub(super) fn is_whole(&self) -> bool {
        self.head.len() as u64 == self.len
    }
}

/// Incremental reader.
#[derive(Debug)]
pub(super) struct Messages {
    /// Bytes kept of a body.
    keep: usize,
    /// Whether a message of this kind may have a body of this length.
    fits: fn(u8, u64) -> bool,
    /// The next one is a client's first.
    pub startup: bool,
    header: [u8; 5],
    /// Bytes of `header` that are there.
    got: usize,
    /// Bytes of the body to come.
    left: u64,
    len: u64,
    kept: Vec<u8>,
}

impl Messages {
    /// Keeps at most `keep` bytes of a body.
    pub(super) fn new(keep: usize, fits: fn(u8, u64) -> bool) -> Self {
        Self { keep, fits, startup: false, header: [0; 5], got: 0, left: 0, len: 0, kept: Vec::new() }
    }

    /// True between two messages.
    pub(super) fn is_between(&self) -> bool {
        self.got == 0
    }

    /// Bytes of the current body that need not be seen.
    pub(super) fn body_left(&self) -> u64 {
        if self.got == self.header_len() && self.kept.len() == self.keep { self.left } else { 0 }
    }

    /// Forgets a message that is not complete.
    pub(super) fn reset(&mut self) {
        self.got = 0;
        self.wipe();
    }

    /// Bytes that it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// Gives these back.
    pub(super) fn give_back(&mut self) {
        self.reset();
        self.kept = Vec::new();
    }

    /// Overwrites what was kept: it may be a secret.
    pub(super) fn wipe(&mut self) {
        self.kept.fill(0);
        self.kept.clear();
    }

    /// `len` bytes are missing. False when bytes that matter were among them.
    pub(super) fn gap(&mut self, len: u64) -> bool {
        let inside = len <= self.body_left();
        if inside {
            self.left -= len;
        }
        inside
    }

    /// The current message, if its start is known: its end and what follows are missing.
    pub(super) fn torn(&self) -> Option<Message<'_>> {
        let known = self.got == self.header_len() && self.kept.len() == self.keep;
        let message = self.message();
        known.then_some(Message { wire: message.wire - self.left, ..message })
    }

    /// The next complete message; `None` when more input is needed.
    pub(super) fn next<'p, 'a: 'p>(&'p mut self, input: &mut &'a [u8]) -> Result<Option<Message<'p>>, Malformed> {
        let header_len = self.header_len();
        if self.is_between()
            && let Some((header, rest)) = input.split_at_checked(header_len)
        {
            self.header[..header_len].copy_from_slice(header);
            let (kind, len) = self.parse()?;
            if let Some((body, rest)) = rest.split_at_checked(len as usize) {
                *input = rest;
                let head = &body[..body.len().min(self.keep)];
                return Ok(Some(Message { kind, len, wire: len + header_len as u64, head }));
            }
        }
        if self.got < header_len {
            let take = input.len().min(header_len - self.got);
            self.header[self.got..self.got + take].copy_from_slice(&input[..take]);
            *input = &input[take..];
            self.got += take;
            if self.got < header_len {
                return Ok(None);
            }
            self.len = self.parse()?.1;
            self.left = self.len;
            self.kept.clear();
        }
        let take = input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let room = self.keep - self.kept.len();
        self.kept.extend_from_slice(&input[..take.min(room)]);
        *input = &input[take..];
        self.left -= take as u64;
        if self.left > 0 {
            return Ok(None);
        }
        self.got = 0;
        Ok(Some(self.message()))
    }

    fn header_len(&self) -> usize {
        if self.startup { 4 } else { 5 }
    }

    fn message(&self) -> Message<'_> {
        let kind = if self.startup { STARTUP } else { self.header[0] };
        Message { kind, len: self.len, wire: self.len + self.header_len() as u64, head: &self.kept }
    }

    fn parse(&self) -> Result<(u8, u64), Malformed> {
        let [kind, a, b, c, d] = self.header;
        let (kind, len) = if self.startup { (STARTUP, body([kind, a, b, c])) } else { (kind, body([a, b, c, d])) };
        len.filter(|len| (self.startup || kind != STARTUP) && (self.fits)(kind, *len))
            .map(|len| (kind, len))
            .ok_or(Malformed)
    }
}

/// Length of a body.
fn body(len: [u8; 4]) -> Option<u64> {
    u64::from(u32::from_be_bytes(len)).checked_sub(4).filter(|len| *len < MAX_LEN)
}

/// Whether bytes are messages that may be, of which the last one ends where `len` bytes end if `is_whole`. What is behind the bytes
/// that are there is not looked at. The first message must be `first`.
pub(super) fn are_messages(bytes: &[u8], len: Option<u64>, fits: fn(u8, u64) -> bool, first: fn(u8) -> bool) -> bool {
    if !bytes.first().is_some_and(|kind| first(*kind)) {
        return false;
    }
    let mut rest = bytes;
    let mut left = len;
    while let Some((&[kind, a, b, c, d], behind)) = rest.split_first_chunk::<5>() {
        let Some(body) = body([a, b, c, d]).filter(|body| fits(kind, *body)) else { return false };
        if let Some(left) = &mut left {
            let Some(behind) = left.checked_sub(body + 5) else { return false };
            *left = behind;
        }
        let Some(behind) = behind.get(usize::try_from(body).unwrap_or(usize::MAX)..) else { return true };
        rest = behind;
    }
    // A header in two pieces is no whole message.
    rest.is_empty() || (left.is_none() && rest.len() < bytes.len())
}

/// A cursor over the first bytes of a body.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Bytes up to a zero byte, which is passed.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

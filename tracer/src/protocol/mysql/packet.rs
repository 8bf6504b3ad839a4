//! Packets of one direction, in pieces of any size.
//!
//! A packet has three bytes of length, one of number, and a body. A body of 2^24 - 1 bytes goes on in the next packet: both are
//! one here. Only the first bytes of a body are kept, and only when it does not come in one piece.

use crate::protocol::resp::Malformed;

/// Length of a packet that goes on in the next one.
pub(super) const FULL: u64 = 0xff_ffff;
const HEADER: usize = 4;

/// A complete packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Number of the first part.
    pub seq: u8,
    /// Number of the last part.
    pub last_seq: u8,
    /// Bytes of the body.
    pub len: u64,
    /// Bytes on the wire.
    pub wire: u64,
    /// The start of the body.
    pub head: &'a [u8],
}

/// Incremental reader.
#[derive(Debug)]
pub(super) struct Packets {
    /// Bytes kept of a body.
    keep: usize,
    header: [u8; HEADER],
    /// Bytes of `header` that are there.
    got: usize,
    /// Bytes of this part's body to come.
    left: u64,
    /// The last part was full: this one belongs to it.
    continued: bool,
    seq: u8,
    last_seq: u8,
    len: u64,
    wire: u64,
    kept: Vec<u8>,
}

impl Packets {
    /// Keeps at most `keep` bytes of a body.
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            header: [0; HEADER],
            got: 0,
            left: 0,
            continued: false,
            seq: 0,
            last_seq: 0,
            len: 0,
            wire: 0,
            kept: Vec::new(),
        }
    }

    /// True between two packets.
    pub(super) fn is_between(&self) -> bool {
        self.got == 0 && !self.continued
    }

    /// Bytes of the current body that need not be seen.
    pub(super) fn body_left(&self) -> u64 {
        if self.got == HEADER && self.kept.len() == self.keep { self.left } else { 0 }
    }

    /// Forgets a packet that is not complete.
    pub(super) fn reset(&mut self) {
        self.got = 0;
        self.continued = false;
        self.wipe();
    }

    /// Keeps less of the bodies to come. Between two packets.
    pub(super) fn keep_less(&mut self, keep: usize) {
        self.keep = self.keep.min(keep);
        self.kept.truncate(keep);
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
            self.len += len;
            self.wire += len;
        }
        inside
    }

    /// The current packet, if more than `self` knows of its length is missing, but nothing of its start: a body of 16 MiB or more of
    /// which a length in the middle was not captured. It is forgotten, and where it ends is not known.
    pub(super) fn torn(&mut self) -> Option<Packet<'_>> {
        let torn = self.got == HEADER && parse(self.header).0 == FULL && self.kept.len() == self.keep;
        if !torn {
            return None;
        }
        (self.got, self.continued) = (0, false);
        let Self { seq, last_seq, len, wire, .. } = *self;
        Some(Packet { seq, last_seq, len, wire, head: &self.kept })
    }

    /// Forgets the current packet; the bytes that were seen of it.
    pub(super) fn abandon(&mut self) -> u64 {
        let wire = if self.is_between() { 0 } else { self.wire };
        self.reset();
        wire
    }

    /// The next complete packet; `None` when more input is needed.
    pub(super) fn next<'p, 'a: 'p>(&'p mut self, input: &mut &'a [u8]) -> Result<Option<Packet<'p>>, Malformed> {
        if self.is_between()
            && let Some((header, rest)) = input.split_first_chunk::<HEADER>()
            && let (len, seq) = parse(*header)
            && len < FULL
            && let Some((body, rest)) = rest.split_at_checked(len as usize)
        {
            *input = rest;
            let head = &body[..body.len().min(self.keep)];
            return Ok(Some(Packet { seq, last_seq: seq, len, wire: len + HEADER as u64, head }));
        }
        loop {
            if self.got < HEADER {
                if self.is_between() {
                    (self.len, self.wire) = (0, 0);
                    self.kept.clear();
                }
                let take = input.len().min(HEADER - self.got);
                self.header[self.got..self.got + take].copy_from_slice(&input[..take]);
                *input = &input[take..];
                self.got += take;
                if self.got < HEADER {
                    return Ok(None);
                }
                let (len, seq) = parse(self.header);
                if !self.continued {
                    self.seq = seq;
                } else if seq != self.last_seq.wrapping_add(1) {
                    return Err(Malformed);
                }
                self.last_seq = seq;
                self.left = len;
                self.wire += HEADER as u64;
            }
            let take = input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let room = self.keep - self.kept.len();
            self.kept.extend_from_slice(&input[..take.min(room)]);
            *input = &input[take..];
            self.left -= take as u64;
            self.len += take as u64;
            self.wire += take as u64;
            if self.left > 0 {
                return Ok(None);
            }
            self.got = 0;
            self.continued = parse(self.header).0 == FULL;
            if !self.continued {
                let Self { seq, last_seq, len, wire, .. } = *self;
                return Ok(Some(Packet { seq, last_seq, len, wire, head: &self.kept }));
            }
        }
    }
}

/// Length of the body, and number.
pub(super) fn parse([a, b, c, seq]: [u8; HEADER]) -> (u64, u8) {
    (u64::from(u32::from_le_bytes([a, b, c, 0])), seq)
}

/// A cursor over the first bytes of a body.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// A little-endian integer of at most eight bytes.
    pub(super) fn int(&mut self, len: usize) -> Option<u64> {
        Some(self.bytes(len)?.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    /// A length-encoded integer.
    pub(super) fn lenenc(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfc => self.int(2),
            0xfd => self.int(3),
            0xfe => self.int(8),
            0xfb | 0xff => None,
            small => Some(u64::from(small)),
        }
    }

    /// Bytes behind their length-encoded length.
    pub(super) fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.lenenc()?).ok()?;
        self.bytes(len)
    }

    /// Bytes up to a zero byte, which is passed.
    pub(super) fn until_zero(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let bytes = self.bytes(end)?;
        self.u8()?;
        Some(bytes)
    }
}

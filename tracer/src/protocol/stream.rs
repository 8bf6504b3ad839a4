//! Bytes of one connection as socket calls passed them, and where the reading of one direction stands.

/// Shorter rests of a body are captured rather than announced.
const MIN_SKIP: u64 = 1024;

/// Towards whom, seen from the traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

/// Bytes of one direction, as a socket call passed them.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which direction.
    pub direction: Direction,
    /// Bytes of this direction before these.
    pub offset: u64,
    /// Bytes that it stands for.
    pub len: u64,
    /// The first of them; the rest was not captured.
    pub data: &'a [u8],
    /// When the call began, nanoseconds of CLOCK_MONOTONIC; `end_ns` when that was not seen.
    pub start_ns: u64,
    /// When the call ended.
    pub end_ns: u64,
}

impl Chunk<'_> {
    /// The call had not begun before this. `last_ns` is the end of the last call of this direction before it.
    pub fn earliest_ns(&self, last_ns: u64) -> u64 {
        if self.start_ns < self.end_ns { self.start_ns } else { last_ns }
    }
}

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The protocol.
    Yes,
    /// Something else.
    No,
    /// Too few bytes, or other protocols begin so too.
    Maybe,
}

/// How sure it is that a reply is that of the command.
///
/// Replies have no ids, so after a loss, or on a connection that was already busy when the agent came, replies to commands that
/// nobody saw may still be under way. Commands are marked until the connection has been silent for a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// Seen from the start without a loss, or silent since.
    #[default]
    Certain,
    /// The connection was open before the agent came.
    OpenedBefore,
    /// Bytes were lost before this command.
    Resynced,
}

impl Quality {
    /// Why the pairing is in doubt, for an attribute.
    pub fn doubt(self) -> Option<&'static str> {
        match self {
            Self::Certain => None,
            Self::OpenedBefore => Some("opened_before"),
            Self::Resynced => Some("resynced"),
        }
    }
}

/// Position in one direction.
#[derive(Debug)]
pub(in crate::protocol) struct Stream {
    /// Offset of the next byte; `None` before the first one of a connection that was open before.
    next: Option<u64>,
    /// Offset below which bytes are not needed.
    skip: u64,
    /// The position is also one in the protocol.
    pub synced: bool,
}

/// What part of a chunk is news.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Piece<'a> {
    /// Bytes missing before it.
    pub missing: u64,
    /// Bytes of the chunk that had been seen.
    pub stale: u64,
    pub data: &'a [u8],
    /// Bytes missing after it.
    pub rest: u64,
}

impl Stream {
    /// `from_start`: the connection is seen from its first byte.
    pub(in crate::protocol) fn new(from_start: bool) -> Self {
        Self { next: from_start.then_some(0), skip: 0, synced: from_start }
    }

    /// Takes a chunk of `len` bytes at `offset`, of which `data` is the first part.
    pub(in crate::protocol) fn take<'a>(&mut self, offset: u64, len: u64, data: &'a [u8]) -> Piece<'a> {
        let len = len.min(u64::MAX - offset);
        let data = &data[..data.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        let next = self.next.unwrap_or(offset);
        let end = offset + len;
        self.next = Some(end.max(next));
        let stale = next.saturating_sub(offset).min(len);
        let data = data.get(usize::try_from(stale).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let known = data.len() as u64;
        Piece { missing: offset.saturating_sub(next), stale, data, rest: len - stale - known }
    }

    /// A body goes on for `body_left` bytes from here.
    pub(in crate::protocol) fn announce(&mut self, body_left: u64) {
        if body_left >= MIN_SKIP {
            let end = self.next.unwrap_or(0).saturating_add(body_left);
            self.skip = self.skip.max(end);
        }
    }

    /// Offset below which bytes are not needed; never goes back.
    pub(in crate::protocol) fn skip(&self) -> u64 {
        self.skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        let mut stream = Stream::new(true);
        assert_eq!(stream.take(0, 3, b"abc"), Piece { missing: 0, stale: 0, data: b"abc", rest: 0 });
        assert_eq!(stream.take(5, 4, b"fg"), Piece { missing: 2, stale: 0, data: b"fg", rest: 2 });
        assert_eq!(stream.take(7, 4, b"hijk"), Piece { missing: 0, stale: 2, data: b"jk", rest: 0 });
        assert_eq!(stream.take(0, 2, b"ab"), Piece { missing: 0, stale: 2, data: b"", rest: 0 });
        assert_eq!(stream.take(11, 1, b"more than said"), Piece { missing: 0, stale: 0, data: b"m", rest: 0 });
        assert_eq!(stream.take(10, 4, b"b"), Piece { missing: 0, stale: 2, data: b"", rest: 2 });
        let late = Stream::new(false).take(u64::MAX - 3, u64::MAX, b"x");
        assert_eq!(late, Piece { missing: 0, stale: 0, data: b"x", rest: 2 });
    }

    #[test]
    fn skip_never_goes_back() {
        let mut stream = Stream::new(true);
        stream.take(0, 10, b"");
        stream.announce(10);
        assert_eq!(stream.skip(), 0, "not worth it");
        stream.announce(5000);
        stream.announce(2000);
        assert_eq!(stream.skip(), 5010);
    }
}

//! Fingerprints of requests, by which one that was packed in one place is known again where it is sent.

use super::request::Requests;
use super::text::QueryText;

/// Bytes of a request that its fingerprint is made of; the captured prefix of a message is no shorter.
const LEN: usize = 512;
/// 64-bit FNV-1a: the bytes come in pieces of any size, and the standard hasher does not promise that pieces do not matter.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The fingerprint of a request that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Print {
    hash: u64,
    len: usize,
    broken: bool,
}

impl Default for Print {
    fn default() -> Self {
        Self { hash: OFFSET_BASIS, len: 0, broken: false }
    }
}

impl Print {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in &bytes[..bytes.len().min(LEN - self.len)] {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            self.len += 1;
        }
    }

    /// Bytes are missing.
    pub(super) fn gap(&mut self) {
        self.broken |= !self.is_full();
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == LEN
    }

    pub(super) fn value(self) -> Option<u64> {
        (!self.broken && self.len > 0).then_some(self.hash)
    }
}

/// The fingerprints of the requests in a buffer, as far as it holds them; the last may be cut.
pub fn fingerprints(mut bytes: &[u8]) -> Vec<u64> {
    let mut requests = Requests::new(QueryText::Off);
    let mut prints = Vec::new();
    loop {
        match requests.next(&mut bytes) {
            Ok(Some(request)) => prints.extend(request.print),
            Ok(None) => {
                prints.extend(requests.partial_print());
                return prints;
            }
            Err(_) => return prints,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fingerprints;
    use crate::protocol::redis::{Chunk, Direction, Role, Tracker};

    fn set(key: &str, value: usize) -> Vec<u8> {
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${value}\r\n{}\r\n", key.len(), "x".repeat(value)).into_bytes()
    }

    /// The fingerprints of the commands that a connection makes of the bytes, sent in pieces of a size.
    fn sent(bytes: &[u8], piece: usize) -> Vec<u64> {
        let mut tracker = Tracker::new(Role::Client);
        let mut commands = Vec::new();
        let mut offset = 0;
        for data in bytes.chunks(piece) {
            let len = data.len() as u64;
            tracker.feed(
                Chunk { direction: Direction::Sent, offset, len, data, start_ns: 1, end_ns: 2 },
                (),
                &mut commands,
            );
            offset += len;
        }
        let data = b"+OK\r\n".repeat(3);
        let len = data.len() as u64;
        tracker.feed(
            Chunk { direction: Direction::Received, offset: 0, len, data: &data, start_ns: 3, end_ns: 4 },
            (),
            &mut commands,
        );
        commands.into_iter().filter_map(|command| command.print).collect()
    }

    #[test]
    fn a_request_is_known_again_in_whatever_pieces_it_is_sent() {
        let bytes = [set("a", 3), set("b", 3), set("a", 2_000)].concat();
        let packed = fingerprints(&bytes);
        assert_eq!(packed.len(), 3);
        assert!(packed[0] != packed[1] && packed[0] != packed[2]);
        for piece in [1, 7, 100, bytes.len()] {
            assert_eq!(sent(&bytes, piece), packed);
        }
    }

    #[test]
    fn a_cut_request_counts_if_enough_of_it_is_there() {
        let bytes = set("a", 2_000);
        assert_eq!(fingerprints(&bytes[..1_024]), fingerprints(&bytes));
        assert!(fingerprints(&bytes[..500]).is_empty());
        assert!(fingerprints(b"").is_empty() && fingerprints(b"*1\r\n$x").is_empty());
    }
}

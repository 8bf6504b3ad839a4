//! Where commands and replies begin on a connection that is not seen from its start.

use super::packet::{Packet, parse};
use super::verb::lookup;

/// Longest command of which the header alone is believed.
const MAX_ALONE: u64 = 1 << 20;

/// Whether a call of `call_len` bytes, of which `sent` is the start, begins with a command.
pub(super) fn begins_command(sent: &[u8], call_len: u64) -> bool {
    let Some((header, rest)) = sent.split_first_chunk::<4>() else { return false };
    let (len, seq) = parse(*header);
    if seq != 0 || len == 0 {
        return false;
    }
    if rest.is_empty() {
        return call_len == 4 && len <= MAX_ALONE;
    }
    len + 4 <= call_len && lookup(rest, len).is_some()
}

/// Whether bytes begin with a packet of the number `seq`.
pub(super) fn begins_reply(received: &[u8], seq: u8) -> bool {
    received.split_first_chunk::<4>().is_some_and(|(header, _)| {
        let (len, its) = parse(*header);
        its == seq && len > 0
    })
}

/// A packet that closes the definitions of a statement, if both sides have not agreed to leave it out.
pub(super) fn is_late_eof(packet: &Packet<'_>) -> bool {
    packet.len == 5 && packet.head.first() == Some(&0xfe)
}

//! The messages of a client.

/// Whether a client's message of this kind may have a body of this length.
pub(super) fn fits(kind: u8, len: u64) -> bool {
    match kind {
        // The first one has no kind.
        super::message::STARTUP => (4..=10_000).contains(&len),
        // Query, function call, Parse, Bind.
        b'Q' | b'F' | b'P' | b'B' => len >= 1,
        // Describe and Close: what, and its name.
        b'D' | b'C' => (2..=10_000).contains(&len),
        // Execute: a portal, and a number of rows.
        b'E' => (5..=10_000).contains(&len),
        // Sync, Flush, Terminate, CopyDone.
        b'S' | b'H' | b'X' | b'c' => len == 0,
        // CopyData, CopyFail, an answer to a challenge.
        b'd' | b'f' | b'p' => true,
        _ => false,
    }
}

/// A message of this kind begins what the server answers.
fn begins(kind: u8) -> bool {
    matches!(kind, b'Q' | b'F' | b'P' | b'B' | b'D' | b'C' | b'E' | b'S')
}

/// Whether a call of `call_len` bytes, of which `sent` is the start, consists of whole messages.
pub(super) fn is_request(sent: &[u8], call_len: u64) -> bool {
    // A text ends in a zero byte.
    let ends = sent.first() != Some(&b'Q') || sent.len() as u64 != call_len || sent.last() == Some(&0);
    ends && super::message::are_messages(sent, Some(call_len), fits, begins)
}

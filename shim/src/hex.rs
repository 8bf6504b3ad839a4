//! Hexadecimal text without allocation.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes the lower-case digits of `bytes` into `text`, which is twice as long.
pub(crate) fn encode<'a>(bytes: &[u8], text: &'a mut [u8]) -> &'a str {
    debug_assert_eq!(text.len(), 2 * bytes.len());
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    core::str::from_utf8(text).expect("digits are ASCII")
}

/// Fills `bytes` from text of exactly twice its length.
pub(crate) fn decode(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (pair, byte) in text.chunks_exact(2).zip(bytes) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

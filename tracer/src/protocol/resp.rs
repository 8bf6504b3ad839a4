//! RESP framing: lines and counted bodies, out of pieces of any size.
//!
//! A [`Scanner`] knows nothing of commands and replies. It cuts one direction of a connection into lines and, where its
//! owner has read a bulk header, into the bytes of the body. Bodies are handed through and never kept, so a value of
//! 100 MB costs as much memory as one of 1 byte; and because their length is known beforehand, bytes in them may be
//! missing ([`Scanner::gap`]).
//!
//! ```
//! use tracer::protocol::resp::{Scanner, Token};
//! let mut scanner = Scanner::new(64, 64);
//! let mut input: &[u8] = b"$5\r\nhello\r\n";
//! assert_eq!(scanner.next(&mut input), Ok(Some(Token::Line(b"$5"))));
//! scanner.body(5);
//! assert_eq!(scanner.next(&mut input), Ok(Some(Token::Body(b"hello"))));
//! assert_eq!(scanner.next(&mut input), Ok(Some(Token::End)));
//! assert_eq!(scanner.next(&mut input), Ok(None));
//! ```

use memchr::memchr;

/// Longest bulk that is believed; Redis itself refuses more than `proto-max-bulk-len`, 512 MB by default.
pub const MAX_BULK: u64 = 1 << 40;

/// The bytes are not RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not RESP")]
pub struct Malformed;

/// Piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A line without its end; at most the bytes that the scanner keeps.
    Line(&'a [u8]),
    /// Next bytes of a body.
    Body(&'a [u8]),
    /// A body and its CRLF are complete.
    End,
}

/// Incremental cutter of one direction.
#[derive(Debug)]
pub struct Scanner {
    /// Start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes of that line so far, kept or not.
    line_len: usize,
    /// The buffered line has been handed out.
    line_taken: bool,
    /// Bytes of lines that are kept when they come in pieces.
    keep: usize,
    /// Longest line that is not a text (`+`, `-`, `(`).
    limit: usize,
    /// Bytes of body to come.
    body: u64,
    /// Bytes of CRLF after the body to come.
    tail: u8,
    /// The body ended in a gap; its `End` is due.
    end_due: bool,
}

impl Scanner {
    /// Lines that come in pieces are cut to `keep` bytes; lines over `limit` bytes are malformed unless they are texts.
    pub fn new(keep: usize, limit: usize) -> Self {
        Self { line: Vec::new(), line_len: 0, line_taken: false, keep, limit, body: 0, tail: 0, end_due: false }
    }

    /// A body of `len` bytes and a CRLF follow.
    pub fn body(&mut self, len: u64) {
        self.body = len;
        self.tail = 2;
    }

    /// Bytes of body to come before the next CRLF.
    pub fn body_left(&self) -> u64 {
        self.body
    }

    /// True between a line's or a body's end and the next byte.
    pub fn is_between(&self) -> bool {
        self.body == 0 && self.tail == 0 && !self.end_due && (self.line_len == 0 || self.line_taken)
    }

    /// Forgets everything, as at the start of a stream.
    pub fn reset(&mut self) {
        *self = Self { line: std::mem::take(&mut self.line), ..Self::new(self.keep, self.limit) };
        self.line.clear();
    }

    /// `len` bytes are missing here. False when framing was among them: the position in the stream is then unknown.
    pub fn gap(&mut self, len: u64) -> bool {
        if len == 0 {
            return true;
        }
        let beyond = len.saturating_sub(self.body);
        if beyond > u64::from(self.tail) || (self.body == 0 && self.tail == 0) {
            return false;
        }
        self.body = self.body.saturating_sub(len);
        self.tail -= beyond as u8;
        self.end_due = self.body == 0 && self.tail == 0;
        true
    }

    /// Takes the next token off `input`; `None` when more input is needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Token<'s>>, Malformed> {
        if self.end_due {
            self.end_due = false;
            return Ok(Some(Token::End));
        }
        if self.body > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let len = usize::try_from(self.body).unwrap_or(usize::MAX).min(input.len());
            let (data, rest) = input.split_at(len);
            *input = rest;
            self.body -= len as u64;
            return Ok(Some(Token::Body(data)));
        }
        if self.tail > 0 {
            return self.crlf(input);
        }
        self.line(input)
    }

    fn crlf<'s>(&mut self, input: &mut &[u8]) -> Result<Option<Token<'s>>, Malformed> {
        while self.tail > 0 {
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            if byte != if self.tail == 2 { b'\r' } else { b'\n' } {
                return Err(Malformed);
            }
            self.tail -= 1;
            *input = rest;
        }
        Ok(Some(Token::End))
    }

    fn line<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Token<'s>>, Malformed> {
        if self.line_taken {
            self.line.clear();
            self.line_len = 0;
            self.line_taken = false;
        }
        let Some(end) = memchr(b'\n', input) else {
            self.buffer(input)?;
            *input = &[];
            return Ok(None);
        };
        let (head, rest) = input.split_at(end);
        *input = &rest[1..];
        let line = if self.line_len == 0 {
            self.check(head.first().copied(), head.len())?;
            head
        } else {
            self.buffer(head)?;
            self.line_taken = true;
            self.line.as_slice()
        };
        Ok(Some(Token::Line(line.strip_suffix(b"\r").unwrap_or(line))))
    }

    fn buffer(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        let room = self.keep.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.line_len = self.line_len.saturating_add(piece.len());
        self.check(self.line.first().copied(), self.line_len)
    }

    fn check(&self, first: Option<u8>, len: usize) -> Result<(), Malformed> {
        let text = matches!(first, Some(b'+' | b'-' | b'('));
        if len > self.limit && !text { Err(Malformed) } else { Ok(()) }
    }
}

/// A decimal number as RESP writes it: digits, perhaps after a sign.
pub fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn tokens(scanner: &mut Scanner, mut input: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let body = match scanner.next(&mut input) {
                Ok(Some(Token::Line(line))) => {
                    seen.push(format!("line {}", String::from_utf8_lossy(line)));
                    line.strip_prefix(b"$").and_then(number)
                }
                Ok(Some(Token::Body(body))) => {
                    seen.push(format!("body {}", String::from_utf8_lossy(body)));
                    None
                }
                Ok(Some(Token::End)) => {
                    seen.push("end".into());
                    None
                }
                Ok(None) => return seen,
                Err(Malformed) => {
                    seen.push("malformed".into());
                    return seen;
                }
            };
            if let Some(body) = body {
                scanner.body(body as u64);
            }
        }
    }

    #[test]
    fn lines_and_bodies() {
        let mut scanner = Scanner::new(64, 64);
        let seen = tokens(&mut scanner, b"+OK\r\n$0\r\n\r\n$2\r\n\r\n\r\n:1\n");
        assert_eq!(
            seen,
            ["line +OK", "line $0", "end", "line $2", "body \r\n", "end", "line :1"],
            "an empty body, a body of line ends, a bare line feed"
        );
        assert!(scanner.is_between());
    }

    #[test]
    fn byte_by_byte() {
        let mut scanner = Scanner::new(64, 64);
        let seen: Vec<_> = b"$2\r\nab\r\n+OK\r\n".iter().flat_map(|byte| tokens(&mut scanner, &[*byte])).collect();
        assert_eq!(seen, ["line $2", "body a", "body b", "end", "line +OK"]);
    }

    #[test]
    fn gaps_inside_bodies_only() {
        let mut scanner = Scanner::new(64, 64);
        assert!(!scanner.gap(1), "between values");
        assert_eq!(tokens(&mut scanner, b"$10\r\nab"), ["line $10", "body ab"]);
        assert_eq!(scanner.body_left(), 8);
        assert!(scanner.gap(3));
        assert!(scanner.gap(6), "up to the middle of the CRLF");
        assert_eq!(tokens(&mut scanner, b"\n$1\r\n"), ["end", "line $1"]);
        assert!(scanner.gap(3), "all of body and CRLF");
        assert!(!scanner.is_between());
        assert_eq!(tokens(&mut scanner, b""), ["end"]);
        assert!(scanner.is_between());
        assert_eq!(tokens(&mut scanner, b"$1\r\n"), ["line $1"]);
        assert!(!scanner.gap(4), "one byte of the next value");
    }

    #[test]
    fn malformed() {
        assert_eq!(tokens(&mut Scanner::new(64, 64), b"$1\r\nabc"), ["line $1", "body a", "malformed"]);
        assert_eq!(tokens(&mut Scanner::new(64, 64), &[b'x'; 65]), ["malformed"]);
        let long = [&[b'+'; 100][..], b"\r\n"].concat();
        assert_eq!(tokens(&mut Scanner::new(64, 64), &long).len(), 1, "texts may be long");
    }

    #[test]
    fn long_text_in_pieces_is_cut() {
        let mut scanner = Scanner::new(8, 64);
        assert!(tokens(&mut scanner, b"-ERR one two").is_empty());
        assert_eq!(tokens(&mut scanner, b" three\r\n"), ["line -ERR one"]);
        assert!(scanner.line.len() <= 8);
        scanner.reset();
        assert_eq!(tokens(&mut scanner, b"+a\r\n"), ["line +a"]);
    }

    #[test]
    fn numbers() {
        for (text, value) in
            [("0", Some(0)), ("-1", Some(-1)), ("+7", Some(7)), ("9223372036854775807", Some(i64::MAX))]
        {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
        for text in ["", "-", "1a", "9223372036854775808", "99999999999999999999", " 1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}

//! Tokens of MySQL's SQL. Every byte sequence has some; comments and white space have none.

/// A token; bytes are as in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Keyword, name, variable; may hold any byte from 0x80 on.
    Word(&'a [u8]),
    /// Name in backticks, without them; backticks in it are doubled.
    Name(&'a [u8]),
    /// String, number, bits.
    Literal,
    /// `?`
    Placeholder,
    /// Operator or punctuation.
    Mark(&'a [u8]),
}

pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    /// Inside a comment that is executed.
    executed: bool,
    /// White space or a comment is before the last token.
    pub spaced: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8]) -> Self {
        Self { rest: sql, executed: false, spaced: false }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (token, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        token
    }

    fn run_of(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        self.rest.iter().skip(from).take_while(|byte| belongs(**byte)).count()
    }

    /// Skips to behind `end`.
    fn skip_behind(&mut self, end: &[u8]) {
        let at = memchr::memmem::find(self.rest, end).map_or(self.rest.len(), |at| at + end.len());
        self.take(at);
    }

    /// Passes white space and comments.
    fn skip(&mut self) {
        loop {
            let space = self.run_of(0, |byte| byte <= b' ');
            self.take(space);
            match self.rest {
                [b'#', ..] | [b'-', b'-'] => self.skip_behind(b"\n"),
                [b'-', b'-', next, ..] if *next <= b' ' => self.skip_behind(b"\n"),
                // What servers of some version execute is part of the statement.
                [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => {
                    let marker = if self.rest[2] == b'!' { 3 } else { 4 };
                    let version = self.run_of(marker, |byte| byte.is_ascii_digit());
                    self.take(marker + version);
                    self.executed = true;
                }
                [b'*', b'/', ..] if self.executed => {
                    self.take(2);
                    self.executed = false;
                }
                [b'/', b'*', ..] => {
                    self.take(2);
                    self.skip_behind(b"*/");
                }
                _ => return,
            }
        }
    }

    /// Passes what is in quotes, which may be missing at the end; what was between them.
    fn quoted(&mut self, quote: u8, escapes: bool) -> &'a [u8] {
        let mut at = 1;
        while let Some(byte) = self.rest.get(at) {
            match *byte {
                b'\\' if escapes => at += 2,
                byte if byte == quote => {
                    if self.rest.get(at + 1) != Some(&quote) {
                        let inside = &self.rest[1..at];
                        self.take(at + 1);
                        return inside;
                    }
                    at += 2;
                }
                _ => at += 1,
            }
        }
        let all = self.rest.len();
        self.take(all).get(1..).unwrap_or(&[])
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let before = self.rest.len();
        self.skip();
        self.spaced = self.rest.len() < before;
        let first = *self.rest.first()?;
        Some(match first {
            b'\'' | b'"' => {
                self.quoted(first, true);
                Token::Literal
            }
            b'`' => Token::Name(self.quoted(b'`', false)),
            b'?' => {
                self.take(1);
                Token::Placeholder
            }
            // Hexadecimal, bit and national strings.
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' if self.rest.get(1) == Some(&b'\'') => {
                self.take(1);
                self.quoted(b'\'', true);
                Token::Literal
            }
            // A name may begin with a digit, but what looks like a number is hidden.
            b'0'..=b'9' => self.number(),
            b'.' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => self.number(),
            b'@' => {
                let signs = self.run_of(0, |byte| byte == b'@');
                let len = self.run_of(signs, |byte| is_word(byte) || byte == b'.');
                Token::Word(self.take(signs + len))
            }
            _ if is_word(first) => {
                let len = self.run_of(0, is_word);
                Token::Word(self.take(len))
            }
            b'<' | b'>' | b'=' | b'!' | b':' | b'|' | b'&' => {
                let len = self.run_of(0, |byte| b"<>=!:|&".contains(&byte));
                Token::Mark(self.take(len))
            }
            _ => Token::Mark(self.take(1)),
        })
    }
}

impl<'a> Lexer<'a> {
    fn number(&mut self) -> Token<'a> {
        let mut at = 0;
        while let Some(byte) = self.rest.get(at) {
            let exponent = matches!(byte, b'e' | b'E')
                && matches!(self.rest.get(at + 1), Some(b'+' | b'-'))
                && self.rest.get(at + 2).is_some_and(u8::is_ascii_digit);
            if exponent {
                at += 2;
            } else if !is_word(*byte) && *byte != b'.' {
                break;
            }
            at += 1;
        }
        self.take(at);
        Token::Literal
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

//! Tokens of SQL. Every byte sequence has some; comments and white space have none.
//!
//! Where a string ends depends on things that are not in the text: on settings (MySQL's NO_BACKSLASH_ESCAPES and ANSI_QUOTES,
//! PostgreSQL's standard_conforming_strings), on the character set (in GBK and Shift-JIS a `\` or a backtick can be the second half of
//! a character), on the server's version (`/*!80000 ' */`). A lexer that guesses wrong takes a string for text and the other way round, and shows the strings of all
//! that follows. So nothing is guessed: at the first place where the ways to read it differ, the tokens end ([`Lexer::doubt`]).

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL and MariaDB.
    #[default]
    MySql,
    /// PostgreSQL: names in double quotes, `$tag$strings$tag$`, `E'strings'`, comments in comments, `$1`.
    Postgres,
}

impl Dialect {
    /// What names are quoted with.
    pub fn name_quote(self) -> u8 {
        match self {
            Self::MySql => b'`',
            Self::Postgres => b'"',
        }
    }
}

/// What is known of how the server reads the text; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whose SQL it is.
    pub dialect: Dialect,
    /// `\` escapes the next byte in a string. `None` is not known.
    pub backslash: Option<bool>,
    /// The character set has ASCII bytes only where they mean themselves, as UTF-8 does.
    pub ascii_safe: bool,
}

/// A token; bytes are as in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Keyword, name, variable.
    Word(&'a [u8]),
    /// Name in quotes, without them; quotes in it are doubled.
    Name(&'a [u8]),
    /// String, number, bits; also names that do not look like one.
    Literal,
    /// `?`, `$1`
    Placeholder(&'a [u8]),
    /// Operator or punctuation.
    Mark(&'a [u8]),
}

/// Longest name: 64 characters of at most four bytes.
pub(super) const MAX_NAME: usize = 256;

pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    reading: Reading,
    /// The byte before `rest`.
    last: u8,
    /// Inside a comment that servers of some version execute: the bytes behind its end.
    executed: Option<usize>,
    /// The last token was an `E'string'` (PostgreSQL): a string on the next line goes on with it.
    escaping: bool,
    /// White space or a comment is before the last token.
    pub spaced: bool,
    /// There was more, but it can be read in more than one way.
    pub doubt: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8], reading: Reading) -> Self {
        Self { rest: sql, reading, last: b' ', executed: None, escaping: false, spaced: false, doubt: false }
    }

    /// The last token is in a comment that servers of some version execute.
    pub(super) fn in_comment(&self) -> bool {
        self.executed.is_some()
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (token, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.last = token.last().copied().unwrap_or(self.last);
        self.rest = rest;
        token
    }

    fn run_of(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        self.rest.iter().skip(from).take_while(|byte| belongs(**byte)).count()
    }

    /// From here on the text can be read in more than one way.
    fn give_up(&mut self) {
        self.doubt = true;
        self.rest = &[];
    }

    /// A byte that follows this one may be the second half of a character.
    fn may_begin_pair(&self, byte: u8) -> bool {
        byte >= 0x80 && !self.reading.ascii_safe
    }

    fn is_postgres(&self) -> bool {
        self.reading.dialect == Dialect::Postgres
    }

    /// Passes white space and comments.
    fn skip(&mut self) {
        loop {
            let space = self.run_of(0, |byte| byte <= b' ');
            self.take(space);
            match self.rest {
                [b'-', b'-', ..] if self.is_postgres() => self.skip_line(),
                [b'/', b'*', ..] if self.is_postgres() => self.skip_nested(),
                _ if self.is_postgres() => return,
                [b'#', ..] | [b'-', b'-'] => self.skip_line(),
                [b'-', b'-', next, ..] if *next <= b' ' => self.skip_line(),
                // Two signs to the server, a comment to whoever forgot the space.
                [b'-', b'-', ..] => self.give_up(),
                [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => {
                    let marker = if self.rest[2] == b'!' { 3 } else { 4 };
                    let Some(len) = self.comment_len() else { return self.give_up() };
                    self.executed = Some(self.rest.len() - len);
                    self.take(marker);
                }
                [b'*', b'/', ..] if self.executed == Some(self.rest.len() - 2) => {
                    self.take(2);
                    self.executed = None;
                }
                [b'/', b'*', ..] => match self.comment_len() {
                    Some(len) => drop(self.take(len)),
                    // Its end is not there; nothing follows it.
                    None if memchr::memmem::find(self.rest, b"*/").is_none() => self.rest = &[],
                    None => self.give_up(),
                },
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        let end = if self.is_postgres() {
            memchr::memchr2(b'\n', b'\r', self.rest)
        } else {
            memchr::memchr(b'\n', self.rest)
        };
        self.take(end.map_or(self.rest.len(), |at| at + 1));
    }

    /// Passes a comment with comments in it; without an end nothing follows.
    fn skip_nested(&mut self) {
        let (mut at, mut depth) = (0, 0_usize);
        while let Some(pair) = self.rest.get(at..at + 2) {
            let step = match pair {
                b"/*" => {
                    depth += 1;
                    2
                }
                b"*/" => {
                    depth -= 1;
                    2
                }
                _ => 1,
            };
            at += step;
            if depth == 0 {
                self.take(at);
                return;
            }
        }
        self.rest = &[];
    }

    /// Length of the comment that begins here. `None` without an end, and with another comment in it: some servers nest them.
    fn comment_len(&self) -> Option<usize> {
        let inside = &self.rest[2..];
        let end = memchr::memmem::find(inside, b"*/")?;
        memchr::memmem::find(&inside[..end], b"/*").is_none().then_some(end + 4)
    }

    /// Passes what is in quotes; what was between them. `None` when their end is missing or in doubt. `escapes`: `\` does.
    fn quoted(&mut self, quote: u8, escapes: Option<bool>) -> Option<&'a [u8]> {
        let mut at = 1;
        while let Some(found) = memchr::memchr2(quote, b'\\', self.rest.get(at..).unwrap_or_default()) {
            at += found;
            let half = self.may_begin_pair(self.rest[at - 1]);
            if self.rest[at] == quote {
                if half && quote == self.reading.dialect.name_quote() {
                    self.give_up();
                    return None;
                }
                if self.rest.get(at + 1) != Some(&quote) {
                    let inside = &self.rest[1..at];
                    self.take(at + 1);
                    return Some(inside);
                }
                at += 2;
            } else if escapes == Some(false) {
                at += 1;
            } else if escapes == Some(true) && !half {
                at += 2;
            } else {
                // An even number of them escape each other, or are themselves: the quote behind them is one.
                let run = self.run_of(at, |byte| byte == b'\\');
                at += run;
                if self.rest.get(at) == Some(&quote) && (half || run % 2 == 1) {
                    self.give_up();
                    return None;
                }
            }
        }
        self.rest = &[];
        None
    }

    /// A string, of which nothing is shown.
    fn string(&mut self, quote: u8, escapes: Option<bool>) -> Token<'a> {
        self.quoted(quote, escapes);
        Token::Literal
    }

    fn name(&mut self) -> Token<'a> {
        let quote = self.reading.dialect.name_quote();
        // The quote may be half of a character.
        if self.may_begin_pair(self.last) {
            self.give_up();
        }
        // Anything may stand between the quotes; what looks like more than a name may be a literal whose quotes went wrong.
        let plain = |byte: &u8| is_word(*byte) || *byte == quote || b" -.#/:".contains(byte);
        match self.quoted(quote, Some(false)) {
            Some(name) if name.len() <= MAX_NAME && name.iter().all(plain) => Token::Name(name),
            _ => Token::Literal,
        }
    }

    fn word(&mut self, len: usize) -> Token<'a> {
        let word = self.take(len);
        // Typographic quotes are none to the server, but to whoever wrote them.
        let letters = |text: &str| text.chars().all(|letter| letter.is_alphanumeric() || "_$@.".contains(letter));
        let is_name = word.len() <= MAX_NAME && (word.is_ascii() || std::str::from_utf8(word).is_ok_and(letters));
        if is_name { Token::Word(word) } else { Token::Literal }
    }

    fn token(&mut self, first: u8) -> Token<'a> {
        // What has names in it has no escapes.
        let plain = self.reading.backslash.filter(|escapes| !escapes);
        if self.is_postgres()
            && let Some(token) = self.postgres_token(first, plain)
        {
            return token;
        }
        match first {
            b'\'' => self.string(first, self.reading.backslash),
            // In the mode ANSI_QUOTES this is a name.
            b'"' => self.string(first, plain),
            b'`' => self.name(),
            b'?' => Token::Placeholder(self.take(1)),
            // Hexadecimal, bit and national strings.
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' if self.rest.get(1) == Some(&b'\'') => {
                self.take(1);
                self.string(b'\'', self.reading.backslash)
            }
            // A name may begin with a digit, but what looks like a number is hidden.
            b'0'..=b'9' => self.number(),
            b'.' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => self.number(),
            b'@' => {
                let signs = self.run_of(0, |byte| byte == b'@');
                self.word(signs + self.run_of(signs, |byte| is_word(byte) || byte == b'.'))
            }
            _ if is_word(first) => self.word(self.run_of(0, is_word)),
            b'<' | b'>' | b'=' | b'!' | b':' | b'|' | b'&' => {
                let len = self.run_of(0, |byte| b"<>=!:|&".contains(&byte));
                Token::Mark(self.take(len))
            }
            _ => Token::Mark(self.take(1)),
        }
    }

    /// Tokens that only PostgreSQL has, or reads in its own way.
    fn postgres_token(&mut self, first: u8, plain: Option<bool>) -> Option<Token<'a>> {
        let behind = self.rest.get(1).copied();
        let token = match (first, behind) {
            (b'"', _) => self.name(),
            (b'e' | b'E', Some(b'\'')) => {
                self.take(1);
                self.escaping = true;
                self.string(b'\'', Some(true))
            }
            // Digits.
            (b'x' | b'X' | b'b' | b'B', Some(b'\'')) => {
                self.take(1);
                self.string(b'\'', Some(false))
            }
            (b'u' | b'U', Some(b'&')) if matches!(self.rest.get(2), Some(b'\'' | b'"')) => {
                self.take(2);
                if self.rest.first() == Some(&b'"') { self.name() } else { self.string(b'\'', plain) }
            }
            (b'$', Some(b'0'..=b'9')) => {
                let digits = self.run_of(1, |byte| byte.is_ascii_digit());
                Token::Placeholder(self.take(1 + digits))
            }
            (b'$', _) => self.dollar_string(),
            (b'`' | b'?' | b'@' | b'#', _) => Token::Mark(self.take(1)),
            _ => return None,
        };
        Some(token)
    }

    /// `$tag$string$tag$`, or only a `$`.
    fn dollar_string(&mut self) -> Token<'a> {
        let tag = self.run_of(1, |byte| is_word(byte) && byte != b'$');
        if self.rest.get(tag + 1) != Some(&b'$') {
            return Token::Mark(self.take(1));
        }
        let (open, inside) = self.rest.split_at(tag + 2);
        match memchr::memmem::find(inside, open) {
            Some(end) => drop(self.take(end + 2 * open.len())),
            None => self.rest = &[],
        }
        Token::Literal
    }

    fn number(&mut self) -> Token<'a> {
        let mut at = 0;
        while let Some(byte) = self.rest.get(at) {
            let exponent = matches!(byte, b'e' | b'E')
                && matches!(self.rest.get(at + 1), Some(b'+' | b'-'))
                && self.rest.get(at + 2).is_some_and(u8::is_ascii_digit);
            if exponent {
                at += 2;
            } else if (!is_word(*byte) && *byte != b'.') || (*byte == b'$' && self.is_postgres()) {
                break;
            }
            at += 1;
        }
        let digits = self.take(at);
        // Old servers read `1e$$` as a number and a name, and the string begins elsewhere.
        if self.is_postgres() && self.rest.first() == Some(&b'$') && !digits.iter().all(u8::is_ascii_digit) {
            self.give_up();
        }
        Token::Literal
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let before = self.rest.len();
        self.skip();
        self.spaced = self.rest.len() < before;
        let first = *self.rest.first()?;
        // It goes on with escapes, but reads like another one.
        if std::mem::take(&mut self.escaping) && first == b'\'' && self.reading.backslash != Some(true) {
            self.give_up();
            return None;
        }
        let token = self.token(first);
        // A server that passes over this comment sees its end where the token is.
        if self.executed.is_some_and(|behind| self.rest.len() < behind + 2) {
            self.give_up();
            return None;
        }
        // The statements before may have changed the mode or the character set. PostgreSQL has read all of them by then.
        if token == Token::Mark(b";") && !self.is_postgres() {
            self.reading = Reading::default();
        }
        Some(token)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

//! The text without literals, in the spacing of the original.

use super::{Dialect, Token};

/// Longest text; a longer one ends in `...`.
const MAX_TEXT: usize = 2048;

/// Where lists of values are, of which only the first is shown: texts that differ only in their number are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum List {
    #[default]
    None,
    /// Behind `IN`.
    In,
    /// Between the brackets behind `IN`, as long as there are values only; whether there was one.
    Values(bool),
    /// Behind `VALUES`.
    Rows,
    /// In a row of `VALUES`, so many brackets deep; whether it is shown.
    Row(u32, bool),
    /// Behind a row; whether it is the first.
    BehindRow(bool),
}

/// What stands before a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Operator,
    Operand,
}

/// Builds the text.
#[derive(Debug, Default)]
pub(super) struct Text {
    dialect: Dialect,
    text: String,
    list: List,
    before: Before,
    /// Marks that are shown if no value follows: a sign, the comma in a list; and whether a space is before them.
    held: Option<(char, bool)>,
}

impl Text {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    pub(super) fn token(&mut self, token: Token<'_>, spaced: bool) {
        if self.text.len() > MAX_TEXT || self.hidden(token, spaced) {
            return;
        }
        let is_literal = token == Token::Literal;
        let mut spaced = spaced;
        if let Some((mark, before)) = self.held.take() {
            if is_literal && mark != ',' {
                spaced = before;
            } else {
                self.push(&[mark as u8], before);
            }
        }
        match token {
            Token::Word(word) => self.push(word, spaced),
            Token::Name(name) => {
                let quote = [self.dialect.name_quote()];
                self.push(&quote, spaced);
                self.push(name, false);
                self.push(&quote, false);
            }
            Token::Literal => self.push(b"?", spaced),
            Token::Placeholder(sign) => self.push(sign, spaced),
            // A sign belongs to the number behind it, unless it is an operator.
            Token::Mark(mark @ (b"-" | b"+")) if self.before == Before::Operator => {
                self.held = Some((char::from(mark[0]), spaced));
                return;
            }
            Token::Mark(mark) => self.push(mark, spaced),
        }
        self.before = match token {
            Token::Mark(b")") => Before::Operand,
            Token::Mark(_) => Before::Operator,
            _ => Before::Operand,
        };
    }

    /// The finished text.
    pub(super) fn finish(self, complete: bool) -> String {
        cut(self.text, complete)
    }

    fn push(&mut self, bytes: &[u8], spaced: bool) {
        if spaced && !self.text.is_empty() {
            self.text.push(' ');
        }
        // Not more than can be shown: a name may be as long as the text.
        self.text.push_str(&String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]));
    }

    /// Follows the lists; true when the token is not shown.
    fn hidden(&mut self, token: Token<'_>, spaced: bool) -> bool {
        let is_mark = |mark: &[u8]| token == Token::Mark(mark);
        let is_value = matches!(token, Token::Literal | Token::Placeholder(_));
        match self.list {
            List::In if is_mark(b"(") => self.list = List::Values(false),
            List::Values(false) if is_value => self.list = List::Values(true),
            List::Values(false) if is_mark(b"-") => {}
            List::Values(true) if is_mark(b",") => {
                self.held = Some((',', spaced));
                return true;
            }
            List::Values(true) if is_value && self.held.is_some() => {
                self.held = None;
                return true;
            }
            // The sign of a value that is not shown.
            List::Values(true) if is_mark(b"-") && self.held.is_some() => return true,
            List::Rows if is_mark(b"(") => self.list = List::Row(1, true),
            List::Row(depth, shown) => {
                if is_mark(b"(") {
                    self.list = List::Row(depth.saturating_add(1), shown);
                } else if is_mark(b")") {
                    self.list = if depth == 1 { List::BehindRow(shown) } else { List::Row(depth - 1, shown) };
                }
                return !shown;
            }
            List::BehindRow(_) if is_mark(b",") => {
                self.held = Some((',', spaced));
                return true;
            }
            List::BehindRow(first) if is_mark(b"(") && self.held.take().is_some() => {
                if first {
                    self.text.push_str(", ...");
                }
                self.list = List::Row(1, false);
                return true;
            }
            _ => {
                self.list = match token {
                    Token::Word(word) if word.eq_ignore_ascii_case(b"IN") => List::In,
                    Token::Word(word) if word.eq_ignore_ascii_case(b"VALUES") => List::Rows,
                    Token::Word(word) if word.eq_ignore_ascii_case(b"VALUE") => List::Rows,
                    _ => List::None,
                };
            }
        }
        false
    }
}

/// At most [`MAX_TEXT`] bytes, and a mark where some are missing.
pub(super) fn cut(mut text: String, complete: bool) -> String {
    if text.len() <= MAX_TEXT && complete {
        return text;
    }
    let mut end = text.len().min(MAX_TEXT - 3);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str("...");
    text
}

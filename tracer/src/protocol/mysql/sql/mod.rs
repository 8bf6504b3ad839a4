//! SQL as it may be shown: without literals and comments, and as a summary of a few words.
//!
//! The text may be cut off, be of any dialect, or not be SQL at all: it is read token by token, and whatever looks like a literal
//! is hidden. A parser such as the crate `sqlparser` is made for whole texts of a dialect that it knows.

mod lexer;
mod summary;
mod text;

use lexer::{Lexer, Token};
use summary::Summary;
use text::Text;

/// How much of the SQL is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Only the summary.
    Off,
    /// With `?` for every literal.
    #[default]
    Sanitized,
    /// As it was sent, unless it deals with credentials.
    Full,
}

/// What is kept of a query or of a statement that was prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// The text that may be shown (`db.query.text`), at most 2 KiB.
    pub text: Option<String>,
    /// Operations and their targets (`db.query.summary`), at most 255 bytes; `None` when nothing was recognised.
    pub summary: Option<String>,
    /// Number of statements in the text.
    pub count: u32,
    /// The schema that a `USE` chooses.
    pub uses: Option<String>,
}

impl Statement {
    /// Reads a text; `complete` says whether it is all there.
    pub fn new(sql: &[u8], complete: bool, shown: Shown) -> Self {
        let (mut text, mut summary) = (Text::default(), Summary::default());
        let mut lexer = Lexer::new(sql);
        while let Some(token) = lexer.next() {
            text.token(token, lexer.spaced);
            summary.token(token);
        }
        let secret = summary.secret;
        let text = match shown {
            Shown::Off => None,
            Shown::Full if !secret => Some(text::cut(String::from_utf8_lossy(sql).into_owned(), complete)),
            Shown::Full | Shown::Sanitized => Some(text.finish(complete)),
        };
        let (summary, count, uses) = summary.finish();
        Self { text, summary, count, uses }
    }
}

#[cfg(test)]
mod tests;

//! SQL as it may be shown: without literals and comments, and as a summary of a few words.
//!
//! The text may be cut off, be of any dialect, or not be SQL at all: it is read token by token, and whatever looks like a literal
//! is hidden. Where it is in doubt what is a literal, the text ends (`lexer`). A parser such as the crate `sqlparser` is made for whole texts of a dialect that it knows.

mod lexer;
mod summary;
mod text;
mod words;

pub use lexer::{Dialect, Reading};
use lexer::{Lexer, Token};
use smol_str::SmolStr;
use summary::Summary;
use text::Text;
use words::Words;

/// How much of the SQL is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Only the summary.
    Off,
    /// With `?` for every literal.
    #[default]
    Sanitized,
    /// As it was sent, if it reads or changes rows and has no word of credentials in it; else as `Sanitized`.
    Full,
}

/// What is kept of a query or of a statement that was prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// The text that may be shown (`db.query.text`), at most 2 KiB.
    pub text: Option<SmolStr>,
    /// Operations and their targets (`db.query.summary`), at most 255 bytes; `None` when nothing was recognised.
    pub summary: Option<SmolStr>,
    /// Number of statements in the text.
    pub count: u32,
    /// The schema that a `USE` chooses.
    pub uses: Option<String>,
    /// The character set of the connection may be another one from here on.
    pub changes_charset: bool,
}

impl Statement {
    /// Reads a text; `complete` says whether it is all there.
    pub fn new(sql: &[u8], complete: bool, shown: Shown, reading: Reading) -> Self {
        let (mut text, mut summary) = (Text::new(reading.dialect), Summary::default());
        let mut words = Words::new(shown == Shown::Full);
        let mut lexer = Lexer::new(sql, reading);
        while let Some(token) = lexer.next() {
            words.token(token, lexer.in_comment());
            // Nobody knows whether the server executes it.
            if lexer.in_comment() {
                continue;
            }
            summary.token(token);
            if !words.administer_credentials {
                text.token(token, lexer.spaced);
            }
        }
        let whole = complete && !lexer.doubt && !words.administer_credentials;
        let text: Option<String> = match shown {
            Shown::Off => None,
            Shown::Full if words.may_be_shown() && !lexer.doubt => {
                Some(text::cut(String::from_utf8_lossy(sql).into_owned(), complete))
            }
            Shown::Full | Shown::Sanitized => Some(text.finish(whole)),
        };
        let changes_charset = words.change_charset || !complete || lexer.doubt;
        let (summary, count, uses) = summary.finish();
        Self { text: text.map(Into::into), summary: summary.map(Into::into), count, uses, changes_charset }
    }
}

#[cfg(test)]
mod tests;

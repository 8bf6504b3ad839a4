//! What the words of a text say of it: whether it deals with credentials, and whether it may change the character set.

use super::Token;
use super::summary::known;

/// First words of the statements whose literals may be shown on request: they read or change rows. All others may set up users,
/// servers, replicas, variables or statements made of text.
const OF_ROWS: &[&str] = &[
    "BEGIN", "COMMIT", "DELETE", "DESC", "DESCRIBE", "EXPLAIN", "INSERT", "REPLACE", "ROLLBACK", "SELECT", "SHOW",
    "TABLE", "UPDATE", "USE", "VALUES", "WITH",
];

/// In a word that is, or names, a credential.
const CREDENTIALS: &[&str] = &[
    "AUTHENTICATION",
    "CREDENTIAL",
    "CRYPT",
    // Its literals are connection strings.
    "DBLINK",
    "IDENTIFIED",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "_PRIV",
    "PWD",
    "SECRET",
    "TOKEN",
];

/// Words that change the character set, or begin statements that may do so.
const CHARSETS: &[&str] =
    &["CALL", "CHARACTER", "CHARACTER_SET_CLIENT", "CHARSET", "COLLATION_CONNECTION", "EXECUTE", "NAMES", "PREPARE"];

/// Follows the words of a text.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The text is wanted as it was sent.
    full: bool,
    /// A statement has begun.
    within: bool,
    /// It is one of [`OF_ROWS`].
    of_rows: bool,
    /// A statement was another one.
    others: bool,
    credentials: bool,
    /// A statement that is none of rows has come to a word of credentials: what follows may be one, quoted or not.
    pub administer_credentials: bool,
    pub change_charset: bool,
}

impl Words {
    pub(super) fn new(full: bool) -> Self {
        Self { full, ..Self::default() }
    }

    /// `in_comment`: servers of some version execute it, so it may be all there is of a statement.
    pub(super) fn token(&mut self, token: Token<'_>, in_comment: bool) {
        if in_comment {
            self.others |= !self.within;
        } else if !self.within {
            // `;;`, `(SELECT ...) UNION ...`
            if matches!(token, Token::Mark(b";" | b"(")) {
                return;
            }
            self.within = true;
            self.of_rows = matches!(token, Token::Word(word) if known(OF_ROWS, word).is_some());
            self.others |= !self.of_rows;
        }
        match token {
            Token::Mark(b";") => self.within &= in_comment,
            Token::Word(word) | Token::Name(word) => {
                // `@@session.character_set_client`
                let last = word.rsplit(|byte| b"@.".contains(byte)).next().unwrap_or(word);
                self.change_charset |= known(CHARSETS, last).is_some();
                // Of those of rows it matters only where they are shown as they were sent.
                if (self.full || !self.of_rows) && is_credential(word) {
                    self.credentials = true;
                    self.administer_credentials |= self.within && !self.of_rows;
                }
            }
            Token::Mark(_) | Token::Literal | Token::Placeholder(_) => {}
        }
    }

    /// Whether the text may be shown as it was sent, if that is wanted.
    pub(super) fn may_be_shown(&self) -> bool {
        !self.others && !self.credentials
    }
}

fn is_credential(word: &[u8]) -> bool {
    CREDENTIALS.iter().any(|part| word.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes())))
}

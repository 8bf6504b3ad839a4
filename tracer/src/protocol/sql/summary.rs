//! A text in a few words: operations and their targets, `INSERT orders SELECT customers`.
//!
//! Only words in the places of operations and table names get in: never a literal, a column or an alias.

use super::Token;
use super::lexer::MAX_NAME;

/// The conventions' bound.
const MAX_SUMMARY: usize = 255;
/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 64;

/// First words of statements.
const OPERATIONS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "BINLOG",
    "CACHE",
    "CALL",
    "CHANGE",
    "CHECK",
    "CHECKPOINT",
    "CHECKSUM",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "FLUSH",
    "GRANT",
    "HANDLER",
    "HELP",
    "IMPORT",
    "INSERT",
    "INSTALL",
    "KILL",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "OPTIMIZE",
    "PREPARE",
    "PURGE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPAIR",
    "REPLACE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "SHUTDOWN",
    "SIGNAL",
    "START",
    "STOP",
    "TABLE",
    "TRUNCATE",
    "UNINSTALL",
    "UNLISTEN",
    "UNLOCK",
    "UPDATE",
    "USE",
    "VACUUM",
    "VALUES",
    "XA",
];

/// Words between an operation and its target.
const MODIFIERS: &[&str] = &[
    "CONCURRENT",
    "DELAYED",
    "EXISTS",
    "FROM",
    "HIGH_PRIORITY",
    "IF",
    "IGNORE",
    "INTO",
    "LATERAL",
    "LOW_PRIORITY",
    "NOT",
    "ONLY",
    "QUICK",
    "TABLE",
];

/// Operations that may follow the tables of a WITH, or be in one.
const CHANGES: &[&str] = &["DELETE", "INSERT", "MERGE", "UPDATE"];

/// What the next name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Nothing,
    /// A target, behind modifiers.
    Target,
    /// The rest of a target: behind its dot.
    Qualified,
    /// Perhaps a comma, and then another target of the same list.
    Comma,
    /// The schema of a USE.
    Schema,
}

/// Builds the summary.
#[derive(Debug, Default)]
pub(super) struct Summary {
    words: String,
    full: bool,
    /// The next word begins a statement.
    beginning: bool,
    begun: bool,
    /// First word of the statement.
    operation: Option<&'static str>,
    /// That is WITH: its operation comes later.
    with: bool,
    /// The last token was a bracket.
    behind_bracket: bool,
    /// The last token was the word DISTINCT.
    behind_distinct: bool,
    next: Next,
    /// Bytes of `words` before the target that is being read.
    target_at: usize,
    /// Bracket depths at which a SELECT was read: its FROM is at the same one.
    selects: Vec<u32>,
    depth: u32,
    count: u32,
    uses: Option<String>,
}

impl Summary {
    pub(super) fn token(&mut self, token: Token<'_>) {
        if !self.begun || self.beginning {
            self.begin(token);
            return;
        }
        let behind_bracket = std::mem::replace(&mut self.behind_bracket, matches!(token, Token::Mark(b"(" | b")")));
        let behind_distinct = std::mem::take(&mut self.behind_distinct);
        match token {
            Token::Word(word) if self.with && behind_bracket && known(CHANGES, word).is_some() => {
                self.push(&word.to_ascii_uppercase());
                self.next = Next::Target;
            }
            // A comparison.
            Token::Word(word) if behind_distinct && word.eq_ignore_ascii_case(b"FROM") => {}
            Token::Word(word) => self.word(word),
            Token::Name(name) => self.name(name),
            Token::Mark(b";") => self.beginning = true,
            Token::Mark(b"(") => {
                self.depth = self.depth.saturating_add(1);
                self.next = Next::Nothing;
            }
            Token::Mark(b")") => {
                self.depth = self.depth.saturating_sub(1);
                while self.selects.last().is_some_and(|depth| *depth > self.depth) {
                    self.selects.pop();
                }
                self.next = Next::Nothing;
            }
            Token::Mark(b".") if self.next == Next::Comma && self.target_at < self.words.len() => {
                self.next = Next::Qualified;
            }
            Token::Mark(b",") if self.next == Next::Comma => self.next = Next::Target,
            Token::Mark(_) | Token::Literal | Token::Placeholder(_) => self.next = Next::Nothing,
        }
    }

    /// The summary, the number of statements, and the schema that they choose.
    pub(super) fn finish(self) -> (Option<String>, u32, Option<String>) {
        let summary = (!self.words.is_empty()).then_some(self.words);
        (summary, self.count, self.uses)
    }

    fn begin(&mut self, token: Token<'_>) {
        // `(SELECT ...) UNION (SELECT ...)`, `;;`
        if matches!(token, Token::Mark(b"(" | b";")) {
            return;
        }
        self.beginning = false;
        self.begun = true;
        self.count = self.count.saturating_add(1);
        (self.depth, self.next, self.operation) = (0, Next::Nothing, None);
        self.selects.clear();
        self.with = matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(b"WITH"));
        let Token::Word(word) = token else { return };
        self.operation = known(OPERATIONS, word);
        let Some(operation) = self.operation else { return };
        self.push(operation.as_bytes());
        self.next = match operation {
            "SELECT" => {
                self.selects.push(0);
                Next::Nothing
            }
            "INSERT" | "REPLACE" | "UPDATE" | "MERGE" | "COPY" | "CALL" | "TRUNCATE" | "TABLE" | "DESC"
            | "DESCRIBE" | "HANDLER" => Next::Target,
            "USE" => Next::Schema,
            _ => Next::Nothing,
        };
    }

    fn word(&mut self, word: &[u8]) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        self.behind_distinct = is("DISTINCT");
        if self.next == Next::Qualified || self.next == Next::Schema {
            return self.name(word);
        }
        if self.next == Next::Target {
            if known(MODIFIERS, word).is_some() {
                return;
            }
            if !is("SELECT") {
                return self.name(word);
            }
        }
        let in_select = self.selects.last() == Some(&self.depth);
        if is("SELECT") {
            self.push(b"SELECT");
            if in_select {
                // Of a UNION.
            } else if self.selects.len() < MAX_DEPTH {
                self.selects.push(self.depth);
            }
            self.next = Next::Nothing;
        } else if is("FROM") {
            // Not that of EXTRACT, TRIM and SUBSTRING.
            let of_statement = self.depth == 0 && matches!(self.operation, Some("DELETE" | "SHOW"));
            self.next = if in_select || of_statement { Next::Target } else { Next::Nothing };
        } else if is("JOIN") || is("STRAIGHT_JOIN") {
            self.next = Next::Target;
        } else if is("TABLE")
            && matches!(self.operation, Some("CREATE" | "ALTER" | "DROP" | "LOAD" | "ANALYZE" | "OPTIMIZE"))
        {
            self.push(b"TABLE");
            self.next = Next::Target;
        } else if ends_list(word) {
            self.next = Next::Nothing;
        }
        // Any other word is an alias.
    }

    fn name(&mut self, name: &[u8]) {
        match self.next {
            // A variable is no table.
            Next::Target if name.first() == Some(&b'@') => self.next = Next::Nothing,
            Next::Target => {
                self.target_at = self.words.len();
                self.push(name);
                self.next = Next::Comma;
            }
            Next::Qualified => {
                self.words.push('.');
                self.words.push_str(&String::from_utf8_lossy(name));
                self.bound();
                self.next = Next::Comma;
            }
            Next::Schema => {
                let end = name.len().min(MAX_NAME);
                self.uses = Some(String::from_utf8_lossy(&name[..end]).into_owned());
                self.next = Next::Nothing;
            }
            Next::Comma | Next::Nothing => {}
        }
    }

    fn push(&mut self, word: &[u8]) {
        self.target_at = self.words.len();
        if self.full {
            return;
        }
        if !self.words.is_empty() {
            self.words.push(' ');
        }
        self.words.push_str(&String::from_utf8_lossy(&word[..word.len().min(MAX_SUMMARY + 1)]));
        self.bound();
    }

    /// Cuts between words, not in one.
    fn bound(&mut self) {
        if self.words.len() > MAX_SUMMARY {
            self.words.truncate(self.target_at);
            self.full = true;
        }
    }
}

pub(super) fn known(words: &[&'static str], word: &[u8]) -> Option<&'static str> {
    words.iter().find(|known| known.as_bytes().eq_ignore_ascii_case(word)).copied()
}

/// Words behind which no comma goes on with a list of tables.
fn ends_list(word: &[u8]) -> bool {
    const ENDS: &[&str] = &[
        "WHERE", "SET", "VALUES", "VALUE", "ON", "USING", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION", "FOR",
        "WINDOW", "INTO",
    ];
    known(ENDS, word).is_some()
}

//! What kind of work holds a server up.

use std::borrow::Cow;

/// An execution from which on a command on a key is taken to be one on a big key.
const BIG_NS: u64 = 1_000_000;

/// Kinds of work, by their remedies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A single command.
    Command,
    /// A long one on one key or a few: the value is big.
    BigKey,
    /// One that walks or empties the whole keyspace.
    Keyspace,
    /// Several commands that were sent together.
    Pipeline,
    /// `MULTI` and `EXEC`.
    Transaction,
    /// Lua and functions.
    Script,
}

impl Kind {
    /// For attributes and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::BigKey => "big_key",
            Self::Keyspace => "keyspace",
            Self::Pipeline => "pipeline",
            Self::Transaction => "transaction",
            Self::Script => "script",
        }
    }

    /// Of a command that was executed alone.
    pub fn of(name: &str, execution_ns: u64) -> Self {
        let word = name.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => Self::Script,
            "EXEC" | "MULTI" => Self::Transaction,
            "KEYS" | "SCAN" | "FLUSHALL" | "FLUSHDB" | "SWAPDB" => Self::Keyspace,
            "DEBUG" | "SAVE" | "BGSAVE" | "BGREWRITEAOF" | "CONFIG" | "INFO" | "CLIENT" | "CLUSTER" | "COMMAND"
            | "MEMORY" | "SLOWLOG" | "LATENCY" | "SCRIPT" | "FUNCTION" | "PING" | "PUBLISH" => Self::Command,
            _ if execution_ns >= BIG_NS => Self::BigKey,
            _ => Self::Command,
        }
    }
}

/// Names what a turn did by its first bytes, for clients that are not traced.
pub fn by_bytes(bytes: &[u8], len: u64, execution_ns: u64) -> (Cow<'static, str>, Kind) {
    match crate::protocol::redis::peek(bytes, len) {
        Some(peek) if peek.name == "MULTI" && peek.more => (Cow::Borrowed("MULTI"), Kind::Transaction),
        Some(peek) if peek.more => {
            let kind = match Kind::of(&peek.name, 0) {
                Kind::Script => Kind::Script,
                _ => Kind::Pipeline,
            };
            (Cow::Owned(format!("PIPELINE {}", peek.name)), kind)
        }
        Some(peek) => {
            let kind = Kind::of(&peek.name, execution_ns);
            (peek.name, kind)
        }
        // The rest of a long command or pipeline.
        None => (Cow::Borrowed("_OTHER"), Kind::Pipeline),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, by_bytes};

    #[test]
    fn kinds_by_the_first_bytes() {
        let of = |bytes: &[u8], more: u64| by_bytes(bytes, bytes.len() as u64 + more, 0);
        assert_eq!(of(b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n", 0), ("KEYS".into(), Kind::Keyspace));
        assert_eq!(of(b"*1\r\n$5\r\nMULTI\r\n", 100), ("MULTI".into(), Kind::Transaction));
        assert_eq!(of(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 900), ("PIPELINE GET".into(), Kind::Pipeline));
        assert_eq!(of(b"*3\r\n$4\r\nEVAL\r\n$500\r\nlocal a", 493), ("EVAL".into(), Kind::Script));
        assert_eq!(of(b"junk", 0).1, Kind::Pipeline);
        assert_eq!(Kind::of("SMEMBERS", 2_000_000), Kind::BigKey);
    }
}

//! Error replies without the values in them.
//!
//! An error message quotes what the client sent (`unknown command 'foo', with args beginning with: 'secret'`), and a script
//! can return any text as an error. So only the prefix leaves, and of the message only what Redis itself always says.

use std::borrow::Cow;

/// Longest prefix that is kept.
const MAX_PREFIX: usize = 32;

/// What an error reply said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// Its first word: `WRONGTYPE`, `ERR`, `MOVED`.
    pub prefix: Cow<'static, str>,
    /// The message where it is one of Redis's own, without the values in it; else empty.
    pub message: &'static str,
}

/// Prefixes that need no memory of their own.
const PREFIXES: &[&str] = &[
    "ERR",
    "WRONGTYPE",
    "MOVED",
    "ASK",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOSCRIPT",
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "MISCONF",
    "OOM",
    "EXECABORT",
    "NOREPLICAS",
    "CROSSSLOT",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSYKEY",
    "BUSYGROUP",
    "NOGROUP",
    "UNBLOCKED",
    "NOPROTO",
    "NOTBUSY",
    "UNKILLABLE",
    "INPROG",
    "NOGOODSLAVE",
    "IOERR",
    "NOMASTERLINK",
    "DENIED",
];

/// How Redis's own messages begin, and what is said of them.
const MESSAGES: &[(&str, &str)] = &[
    (
        "Operation against a key holding the wrong kind of value",
        "Operation against a key holding the wrong kind of value",
    ),
    ("Authentication required", "Authentication required"),
    ("invalid username-password pair", "invalid username-password pair or user is disabled"),
    ("No matching script", "No matching script"),
    ("Transaction discarded because of", "Transaction discarded because of previous errors"),
    ("Target key name already exists", "Target key name already exists"),
    ("Consumer Group name already exists", "Consumer Group name already exists"),
    ("No such key ", "No such key or consumer group"),
    ("Redis is busy running a script", "Redis is busy running a script"),
    ("Redis is loading the dataset in memory", "Redis is loading the dataset in memory"),
    ("You can't write against a read only replica", "You can't write against a read only replica"),
    ("command not allowed when used memory > 'maxmemory'", "command not allowed when used memory > 'maxmemory'"),
    ("Redis is configured to save RDB snapshots", "Redis is unable to persist to disk; writes are disabled"),
    ("Keys in request don't hash to the same slot", "Keys in request don't hash to the same slot"),
    ("The cluster is down", "The cluster is down"),
    ("Hash slot not served", "Hash slot not served"),
    ("Not enough good replicas to write", "Not enough good replicas to write"),
    ("client unblocked via CLIENT UNBLOCK", "client unblocked via CLIENT UNBLOCK"),
    ("unsupported protocol version", "unsupported protocol version"),
    ("Link with MASTER is down", "Link with MASTER is down"),
    ("unknown command", "unknown command"),
    ("unknown subcommand", "unknown subcommand"),
    ("Unknown subcommand or wrong number of arguments", "unknown subcommand or wrong number of arguments"),
    ("wrong number of arguments", "wrong number of arguments"),
    ("syntax error", "syntax error"),
    ("no such key", "no such key"),
    ("value is not an integer or out of range", "value is not an integer or out of range"),
    ("value is out of range", "value is out of range"),
    ("value is not a valid float", "value is not a valid float"),
    ("hash value is not an integer", "hash value is not an integer"),
    ("hash value is not a float", "hash value is not a float"),
    ("increment or decrement would overflow", "increment or decrement would overflow"),
    ("increment would produce NaN or Infinity", "increment would produce NaN or Infinity"),
    ("index out of range", "index out of range"),
    ("offset is out of range", "offset is out of range"),
    ("DB index is out of range", "DB index is out of range"),
    ("invalid DB index", "invalid DB index"),
    ("invalid expire time", "invalid expire time"),
    ("timeout is negative", "timeout is negative"),
    ("timeout is not a float or out of range", "timeout is not a float or out of range"),
    ("timeout is not an integer or out of range", "timeout is not an integer or out of range"),
    ("min or max is not a float", "min or max is not a float"),
    ("string exceeds maximum allowed size", "string exceeds maximum allowed size"),
    ("MULTI calls can not be nested", "MULTI calls can not be nested"),
    ("EXEC without MULTI", "EXEC without MULTI"),
    ("DISCARD without MULTI", "DISCARD without MULTI"),
    ("WATCH inside MULTI is not allowed", "WATCH inside MULTI is not allowed"),
    ("max number of clients reached", "max number of clients reached"),
    ("Protocol error", "Protocol error"),
    ("Error running script", "error running script"),
    ("Error compiling script", "error compiling script"),
    ("Invalid stream ID specified", "Invalid stream ID specified as stream command argument"),
    ("The ID specified in XADD is equal or smaller", "The ID specified in XADD is equal or smaller than the top item"),
];

impl ErrorReply {
    /// Of the text after `-`, or of a blob error.
    pub(super) fn parse(text: &[u8]) -> Self {
        let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        let (prefix, rest) = text.split_at(end);
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let message = MESSAGES.iter().find(|(start, _)| rest.starts_with(start.as_bytes()));
        Self { prefix: Self::prefix(prefix), message: message.map_or("", |(_, said)| said) }
    }

    /// Errors of scripts may begin with any word: only what looks like a code is taken for one.
    fn prefix(word: &[u8]) -> Cow<'static, str> {
        if let Some(known) = PREFIXES.iter().find(|known| known.as_bytes() == word) {
            return Cow::Borrowed(known);
        }
        let code = word.first().is_some_and(u8::is_ascii_uppercase)
            && word.len() <= MAX_PREFIX
            && word.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
        match std::str::from_utf8(word) {
            Ok(word) if code => Cow::Owned(word.to_owned()),
            _ => Cow::Borrowed("ERR"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_messages() {
        for (text, prefix, message) in [
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                "WRONGTYPE",
                "Operation against a key holding the wrong kind of value",
            ),
            ("ERR unknown command 'foo', with args beginning with: 'hunter2' ", "ERR", "unknown command"),
            ("MOVED 3999 10.0.0.1:6381", "MOVED", ""),
            ("ERR", "ERR", ""),
            ("", "ERR", ""),
            ("hunter2", "ERR", ""),
            ("MYSCRIPT account 1234", "MYSCRIPT", ""),
            ("ACCOUNT1234 is locked", "ERR", ""),
            ("NOAUTH Authentication required.", "NOAUTH", "Authentication required"),
        ] {
            let error = ErrorReply::parse(text.as_bytes());
            assert_eq!((error.prefix.as_ref(), error.message), (prefix, message), "{text}");
        }
        assert_eq!(ErrorReply::parse(&[0xff, b' ', 0xfe]).prefix, "ERR");
    }
}

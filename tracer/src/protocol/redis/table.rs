//! What is known of a command: where its keys are, which of its words are not values, what it does to the connection.

use super::commands::COMMANDS;

/// Operands of an option that takes all arguments after it.
pub(super) const REST: u8 = u8::MAX;

/// Longest name that is looked up.
const MAX_NAME: usize = 24;

/// A command of the table.
#[derive(Debug)]
pub(super) struct Info {
    /// Upper case.
    pub name: &'static str,
    /// Second words that are part of the name.
    pub subcommands: &'static [&'static str],
    /// Which arguments are keys.
    pub keys: Keys,
    /// Words that are shown.
    pub options: Options,
    /// Its arguments may be credentials: hidden in every mode.
    pub secret: bool,
    /// It waits in the server by design.
    pub blocking: bool,
    /// What it changes for the connection.
    pub effect: Effect,
}

/// Positions of keys, counted from the name as 0.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    /// None, or not known.
    None,
    /// From `first` to `last` (negative: from the end), every `step`.
    Range { first: u8, last: i8, step: u8 },
    /// `extra` (0: none), and as many as the argument at `count` says, after it.
    Counted { extra: u8, count: u8 },
    /// The first half of what follows `STREAMS`.
    Streams,
}

/// Option words with the number of their operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Position of the first option.
    pub from: u8,
    /// The first argument that is none ends them, because values follow.
    pub leading: bool,
    /// Upper case, with operands.
    pub words: &'static [(&'static str, u8)],
}

/// What kind of channel a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// `SUBSCRIBE`
    Channel,
    /// `PSUBSCRIBE`
    Pattern,
    /// `SSUBSCRIBE`
    Shard,
}

/// What a command does to the connection, beyond its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Another database.
    Select,
    /// Later commands are queued.
    Multi,
    /// The queued commands run.
    Exec,
    /// The queued commands are forgotten.
    Discard,
    /// One confirmation per channel, then messages.
    Subscribe(Channels),
    /// One confirmation per channel.
    Unsubscribe(Channels),
    /// Every command of the server follows.
    Monitor,
    /// `CLIENT`: `REPLY` switches replies off and on.
    Client,
    /// As a new connection.
    Reset,
    /// Protocol version.
    Hello,
    /// The connection becomes a replication stream.
    Replicate,
}

/// The start of a table entry.
pub(super) const fn command(name: &'static str) -> Info {
    Info {
        name,
        subcommands: &[],
        keys: Keys::None,
        options: Options { from: 0, leading: false, words: &[] },
        secret: false,
        blocking: false,
        effect: Effect::None,
    }
}

impl Info {
    pub(super) const fn key(self) -> Self {
        self.keys(1, 1, 1)
    }

    pub(super) const fn keys(self, first: u8, last: i8, step: u8) -> Self {
        Self { keys: Keys::Range { first, last, step }, ..self }
    }

    pub(super) const fn counted_keys(self, extra: u8, count: u8) -> Self {
        Self { keys: Keys::Counted { extra, count }, ..self }
    }

    pub(super) const fn keys_after_streams(self) -> Self {
        Self { keys: Keys::Streams, ..self }
    }

    pub(super) const fn options(self, from: u8, words: &'static [(&'static str, u8)]) -> Self {
        Self { options: Options { from, leading: false, words }, ..self }
    }

    pub(super) const fn leading_options(self, from: u8, words: &'static [(&'static str, u8)]) -> Self {
        Self { options: Options { from, leading: true, words }, ..self }
    }

    pub(super) const fn subcommands(self, subcommands: &'static [&'static str]) -> Self {
        Self { subcommands, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) const fn blocking(self) -> Self {
        Self { blocking: true, ..self }
    }

    pub(super) const fn effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// The table's spelling of a second word that is part of the name.
    pub(super) fn subcommand(&self, word: &[u8]) -> Option<&'static str> {
        self.subcommands.iter().copied().find(|known| known.as_bytes().eq_ignore_ascii_case(word))
    }
}

/// The command of this name, in any case.
pub(super) fn lookup(name: &[u8]) -> Option<&'static Info> {
    let mut upper = [0; MAX_NAME];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let at = COMMANDS.binary_search_by(|info| info.name.as_bytes().cmp(upper)).ok()?;
    COMMANDS.get(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn sorted_and_in_upper_case() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name), "no name twice");
        for info in COMMANDS {
            assert!(info.name.len() <= MAX_NAME);
            assert_eq!(info.name, info.name.to_ascii_uppercase());
            for (word, _) in info.options.words {
                assert_eq!(*word, word.to_ascii_uppercase());
            }
        }
    }

    #[test]
    fn found_in_any_case() {
        assert_eq!(lookup(b"gEt").unwrap().name, "GET");
        assert_eq!(lookup(b"zunionstore").unwrap().name, "ZUNIONSTORE");
        assert!(lookup(b"").is_none());
        assert!(lookup(b"GETT").is_none());
        assert!(lookup(&[b'A'; 1000]).is_none());
    }

    #[test]
    fn every_credential_command_is_secret() {
        for name in ["AUTH", "HELLO", "CONFIG", "ACL", "COMMAND", "MIGRATE", "SENTINEL", "MODULE", "REPLCONF"] {
            assert!(lookup(name.as_bytes()).unwrap().secret, "{name}");
        }
    }
}

//! The protocol of a connection: one tracker, and the commands that wait until it is known to be the right one.

use crate::protocol::command::Command;
use crate::protocol::conversation::{Conversation, Protocol};
use crate::protocol::redis;
use crate::protocol::redis::{QueryText, Role, looks_like_redis, looks_like_replies};
use crate::protocol::sql::Shown;
use crate::protocol::stream::{Chunk, Direction, Verdict};
use crate::trace::counts::Counts;
use crate::trace::database::connection::Asker;

/// What a connection speaks, as far as its first bytes say.
#[derive(Debug)]
pub enum Speaks {
    /// RESP.
    Redis {
        /// What follows it.
        tracker: Box<redis::Tracker<Asker>>,
        /// Commands that wait for the verdict.
        held: Vec<redis::Command<Asker>>,
        /// The beginning of a first command that came in pieces: a vector of buffers, or several calls.
        begun: Vec<u8>,
        /// The line of the replies that has come in part, while it is not known whether they are some.
        answered: Vec<u8>,
        /// Something was sent. Replies alone are no proof.
        asked: bool,
    },
    /// A protocol of the table.
    Database {
        /// Its row there.
        protocol: &'static Protocol<Asker>,
        /// Its place there.
        place: usize,
        /// What follows it.
        conversation: Box<dyn Conversation<Asker>>,
        /// Commands that wait for the verdict.
        held: Vec<Command<Asker>>,
    },
}

/// Finished commands.
#[derive(Debug)]
pub enum Commands {
    /// Of Redis.
    Redis(Vec<redis::Command<Asker>>),
    /// Of a database.
    Database(Vec<Command<Asker>>),
}

impl Commands {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Redis(commands) => commands.is_empty(),
            Self::Database(commands) => commands.is_empty(),
        }
    }
}

impl Speaks {
    /// `protocol` is one of the records' `PROTOCOL_*`.
    pub fn new(protocol: u16, query_text: QueryText, opened_before: bool) -> Self {
        if let Some((place, protocol)) = Protocol::of(protocol) {
            let shown = match query_text {
                QueryText::Off => Shown::Off,
                QueryText::Sanitized | QueryText::WithKeys => Shown::Sanitized,
                QueryText::Full => Shown::Full,
            };
            let conversation = (protocol.follow)(shown, opened_before);
            return Self::Database { protocol, place, conversation, held: Vec::new() };
        }
        let tracker = redis::Tracker::with(Role::Client, query_text, opened_before);
        Self::Redis {
            tracker: Box::new(tracker),
            held: Vec::new(),
            begun: Vec::new(),
            answered: Vec::new(),
            asked: false,
        }
    }

    /// No commands.
    pub fn none(&self) -> Commands {
        match self {
            Self::Redis { .. } => Commands::Redis(Vec::new()),
            Self::Database { .. } => Commands::Database(Vec::new()),
        }
    }

    /// Takes what a call passed. Says whether it is the protocol, and gives the commands if so.
    pub fn feed(&mut self, chunk: Chunk<'_>, asker: Asker, before: Verdict) -> (Verdict, Commands) {
        match self {
            Self::Redis { tracker, held, begun, answered, asked } => {
                *asked |= chunk.direction == Direction::Sent;
                // The first bytes of a connection tell.
                let verdict = match chunk.direction {
                    _ if before != Verdict::Maybe || chunk.data.is_empty() => before,
                    Direction::Sent => begins_like_redis(begun, chunk.data),
                    Direction::Received => match answers_like_redis(answered, chunk.data) {
                        Verdict::Yes if !*asked => Verdict::Maybe,
                        verdict => verdict,
                    },
                };
                if verdict != Verdict::No {
                    tracker.feed(chunk, asker, held);
                }
                (verdict, Commands::Redis(given(verdict, held)))
            }
            Self::Database { conversation, held, .. } => {
                conversation.feed(chunk, asker, held);
                // It may end later too: with TLS, compression or replication.
                let verdict = conversation.verdict();
                (verdict, Commands::Database(given(verdict, held)))
            }
        }
    }

    /// The connection ended: commands without a reply have failed.
    pub fn close(&mut self, now_ns: u64) -> Commands {
        match self {
            Self::Redis { tracker, held, .. } => {
                let mut commands = std::mem::take(held);
                tracker.close(now_ns, &mut commands);
                Commands::Redis(commands)
            }
            Self::Database { conversation, held, .. } => {
                let mut commands = std::mem::take(held);
                conversation.close(now_ns, &mut commands);
                // Nothing that was sent has been answered in a way that the protocol would.
                if conversation.verdict() != Verdict::Yes {
                    commands.clear();
                }
                Commands::Database(commands)
            }
        }
    }

    /// Gives out commands that are held back because of an earlier loss.
    pub fn flush(&mut self) -> Commands {
        let mut commands = self.none();
        if let (Self::Redis { tracker, .. }, Commands::Redis(commands)) = (self, &mut commands) {
            tracker.flush(commands);
        }
        commands
    }

    /// Whether [`Speaks::flush`] would do nothing.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Redis { tracker, .. } => tracker.is_settled(),
            Self::Database { .. } => true,
        }
    }

    /// About how many bytes it takes beside itself.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Redis { tracker, held, .. } => tracker.bytes() + held.capacity() * size_of::<redis::Command<Asker>>(),
            Self::Database { conversation, held, .. } => {
                conversation.bytes() + held.capacity() * size_of::<Command<Asker>>()
            }
        }
    }

    /// Gives these back. Commands that were answered are given out if it is the protocol; those that wait are counted.
    pub fn give_up(&mut self, verdict: Verdict) -> Commands {
        match self {
            Self::Redis { tracker, held, .. } => {
                tracker.give_up(held);
                let commands = given(verdict, held);
                *held = Vec::new();
                Commands::Redis(commands)
            }
            Self::Database { conversation, held, .. } => {
                conversation.give_up();
                let commands = given(verdict, held);
                *held = Vec::new();
                Commands::Database(commands)
            }
        }
    }

    /// Commands that wait for a reply.
    pub fn open_commands(&self) -> usize {
        match self {
            Self::Redis { tracker, .. } => tracker.open_commands(),
            Self::Database { conversation, .. } => conversation.open_commands(),
        }
    }

    /// It is the protocol, but cannot be followed any further.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Database { conversation, .. } if conversation.has_ended())
    }

    /// What follows is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Database { conversation, .. } if conversation.is_encrypted())
    }

    /// Stream offset below which bytes are not needed.
    pub fn skip(&self, direction: Direction) -> u64 {
        match self {
            Self::Redis { tracker, .. } => tracker.skip(direction),
            Self::Database { conversation, .. } => conversation.skip(direction),
        }
    }

    /// Adds what could not be understood.
    pub fn count(&mut self, counts: &mut Counts) {
        match self {
            Self::Redis { tracker, .. } => counts.redis.add(&tracker.diagnostics()),
            Self::Database { conversation, place, .. } => {
                counts.databases[*place].diagnostics.add(&conversation.diagnostics());
            }
        }
    }
}

/// Names of commands and codes of errors are shorter than this.
const ENOUGH: usize = 256;

/// Judges by what was sent first, as far as it has come. An array is a command of several lines; an inline one is judged by itself.
fn begins_like_redis(begun: &mut Vec<u8>, data: &[u8]) -> Verdict {
    if begun.is_empty() && !data.starts_with(b"*") {
        return looks_like_redis(data);
    }
    begun.extend_from_slice(&data[..data.len().min(ENOUGH - begun.len())]);
    let verdict = looks_like_redis(begun);
    if verdict == Verdict::Maybe && begun.len() == ENOUGH {
        return Verdict::No;
    }
    verdict
}

/// Judges by the line of the replies that these bytes begin or continue: a client may read it in small pieces.
fn answers_like_redis(answered: &mut Vec<u8>, data: &[u8]) -> Verdict {
    if answered.ends_with(b"\r\n") {
        answered.clear();
    }
    answered.extend_from_slice(&data[..data.len().min(ENOUGH - answered.len())]);
    let verdict = looks_like_replies(answered);
    // Of a longer line the beginning is enough, so that the end is to be seen.
    if answered.len() == ENOUGH && data.ends_with(b"\n") {
        answered.splice(ENOUGH - 2.., *b"\r\n");
    }
    verdict
}

/// Commands are given out once the verdict is known, and forgotten if it is against them.
fn given<C>(verdict: Verdict, held: &mut Vec<C>) -> Vec<C> {
    match verdict {
        Verdict::Maybe => Vec::new(),
        Verdict::Yes => std::mem::take(held),
        Verdict::No => {
            held.clear();
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, answers_like_redis};

    #[test]
    fn replies_may_be_read_in_pieces_of_any_size() {
        let long = format!("-ERR {}\r\n", "word ".repeat(200));
        for first in ["-ERR Client sent AUTH, but no password is set\r\n", "+OK maybe\r\n", &long] {
            let replies = [first.as_bytes(), b"+PONG\r\n"].concat();
            for size in 1..replies.len() {
                let mut answered = Vec::new();
                let verdicts: Vec<Verdict> =
                    replies.chunks(size).map(|piece| answers_like_redis(&mut answered, piece)).collect();
                assert!(!verdicts.contains(&Verdict::No), "{size}: {verdicts:?}");
                if first.len().is_multiple_of(size) {
                    assert_eq!(verdicts.last(), Some(&Verdict::Yes), "{size}");
                }
            }
        }
        assert_eq!(answers_like_redis(&mut Vec::new(), b"HTTP/1.1 200 OK\r\n"), Verdict::No);
    }
}

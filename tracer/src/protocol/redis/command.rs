//! What a finished command looks like.

use smol_str::SmolStr;
use std::borrow::Cow;

use super::error::ErrorReply;
use crate::protocol::stream::Quality;

/// A command and its reply: one CLIENT span.
///
/// A pipeline gives one `Command` each, named after the command; [`Command::pipeline`] says that they shared a send call.
/// Commands between MULTI and EXEC are commands of their own too, answered by `+QUEUED`; EXEC carries the whole
/// transaction in [`Command::multi`]. Whoever wants one span for a batch takes its name from [`Batch::name`].
#[derive(Clone, Debug, PartialEq)]
pub struct Command<T> {
    /// Given with the chunk in which the command began.
    pub tag: T,
    /// As sent, with the subcommand: `GET`, `CLIENT SETINFO`; `_OTHER` when it does not look like a name.
    pub name: Cow<'static, str>,
    /// The text that may be shown, as [`QueryText`](super::QueryText) has it.
    pub query_text: Option<SmolStr>,
    /// Arguments, the name not counted.
    pub args: u32,
    /// Bytes of the command.
    pub request_bytes: u64,
    /// Offset of the byte after the command in the stream of requests.
    pub request_end: u64,
    /// Nothing else was under way on the connection when it was sent.
    pub alone: bool,
    /// Fingerprint of the command's first bytes, as [`fingerprints`](super::fingerprints) makes it, if they were all seen.
    pub print: Option<u64>,
    /// Bytes of the reply.
    pub response_bytes: u64,
    /// Start of the send call in which the first byte went.
    pub start_ns: u64,
    /// End of the send call in which the last byte went.
    pub sent_ns: u64,
    /// End of the receive call that brought the first byte of the reply (of a server: start of the send call).
    pub first_reply_ns: u64,
    /// End of the receive call that completed the reply.
    pub end_ns: u64,
    /// The error reply, or why there is none.
    pub error: Option<Failure>,
    /// Error replies inside the reply (of EXEC, or of a script).
    pub inner_errors: u32,
    /// The first of them.
    pub inner_error: Option<ErrorReply>,
    /// Database index; `None` when it was chosen before the agent came.
    pub database: Option<u32>,
    /// The commands of the same send call, when there are two or more.
    pub pipeline: Option<Batch>,
    /// The transaction, on EXEC.
    pub multi: Option<Batch>,
    /// Part of a transaction: MULTI, what it queued, EXEC, DISCARD.
    pub transaction: bool,
    /// EXEC did nothing because a watched key had changed.
    pub aborted: bool,
    /// Waits in the server by design (BLPOP, XREAD BLOCK): its time blames nobody.
    pub blocking: bool,
    /// The client had switched replies off: the command ends when it is sent.
    pub no_reply: bool,
    /// How sure the pairing with the reply is.
    pub quality: Quality,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server said so.
    Reply(ErrorReply),
    /// The connection ended before the reply.
    ConnectionClosed,
}

impl Failure {
    /// For `error.type` and, of replies, `db.response.status_code`.
    pub fn kind(&self) -> Cow<'static, str> {
        match self {
            Self::Reply(error) => error.prefix.clone(),
            Self::ConnectionClosed => Cow::Borrowed("connection_closed"),
        }
    }

    /// For the status; never has values in it.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Reply(error) => error.message,
            Self::ConnectionClosed => "connection closed",
        }
    }
}

/// What made several commands one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// One send call.
    Pipeline,
    /// MULTI and EXEC.
    Multi,
}

/// A group of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What made it one.
    pub kind: BatchKind,
    /// Number of the batch on its connection.
    pub id: u64,
    /// Place of this command in it, from 0; of EXEC the number of commands.
    pub index: u32,
    /// Commands in it, as far as they had been seen when this one ended.
    pub size: u32,
    /// Their name when all have the same.
    pub operation: Option<Cow<'static, str>>,
}

impl Batch {
    /// Name by the semantic conventions: `PIPELINE GET`, `MULTI`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            BatchKind::Pipeline => "PIPELINE",
            BatchKind::Multi => "MULTI",
        };
        self.operation.as_ref().map_or_else(|| kind.to_owned(), |operation| format!("{kind} {operation}"))
    }
}

/// Name of the span: the operation as sent. Redis commands have no target of low cardinality to add, and the conventions
/// forbid the namespace.
pub fn span_name<T>(command: &Command<T>) -> Cow<'static, str> {
    command.name.clone()
}

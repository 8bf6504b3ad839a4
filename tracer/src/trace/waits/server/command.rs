//! A command from the moment of its reply to that of its span, and what is found out meanwhile.

use std::borrow::Cow;
use std::sync::Arc;

use super::blame::Blame;
use super::kind::Kind;
use super::split::{Interval, Split};
use crate::model::{ProcessId, Span, SpanContext};

/// A command of a client, on its way to becoming a span.
#[derive(Debug)]
pub struct Held {
    /// The client's process.
    pub process: ProcessId,
    /// Its `service.name`.
    pub service: Arc<str>,
    /// Number of the connection at the client.
    pub connection: u64,
    /// Where the server is, for people.
    pub server: Arc<str>,
    /// Name of the command.
    pub operation: Cow<'static, str>,
    /// Name of the batch that it is part of, else its own.
    pub label: Cow<'static, str>,
    /// It is part of a transaction, which `label` names.
    pub transaction: bool,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Offset of the byte after it.
    pub request_end: u64,
    /// Nothing else was under way on the connection.
    pub alone: bool,
    /// It waits in the server by design.
    pub blocking: bool,
    /// It was answered; otherwise there is nothing to take apart.
    pub answered: bool,
    /// Start of the send.
    pub start_ns: u64,
    /// End of the send.
    pub sent_ns: u64,
    /// End of the reply.
    pub end_ns: u64,
    /// Its place in its trace.
    pub context: SpanContext,
    /// The span, if its trace is sampled.
    pub span: Option<Span>,
    /// Number of the command; the engine gives it.
    pub number: u64,
}

/// What is known of a command's wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The parts of its time.
    pub split: Split,
    /// When it waited.
    pub waits: [Interval; 2],
    /// Made from the clients' side alone.
    pub estimate: bool,
    /// The server's execution, when it is known.
    pub work: Option<Work>,
    /// Who had the thread meanwhile.
    pub blame: Blame<Who>,
}

/// What the server did for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The server's process number.
    pub pid: u32,
    /// The turn.
    pub turn: u64,
    /// Start of the execution.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// The command is the first of those that were executed together.
    pub first: bool,
}

/// A group of blockers: the same work of the same service.
#[derive(Clone, Debug, PartialEq)]
pub struct Who {
    /// Service, or address of a client that is not traced.
    pub client: Arc<str>,
    /// The command, or what several are together.
    pub label: Cow<'static, str>,
    /// What kind of work.
    pub kind: Kind,
}

/// A command that is held no longer.
#[derive(Debug)]
pub struct Done {
    /// The command.
    pub held: Box<Held>,
    /// What is known of its wait.
    pub explained: Option<Explained>,
    /// The server was attached to, but what it did about this command was not found.
    pub unmatched: bool,
}

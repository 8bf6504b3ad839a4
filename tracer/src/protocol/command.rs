//! What a finished command of a database looks like, whatever its protocol: the fields of OpenTelemetry's conventions.

use std::sync::Arc;

use super::sql::Statement;
use super::stream::Quality;

/// A command and its reply: one CLIENT span.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<T> {
    /// Given with the chunk in which the command began.
    pub tag: T,
    /// The product, as the conventions call it: `mysql`, `mariadb`, `postgresql` (`db.system.name`).
    pub system: &'static str,
    /// Command of the protocol: `QUERY`, `STMT_EXECUTE`.
    pub name: &'static str,
    /// It runs its statement: then the statement alone names it.
    pub runs: bool,
    /// Its SQL: that of the query, or of the prepared statement. `None` when there is none or it was not seen.
    pub statement: Option<Arc<Statement>>,
    /// Database (of MySQL: schema) in use when it was sent, where known (`db.namespace`).
    pub database: Option<Arc<str>>,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the reply.
    pub response_bytes: u64,
    /// When the call began that sent its first byte, nanoseconds of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When the call ended that sent its last byte.
    pub sent_ns: u64,
    /// When the last byte of the reply was there; without a reply the same as `sent_ns`.
    pub end_ns: u64,
    /// Rows of all result sets (`db.response.returned_rows`); `None` when there was none.
    pub rows: Option<u64>,
    /// Rows changed; `None` when the server did not say.
    pub affected_rows: Option<u64>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How sure the pairing is.
    pub quality: Quality,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server says so.
    Reply(ErrorReply),
    /// The server has passed over it, because a command before it in the same pipeline has failed.
    Skipped,
    /// The connection ended before the reply.
    ConnectionClosed,
}

/// An error of the server. Its own message is not kept: it quotes values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// `db.response.status_code`: error number or SQLSTATE.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// `error.type`: the server's code, or what happened instead of a reply.
    pub fn kind(&self) -> &str {
        match self {
            Self::Reply(error) => &error.code,
            Self::Skipped => "skipped",
            Self::ConnectionClosed => "connection_closed",
        }
    }

    /// For people.
    pub fn message(&self) -> &str {
        match self {
            Self::Reply(error) => &error.message,
            Self::Skipped => "skipped, because a command before it has failed",
            Self::ConnectionClosed => "connection closed",
        }
    }
}

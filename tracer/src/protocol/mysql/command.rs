//! What a finished command looks like.

use std::sync::Arc;

use super::sql::Statement;
use crate::protocol::stream::Quality;

/// A command and its reply: one CLIENT span.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<T> {
    /// Given with the chunk in which the command began.
    pub tag: T,
    /// Command of the protocol without `COM_`: `QUERY`, `STMT_EXECUTE`.
    pub name: &'static str,
    /// Its SQL: that of the query, or of the prepared statement. `None` when there is none or it was not seen.
    pub statement: Option<Arc<Statement>>,
    /// Schema in use when it was sent, where known.
    pub database: Option<Arc<str>>,
    /// The server said that it is MariaDB.
    pub mariadb: bool,
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
    /// Rows of all result sets; `None` when there was none.
    pub rows: Option<u64>,
    /// Rows changed; `None` when no OK packet said it.
    pub affected_rows: Option<u64>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How sure the pairing is.
    pub quality: Quality,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server says so.
    Reply(ErrorReply),
    /// The connection ended before the reply.
    ConnectionClosed,
}

/// An error of the server. Its message is not kept: it quotes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// Error number: 1146.
    pub code: u16,
    /// SQLSTATE: `42S02`; zeros when the server does not say.
    pub state: [u8; 5],
}

impl Failure {
    /// `error.type`: the error number, or `connection_closed`.
    pub fn kind(&self) -> String {
        match self {
            Self::Reply(error) => error.code.to_string(),
            Self::ConnectionClosed => "connection_closed".to_owned(),
        }
    }

    /// For people.
    pub fn message(&self) -> String {
        match self {
            Self::Reply(ErrorReply { code, state }) => match std::str::from_utf8(state) {
                Ok(state) if state.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    format!("ERROR {code} ({state})")
                }
                _ => format!("ERROR {code}"),
            },
            Self::ConnectionClosed => "connection closed".to_owned(),
        }
    }
}

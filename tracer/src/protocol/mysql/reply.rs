//! The packets that answer one command, and when they are complete.

use super::dialect::{Dialect, MetadataByte};
use super::packet::{FULL, Fields, Packet};
use super::verb::Answer;
use crate::protocol::command::{ErrorReply, Failure};
use crate::protocol::resp::Malformed;

const OK: u8 = 0x00;
const LOCAL_INFILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
/// Body of an EOF packet; that of an OK packet is longer.
const EOF_LEN: u64 = 5;
/// An error number that is none: MariaDB says how far it is.
const PROGRESS: u64 = 0xffff;
/// Status: another result follows.
const MORE_RESULTS: u64 = 0x0008;
/// Status: the rows have to be fetched.
const CURSOR_EXISTS: u64 = 0x0040;
/// The catalog in every column definition: its length, and always the same name.
const CATALOG: &[u8] = b"\x03def";

/// What the next packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first one of a reply or of a further result.
    First,
    /// One of this many column definitions, and then rows.
    Columns(u64),
    /// What follows the column definitions.
    BehindColumns,
    Rows,
    /// One of this many parameter definitions, and then as many column definitions.
    Definitions(u64, u64),
    /// An EOF packet, or nothing, and then as many column definitions.
    BehindDefinitions(u64),
    Done,
}

/// An error of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// Error number: 1146.
    pub code: u16,
    /// SQLSTATE: `42S02`; zeros when the server does not say.
    pub state: [u8; 5],
}

impl From<Error> for Failure {
    fn from(Error { code, state }: Error) -> Self {
        let message = match std::str::from_utf8(&state) {
            Ok(state) if state.bytes().all(|byte| byte.is_ascii_alphanumeric()) => format!("ERROR {code} ({state})"),
            _ => format!("ERROR {code}"),
        };
        Self::Reply(ErrorReply { code: code.to_string(), message })
    }
}

/// A reply that is being read.
#[derive(Debug)]
pub(super) struct Reply {
    pub answer: Answer,
    stage: Stage,
    /// Status of the session, as the last result has it.
    pub status: Option<u64>,
    /// Number that the next packet must have.
    seq: Option<u8>,
    pub bytes: u64,
    pub rows: Option<u64>,
    pub affected_rows: Option<u64>,
    pub error: Option<Error>,
    /// Number of a prepared statement.
    pub prepared: Option<u32>,
}

impl Reply {
    /// To a request whose last packet had the number `seq`.
    pub(super) fn new(answer: Answer, seq: u8) -> Self {
        Self {
            answer,
            stage: if answer == Answer::Rows { Stage::Rows } else { Stage::First },
            status: None,
            seq: Some(seq.wrapping_add(1)),
            bytes: 0,
            rows: None,
            affected_rows: None,
            error: None,
            prepared: None,
        }
    }

    /// Number that the first packet must have; `None` if it may be any or is not to come.
    pub(super) fn first_seq(&self) -> Option<u8> {
        if self.bytes == 0 { self.seq } else { None }
    }

    /// The client has sent something in between (a file, an answer to a challenge).
    pub(super) fn interrupted(&mut self) {
        self.seq = None;
    }

    /// Takes a packet. True when the reply is complete.
    pub(super) fn packet(&mut self, packet: &Packet<'_>, dialect: &mut Dialect) -> Result<bool, Malformed> {
        let error = packet.head.first() == Some(&ERR);
        // A server that gives up in the middle of a request numbers its error as it likes.
        if !error && self.seq.is_some_and(|seq| seq != packet.seq) {
            return Err(Malformed);
        }
        self.seq = Some(packet.last_seq.wrapping_add(1));
        self.bytes = self.bytes.saturating_add(packet.wire);
        if error {
            return self.error(packet);
        }
        self.stage = self.next(packet, dialect)?;
        Ok(self.stage == Stage::Done)
    }

    /// A row is the last thing that is understood of it.
    pub(super) fn tear(&mut self) -> bool {
        let torn = self.stage == Stage::Rows;
        if torn {
            self.rows = None;
        }
        torn
    }

    /// Bytes are all there is: whether the reply may be complete although an EOF packet may follow. MySQL sends none behind the
    /// definitions of a statement if both sides agreed so, which is not known of a connection that was open before.
    pub(super) fn may_be_complete(&self) -> bool {
        matches!(self.stage, Stage::BehindDefinitions(0))
    }

    fn error(&mut self, packet: &Packet<'_>) -> Result<bool, Malformed> {
        let mut fields = Fields(&packet.head[1..]);
        let code = fields.int(2).ok_or(Malformed)?;
        if code == PROGRESS {
            return Ok(false);
        }
        let state = match fields.0 {
            [b'#', a, b, c, d, e, ..] => [*a, *b, *c, *d, *e],
            _ => *b"00000",
        };
        self.error = Some(Error { code: code as u16, state });
        self.stage = Stage::Done;
        Ok(true)
    }

    fn next(&mut self, packet: &Packet<'_>, dialect: &mut Dialect) -> Result<Stage, Malformed> {
        let first = *packet.head.first().ok_or(Malformed)?;
        match self.stage {
            Stage::First => self.first(first, packet, dialect),
            Stage::Columns(left) => {
                column(packet)?;
                Ok(match left {
                    0 | 1 if dialect.deprecate_eof == Some(true) => Stage::Rows,
                    0 | 1 => Stage::BehindColumns,
                    _ => Stage::Columns(left - 1),
                })
            }
            Stage::BehindColumns => {
                let is_eof = is_eof(first, packet);
                if *dialect.deprecate_eof.get_or_insert(!is_eof) {
                    return self.row(first, packet, dialect);
                }
                let status = eof_status(packet).filter(|_| is_eof).ok_or(Malformed)?;
                Ok(if status & CURSOR_EXISTS != 0 { self.end_of_result(status) } else { Stage::Rows })
            }
            Stage::Rows => self.row(first, packet, dialect),
            Stage::Definitions(left, columns) => {
                column(packet)?;
                Ok(if left > 1 { Stage::Definitions(left - 1, columns) } else { definitions_end(columns, dialect) })
            }
            Stage::BehindDefinitions(columns) => {
                let is_eof = is_eof(first, packet);
                match *dialect.deprecate_eof.get_or_insert(!is_eof) {
                    false if is_eof && columns > 0 => Ok(Stage::Definitions(columns, 0)),
                    false if is_eof => Ok(Stage::Done),
                    true if columns > 0 => {
                        self.stage = Stage::Definitions(columns, 0);
                        self.next(packet, dialect)
                    }
                    _ => Err(Malformed),
                }
            }
            Stage::Done => Err(Malformed),
        }
    }

    fn first(&mut self, first: u8, packet: &Packet<'_>, dialect: &mut Dialect) -> Result<Stage, Malformed> {
        match (self.answer, first) {
            (Answer::Text, _) => Ok(Stage::Done),
            (Answer::Ok | Answer::Authentication, OK) => {
                self.status = ok(packet).map(|(_, status)| status);
                Ok(Stage::Done)
            }
            (Answer::Authentication, _) => {
                self.interrupted();
                Ok(Stage::First)
            }
            (Answer::Ok, EOF) if packet.len < 9 => Ok(Stage::Done),
            (Answer::Columns, EOF) if packet.len < FULL => Ok(Stage::Done),
            (Answer::Columns, _) => column(packet).map(|()| Stage::First),
            (Answer::Statement, OK) => self.statement(packet, dialect),
            (Answer::Results, LOCAL_INFILE) if packet.len > 1 => {
                self.interrupted();
                Ok(Stage::First)
            }
            // A zero may also be the byte before the number of columns.
            (Answer::Results, OK) if packet.len >= 7 => {
                let (affected, status) = ok(packet).ok_or(Malformed)?;
                *self.affected_rows.get_or_insert(0) += affected;
                Ok(self.end_of_result(status))
            }
            (Answer::Results, _) => {
                let (columns, follow) = column_count(packet, dialect).ok_or(Malformed)?;
                self.rows.get_or_insert(0);
                Ok(match (follow, dialect.deprecate_eof) {
                    (true, _) => Stage::Columns(columns),
                    (false, Some(true)) => Stage::Rows,
                    (false, _) => Stage::BehindColumns,
                })
            }
            _ => Err(Malformed),
        }
    }

    fn row(&mut self, first: u8, packet: &Packet<'_>, dialect: &Dialect) -> Result<Stage, Malformed> {
        // A row that begins with this byte has a value of 16 MiB or more, and is not alone in its packet.
        if first == EOF && packet.len < FULL {
            let status = if packet.len == EOF_LEN { eof_status(packet) } else { ok(packet).map(|(_, status)| status) };
            return status.map(|status| self.end_of_result(status)).ok_or(Malformed);
        }
        debug_assert!(self.stage != Stage::BehindColumns || dialect.deprecate_eof == Some(true));
        *self.rows.get_or_insert(0) += 1;
        Ok(Stage::Rows)
    }

    fn end_of_result(&mut self, status: u64) -> Stage {
        self.status = Some(status);
        // A fetch has one result, whatever the statement has.
        if status & MORE_RESULTS != 0 && self.answer != Answer::Rows { Stage::First } else { Stage::Done }
    }

    fn statement(&mut self, packet: &Packet<'_>, dialect: &Dialect) -> Result<Stage, Malformed> {
        let mut fields = Fields(&packet.head[1..]);
        let mut int = |len| fields.int(len).ok_or(Malformed);
        let (id, columns, parameters) = (int(4)?, int(2)?, int(2)?);
        // A zero, and the number of warnings.
        int(3)?;
        self.prepared = Some(id as u32);
        if dialect.metadata_byte == Some(MetadataByte::Before) && fields.u8() == Some(0) {
            return Ok(Stage::Done);
        }
        Ok(match (parameters, columns) {
            (0, 0) => Stage::Done,
            (0, columns) => Stage::Definitions(columns, 0),
            (parameters, columns) => Stage::Definitions(parameters, columns),
        })
    }
}

/// What comes after the last definition of a kind.
fn definitions_end(columns: u64, dialect: &Dialect) -> Stage {
    match (dialect.deprecate_eof, columns) {
        (Some(true), 0) => Stage::Done,
        (Some(true), columns) => Stage::Definitions(columns, 0),
        _ => Stage::BehindDefinitions(columns),
    }
}

fn column(packet: &Packet<'_>) -> Result<(), Malformed> {
    if packet.head.starts_with(CATALOG) { Ok(()) } else { Err(Malformed) }
}

fn is_eof(first: u8, packet: &Packet<'_>) -> bool {
    first == EOF && packet.len == EOF_LEN
}

/// Status in an EOF packet.
pub(super) fn eof_status(packet: &Packet<'_>) -> Option<u64> {
    let mut fields = Fields(packet.head.get(1..)?);
    fields.int(2)?;
    fields.int(2)
}

/// Affected rows and status of an OK packet.
fn ok(packet: &Packet<'_>) -> Option<(u64, u64)> {
    let mut fields = Fields(packet.head.get(1..)?);
    let affected = fields.lenenc()?;
    fields.lenenc()?;
    Some((affected, fields.int(2)?))
}

/// Number of columns, and whether their definitions follow.
fn column_count(packet: &Packet<'_>, dialect: &mut Dialect) -> Option<(u64, bool)> {
    let mut fields = Fields(packet.head);
    // A count has one, three or four bytes. Of the two kinds with one more, only MariaDB's is believed without an agreement: the
    // other is asked for by hardly any client.
    let byte = *dialect.metadata_byte.get_or_insert(match packet.len {
        1 | 3 => MetadataByte::None,
        _ => MetadataByte::Behind,
    });
    let (count, follow) = match byte {
        MetadataByte::None => (fields.lenenc()?, 1),
        MetadataByte::Before => {
            let follow = fields.u8()?;
            (fields.lenenc()?, follow)
        }
        MetadataByte::Behind => {
            let count = fields.lenenc()?;
            (count, fields.u8()?)
        }
    };
    (fields.0.is_empty() && (1..=4096).contains(&count) && follow <= 1).then_some((count, follow == 1))
}

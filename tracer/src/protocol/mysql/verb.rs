//! The commands of the protocol.

/// What answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    None,
    /// One packet: OK, EOF or an error.
    Ok,
    /// One packet of text.
    Text,
    /// OK, an error, or result sets.
    Results,
    /// Column definitions.
    Columns,
    /// A prepared statement.
    Statement,
    /// Rows without column definitions.
    Rows,
    /// An authentication.
    Authentication,
    /// A stream without an end: the connection is no longer one of commands.
    Stream,
}

/// What else it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Carries SQL.
    Query,
    Prepare,
    /// Names a prepared statement in its first four bytes.
    Execute,
    Close,
    InitDb,
    ChangeUser,
    Reset,
}

/// One kind of command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verb {
    pub code: u8,
    /// Without `COM_`.
    pub name: &'static str,
    pub answer: Answer,
    pub effect: Effect,
    /// Shortest and longest body, the code included.
    len: (u64, u64),
}

const ANY: u64 = 1 << 32;

const fn verb(code: u8, name: &'static str, answer: Answer, effect: Effect, len: (u64, u64)) -> Verb {
    Verb { code, name, answer, effect, len }
}

const VERBS: &[Verb] = &[
    verb(0x01, "QUIT", Answer::None, Effect::None, (1, 1)),
    verb(0x02, "INIT_DB", Answer::Ok, Effect::InitDb, (1, 512)),
    verb(0x03, "QUERY", Answer::Results, Effect::Query, (1, ANY)),
    verb(0x04, "FIELD_LIST", Answer::Columns, Effect::None, (2, 1024)),
    verb(0x05, "CREATE_DB", Answer::Ok, Effect::None, (2, 512)),
    verb(0x06, "DROP_DB", Answer::Ok, Effect::None, (2, 512)),
    verb(0x07, "REFRESH", Answer::Ok, Effect::None, (2, 2)),
    verb(0x08, "SHUTDOWN", Answer::Ok, Effect::None, (1, 2)),
    verb(0x09, "STATISTICS", Answer::Text, Effect::None, (1, 1)),
    verb(0x0a, "PROCESS_INFO", Answer::Results, Effect::None, (1, 1)),
    verb(0x0c, "PROCESS_KILL", Answer::Ok, Effect::None, (5, 5)),
    verb(0x0d, "DEBUG", Answer::Ok, Effect::None, (1, 1)),
    verb(0x0e, "PING", Answer::Ok, Effect::None, (1, 1)),
    verb(0x11, "CHANGE_USER", Answer::Authentication, Effect::ChangeUser, (5, 1 << 16)),
    verb(0x12, "BINLOG_DUMP", Answer::Stream, Effect::None, (11, 1024)),
    verb(0x15, "REGISTER_SLAVE", Answer::Ok, Effect::None, (18, 1024)),
    verb(0x16, "STMT_PREPARE", Answer::Statement, Effect::Prepare, (2, ANY)),
    verb(0x17, "STMT_EXECUTE", Answer::Results, Effect::Execute, (10, ANY)),
    verb(0x18, "STMT_SEND_LONG_DATA", Answer::None, Effect::Execute, (7, ANY)),
    verb(0x19, "STMT_CLOSE", Answer::None, Effect::Close, (5, 5)),
    verb(0x1a, "STMT_RESET", Answer::Ok, Effect::Execute, (5, 5)),
    verb(0x1b, "SET_OPTION", Answer::Ok, Effect::None, (3, 3)),
    verb(0x1c, "STMT_FETCH", Answer::Rows, Effect::Execute, (9, 9)),
    verb(0x1e, "BINLOG_DUMP_GTID", Answer::Stream, Effect::None, (19, 1 << 20)),
    verb(0x1f, "RESET_CONNECTION", Answer::Ok, Effect::Reset, (1, 1)),
    verb(0xfa, "STMT_BULK_EXECUTE", Answer::Results, Effect::Execute, (7, ANY)),
];

/// The command that a packet of `len` bytes, of which `head` is the start, holds; `None` if it cannot be one.
pub(super) fn lookup(head: &[u8], len: u64) -> Option<&'static Verb> {
    let code = head.first()?;
    let verb = VERBS.iter().find(|verb| verb.code == *code)?;
    if !(verb.len.0..=verb.len.1).contains(&len) {
        return None;
    }
    let fits = match verb.effect {
        // Text, or the number of parameters and that of parameter sets, which is one.
        Effect::Query | Effect::Prepare => match head.get(1..) {
            Some([first, rest @ ..]) => {
                *first >= b' '
                    || first.is_ascii_whitespace()
                    || (verb.effect == Effect::Query && rest.first() == Some(&1))
            }
            _ => true,
        },
        // Flags, then a number of iterations that is always one.
        Effect::Execute if verb.code == 0x17 => head.get(6..10).is_none_or(|count| count == [1, 0, 0, 0]),
        _ => true,
    };
    fits.then_some(verb)
}

//! The messages of a server.

use super::message::{Fields, are_messages};
use crate::protocol::command::{ErrorReply, Failure};

/// Whether a server's message of this kind may have a body of this length.
pub(super) fn fits(kind: u8, len: u64) -> bool {
    match kind {
        // Parse, Bind and Close are done; no data, an empty query, a portal that is suspended, the end of a copy.
        b'1' | b'2' | b'3' | b'n' | b'I' | b's' | b'c' => len == 0,
        // Ready for a query.
        b'Z' => len == 1,
        // A command is done: its tag.
        b'C' => (2..=256).contains(&len),
        // A row, its description, that of parameters, the result of a function call, the beginnings of copies.
        b'D' | b'T' | b't' => len >= 2,
        b'V' => len >= 4,
        b'G' | b'H' | b'W' => len >= 3,
        // An error, a notice, a setting, a notification.
        b'E' | b'N' => len >= 1,
        b'S' => (2..=10_000).contains(&len),
        b'A' => (6..=10_000).contains(&len),
        // Authentication, the key for cancelling, other versions than the one that was asked for.
        b'R' => (4..=100_000).contains(&len),
        b'K' => (8..=1_000).contains(&len),
        b'v' => (8..=10_000).contains(&len),
        b'd' => true,
        _ => false,
    }
}

/// Whether bytes begin with messages of a server.
pub(super) fn is_reply(received: &[u8]) -> bool {
    are_messages(received, None, fits, |_| true)
}

/// What a command was, and its rows, as its tag says: `SELECT 5`, `INSERT 0 3`, `BEGIN`.
pub(super) fn tag(body: &[u8]) -> (&[u8], Option<u64>) {
    let tag = body.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut words = tag.split(|byte| *byte == b' ');
    let operation = words.next().unwrap_or_default();
    let rows = words.next_back().and_then(|count| std::str::from_utf8(count).ok()).and_then(|count| count.parse().ok());
    (operation, rows)
}

/// An error, of which only severity and SQLSTATE are taken.
pub(super) fn error(body: &[u8]) -> Failure {
    let mut fields = Fields(body);
    let (mut severity, mut code) = ("ERROR", None);
    while let Some(field) = fields.u8().filter(|field| *field != 0) {
        let Some(value) = fields.text() else { break };
        match field {
            // The one that is not translated.
            b'V' if value == b"FATAL" => severity = "FATAL",
            b'V' if value == b"PANIC" => severity = "PANIC",
            b'C' if value.len() == 5 && value.iter().all(u8::is_ascii_alphanumeric) => {
                code = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
    }
    // Every error has a code; where it is not understood, that of an unknown one.
    let code = code.unwrap_or_else(|| "XX000".to_owned());
    Failure::Reply(ErrorReply { message: format!("{severity} {code}"), code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_how_many_rows() {
        assert_eq!(tag(b"SELECT 5\0"), (&b"SELECT"[..], Some(5)));
        assert_eq!(tag(b"INSERT 0 3\0"), (&b"INSERT"[..], Some(3)));
        assert_eq!(tag(b"CREATE TABLE\0"), (&b"CREATE"[..], None));
        assert_eq!(tag(b""), (&b""[..], None));
    }

    #[test]
    fn of_an_error_the_code_is_known_and_no_text() {
        let failure = error(b"SFEHLER\0VERROR\0C42P01\0Mrelation \"secret\" does not exist\0\0");
        assert_eq!((failure.kind(), failure.message()), ("42P01", "ERROR 42P01"));
        assert_eq!(error(b"SFATAL\0VFATAL\0C57P01\0").message(), "FATAL 57P01");
        assert_eq!(error(b"Csecret").kind(), "XX000");
    }
}

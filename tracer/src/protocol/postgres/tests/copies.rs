//! COPY in both protocols and directions.

use super::*;

const IN: &str = "COPY t FROM STDIN";
const COPY_IN: &[u8] = b"\0\0\x01\0\0";

#[test]
fn a_copy_in_takes_its_data_with_it() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query(IN));
    dialogue.received(&message(b'G', COPY_IN));
    dialogue.sent(&[message(b'd', b"SECRET\n").repeat(3), message(b'c', b"")].concat());
    dialogue.received(&[done("COPY 3"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((command.name, command.affected_rows, command.rows), ("QUERY", Some(3), None));
    assert_eq!(command.request_bytes, query(IN).len() as u64 + 3 * 12 + 5);
    assert_eq!(command.statement.and_then(|statement| statement.summary.clone()).as_deref(), Some("COPY t"));
    dialogue.clean();
}

#[test]
fn a_sync_that_was_sent_ahead_of_the_data_is_not_answered() {
    let mut dialogue = Dialogue::connected();
    for fails in [false, true] {
        dialogue.sent(&[parse("", IN), bind("", ""), execute(""), sync()].concat());
        dialogue.received(&[message(b'1', b""), message(b'2', b""), message(b'G', COPY_IN)].concat());
        dialogue.sent(&message(b'd', b"SECRET\n"));
        let end = if fails { message(b'f', b"SECRET\0") } else { message(b'c', b"") };
        dialogue.sent(&[end, sync()].concat());
        let answer = if fails { error("57014") } else { done("COPY 1") };
        dialogue.received(&[answer, ready()].concat());
        let expected = if fails { "57014" } else { "" };
        assert_eq!(told(&dialogue.take()), [("EXECUTE", IN, expected)]);
    }
    dialogue.sent(&query("SELECT 1"));
    dialogue.received(&rows(1));
    assert_eq!(dialogue.one().rows, Some(1));
    dialogue.clean();
}

#[test]
fn a_server_that_refuses_data_ends_the_copy() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query(IN));
    dialogue.received(&message(b'G', COPY_IN));
    dialogue.sent(&message(b'd', b"SECRET\n"));
    dialogue.received(&[error("22P02"), ready()].concat());
    assert_eq!(told(&dialogue.take()), [("QUERY", IN, "22P02")]);
    // It had not heard of that.
    dialogue.sent(&[message(b'd', b"SECRET\n"), message(b'c', b"")].concat());
    dialogue.sent(&query("SELECT 1"));
    dialogue.received(&rows(1));
    assert_eq!(dialogue.one().rows, Some(1));
    dialogue.clean();
}

#[test]
fn a_copy_out_has_rows() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query("COPY t TO STDOUT"));
    let data = message(b'd', b"SECRET\n").repeat(4);
    dialogue.received(&[message(b'H', COPY_IN), data, message(b'c', b""), done("COPY 4"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((command.rows, command.affected_rows), (Some(4), None));
    dialogue.clean();
}

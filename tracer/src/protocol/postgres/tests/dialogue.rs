//! What a well-behaved client and server say, one command after the other.

use super::*;
use crate::protocol::stream::{Quality, Verdict};

#[test]
fn a_simple_query_is_a_command() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query("SELECT id FROM orders WHERE note = 'SECRET'"));
    dialogue.received(&rows(2));
    let command = dialogue.one();
    assert_eq!((command.name, command.system, command.rows), ("QUERY", "postgresql", Some(2)));
    assert_eq!(text(&command), "SELECT id FROM orders WHERE note = ?");
    assert_eq!((command.database.as_deref(), command.quality), (Some("shop"), Quality::Certain));
    assert_eq!(command.end_ns - command.start_ns, 3_000);
    assert_eq!(command.response_bytes, rows(2).len() as u64);
    dialogue.sent(&query("UPDATE orders SET a = 1; SELECT 1; SELECT 2"));
    dialogue.received(&[done("UPDATE 3"), columns(), row(), done("SELECT 1"), rows(1)].concat());
    let command = dialogue.one();
    assert_eq!((command.rows, command.affected_rows), (Some(2), Some(3)));
    assert_eq!(command.statement.map(|statement| statement.count), Some(3));
    dialogue.sent(&query("SELECT * FROM secret"));
    dialogue.received(&[error("42P01"), ready()].concat());
    let command = dialogue.one();
    assert_eq!(command.error.as_ref().map(|error| (error.kind(), error.message())), Some(("42P01", "ERROR 42P01")));
    dialogue.sent(&query(""));
    dialogue.received(&[message(b'I', b""), ready()].concat());
    assert_eq!(dialogue.one().rows, None);
    dialogue.sent(&message(b'X', b""));
    assert!(dialogue.take().is_empty());
    dialogue.clean();
}

#[test]
fn what_leads_to_an_execute_is_one_command() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[unnamed("SELECT id FROM t WHERE a = $1 AND b = 'SECRET'"), sync()].concat());
    dialogue.received(&executed("SELECT 2", 2));
    assert!(dialogue.commands.is_empty(), "it is not committed yet");
    dialogue.received(&ready());
    let command = dialogue.one();
    assert_eq!((command.name, command.runs, command.rows), ("EXECUTE", true, Some(2)));
    assert_eq!(text(&command), "SELECT id FROM t WHERE a = $1 AND b = ?");
    assert_eq!(command.end_ns - command.start_ns, 5_000);
    assert!(!format!("{command:?}").contains("SECRET"));
    dialogue.clean();
}

#[test]
fn a_statement_is_prepared_run_described_and_closed() {
    let mut dialogue = Dialogue::connected();
    let sql = "UPDATE t SET a = $1";
    dialogue.sent(&[parse("s1", sql), describe("S", "s1"), sync()].concat());
    dialogue.received(&[message(b'1', b""), message(b't', b"\0\0"), message(b'n', b""), ready()].concat());
    // The portal is closed behind its Execute.
    dialogue.sent(&[bind("", "s1"), execute(""), close("P", ""), sync()].concat());
    dialogue.received(&[message(b'2', b""), done("UPDATE 7"), message(b'3', b""), ready()].concat());
    dialogue.sent(&[close("S", "s1"), sync()].concat());
    dialogue.received(&[message(b'3', b""), ready()].concat());
    let commands = dialogue.take();
    assert_eq!(told(&commands), [("PARSE", sql, ""), ("EXECUTE", sql, ""), ("CLOSE", sql, "")]);
    assert_eq!(commands.iter().map(|command| command.affected_rows).collect::<Vec<_>>(), [None, Some(7), None]);
    dialogue.sent(&[bind("", "s1"), execute(""), sync()].concat());
    dialogue.received(&[error("26000"), ready()].concat());
    assert_eq!(told(&dialogue.take()), [("EXECUTE", "", "26000")]);
    dialogue.sent(&sync());
    dialogue.received(&ready());
    assert_eq!(told(&dialogue.take()), [("SYNC", "", "")]);
    dialogue.clean();
}

#[test]
fn a_portal_gives_its_rows_in_parts() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[parse("", "SELECT a FROM t"), bind("p", ""), execute("p"), message(b'H', b"")].concat());
    dialogue.received(&[message(b'1', b""), message(b'2', b""), row().repeat(10), message(b's', b"")].concat());
    assert_eq!(dialogue.one().rows, Some(10));
    dialogue.sent(&[execute("p"), sync()].concat());
    dialogue.received(&[row().repeat(3), done("SELECT 3"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((text(&command), command.rows), ("SELECT a FROM t", Some(3)));
    dialogue.clean();
}

#[test]
fn a_statement_that_is_refused_leaves_the_one_before() {
    let mut dialogue = Dialogue::connected();
    for sql in ["SELECT a FROM t", "SELECT b FROM u"] {
        dialogue.sent(&[parse("s", sql), sync()].concat());
        let answer = if sql.ends_with('t') { message(b'1', b"") } else { error("42P05") };
        dialogue.received(&[answer, ready()].concat());
    }
    assert_eq!(told(&dialogue.take()), [("PARSE", "SELECT a FROM t", ""), ("PARSE", "SELECT b FROM u", "42P05")]);
    dialogue.sent(&[bind("", "s"), execute(""), sync()].concat());
    dialogue.received(&[message(b'2', b""), done("SELECT 0"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((text(&command), command.rows), ("SELECT a FROM t", Some(0)));
    dialogue.clean();
}

#[test]
fn an_error_of_the_commit_is_one_of_the_command() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[unnamed("INSERT INTO t VALUES ($1)"), sync()].concat());
    dialogue.received(&[executed("INSERT 0 1", 0), error("23503"), ready()].concat());
    assert_eq!(told(&dialogue.take()), [("EXECUTE", "INSERT INTO t VALUES ($1)", "23503")]);
    dialogue.clean();
}

#[test]
fn what_answers_nothing_is_passed_over() {
    let mut dialogue = Dialogue::connected();
    let notification = message(b'A', b"\0\0\0\x01channel\0SECRET\0");
    dialogue.received(&notification);
    dialogue.sent(&query("SELECT 1"));
    let notice = message(b'N', b"SNOTICE\0C00000\0MSECRET\0\0");
    dialogue.received(&[notice, notification.clone(), rows(1), notification].concat());
    assert_eq!(dialogue.one().rows, Some(1));
    dialogue.clean();
}

#[test]
fn encryption_is_counted_where_the_server_agrees() {
    let mut dialogue = Dialogue::new(false);
    dialogue.sent(&startup(TLS));
    assert_eq!(dialogue.tracker.verdict(), Verdict::Maybe);
    dialogue.received(b"S");
    assert!(dialogue.tracker.is_encrypted() && dialogue.tracker.has_ended());
    assert_eq!(dialogue.tracker.diagnostics().connections_encrypted, 1);
    dialogue.sent(b"\x16\x03\x01\x02\0\x01\0");
    // And goes on in the clear where it does not.
    let mut dialogue = Dialogue::new(false);
    dialogue.sent(&startup(TLS));
    dialogue.received(b"N");
    dialogue.sent(&login());
    dialogue.received(&accepted());
    dialogue.sent(&query("SELECT 1"));
    dialogue.received(&rows(1));
    assert_eq!(dialogue.one().database.as_deref(), Some("shop"));
    dialogue.clean();
}

#[test]
fn who_is_refused_has_no_commands() {
    let mut dialogue = Dialogue::new(false);
    dialogue.sent(&login());
    dialogue.received(&error("28P01"));
    assert!(dialogue.tracker.has_ended() && dialogue.commands.is_empty());
    dialogue.clean();
}

#[test]
fn a_request_to_cancel_is_a_command_without_its_key() {
    let mut dialogue = Dialogue::new(false);
    dialogue.sent(&startup(b"\x04\xd2\x16\x2e\0\0\0\x01SECR"));
    assert_eq!(dialogue.tracker.verdict(), Verdict::Yes);
    assert_eq!(told(&dialogue.take()), [("CANCEL", "", "")]);
    assert!(!format!("{:?}", dialogue.tracker).contains("83, 69, 67, 82"));
}

#[test]
fn the_server_says_how_strings_are_read() {
    // Two literals to a server whose `\` is a byte like any other, and one with a name to another one; then the other way round.
    let (two, one) = (r"SELECT 'a\', 'secret'", r"SELECT 'a\', secret, '");
    let shown = |dialogue: &mut Dialogue, sql: &str| {
        dialogue.sent(&query(sql));
        dialogue.received(&rows(1));
        let command = dialogue.one();
        text(&command).to_owned()
    };
    let mut dialogue = Dialogue::connected();
    assert_eq!(shown(&mut dialogue, two), "SELECT ?, ?");
    dialogue.sent(&query("SET standard_conforming_strings = off"));
    let changed = message(b'S', b"standard_conforming_strings\0off\0");
    dialogue.received(&[done("SET"), changed, ready()].concat());
    dialogue.take();
    assert_eq!(shown(&mut dialogue, one), "SELECT ?");
    // What is under way may change it.
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[query("SET standard_conforming_strings = on"), query(two)].concat());
    dialogue.received(&[done("SET"), ready(), rows(1)].concat());
    assert_eq!(text(&dialogue.take()[1]), "SELECT ?...");
}

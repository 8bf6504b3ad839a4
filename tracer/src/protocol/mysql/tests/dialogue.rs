//! What a well-behaved client and server say.

use super::*;
use crate::protocol::stream::{Quality, Verdict};

#[test]
fn a_query_in_both_dialects() {
    for capabilities in [0, DEPRECATE_EOF] {
        let mut dialogue = Dialogue::connected(capabilities);
        let rows: &[&[u8]] = if capabilities == 0 {
            &[b"\x01", COLUMN, EOF, b"\x011", b"\x012", EOF]
        } else {
            &[b"\x01", COLUMN, b"\x011", b"\x012", END]
        };
        dialogue.query("SELECT id FROM orders WHERE id > 5", &packets(1, rows));
        let command = dialogue.one();
        assert_eq!((command.name, command.rows, command.affected_rows), ("QUERY", Some(2), None));
        assert_eq!(text(&command), "SELECT id FROM orders WHERE id > ?");
        assert_eq!((database(&command), command.quality), (Some("shop"), Quality::Certain));
        assert_eq!(command.end_ns - command.start_ns, 3_000);
        dialogue.query("UPDATE t SET a = 1", &packet(1, OK));
        let command = dialogue.one();
        assert_eq!((command.rows, command.affected_rows), (None, Some(2)));
        dialogue.query("SELECT * FROM secret", &packet(1, NO_TABLE));
        let command = dialogue.one();
        assert_eq!(code(&command), Some(1146));
        assert_eq!(command.error.as_ref().map(Failure::message), Some("ERROR 1146 (42S02)"));
        dialogue.clean();
    }
}

#[test]
fn statements_carry_their_text_until_they_are_closed() {
    for capabilities in [0, DEPRECATE_EOF] {
        let mut dialogue = Dialogue::connected(capabilities);
        dialogue.sent(&packet(0, b"\x16SELECT id FROM t WHERE a = ? AND b = 'x'"));
        let definitions: &[&[u8]] = if capabilities == 0 {
            &[PREPARED, COLUMN, COLUMN, EOF, COLUMN, EOF]
        } else {
            &[PREPARED, COLUMN, COLUMN, COLUMN]
        };
        dialogue.received(&packets(1, definitions));
        let prepare = dialogue.one();
        dialogue.sent(&packet(0, EXECUTE));
        let rows: &[&[u8]] = if capabilities == 0 {
            &[b"\x01", COLUMN, EOF, b"\0\0\x01", EOF]
        } else {
            &[b"\x01", COLUMN, b"\0\0\x01", END]
        };
        dialogue.received(&packets(1, rows));
        let execute = dialogue.one();
        assert!(same_statement(&prepare, &execute));
        assert_eq!((execute.name, execute.rows), ("STMT_EXECUTE", Some(1)));
        assert_eq!(text(&execute), "SELECT id FROM t WHERE a = ? AND b = ?");
        dialogue.sent(&packet(0, b"\x19\x07\0\0\0"));
        let close = dialogue.one();
        assert!(same_statement(&prepare, &close));
        dialogue.sent(&packet(0, EXECUTE));
        dialogue.received(&packet(1, OK));
        assert_eq!(dialogue.one().statement, None);
        dialogue.clean();
    }
}

#[test]
fn several_results_are_one_command() {
    let mut dialogue = Dialogue::connected(0);
    let reply =
        [&[b"\x01", COLUMN, EOF, b"\x011", EOF_MORE][..], &[OK_MORE, b"\x01", COLUMN, EOF, b"\x012", b"\x013", EOF]]
            .concat();
    dialogue.query("SELECT 1; UPDATE t SET a = 1; SELECT 2", &packets(1, &reply));
    let command = dialogue.one();
    assert_eq!((command.rows, command.affected_rows), (Some(3), Some(1)));
    assert_eq!(command.statement.map(|statement| statement.count), Some(3));
    dialogue.clean();
}

#[test]
fn a_local_file_is_part_of_its_command_however_long() {
    let mut dialogue = Dialogue::connected(0);
    dialogue.query("LOAD DATA LOCAL INFILE 'secret' INTO TABLE t", &packet(1, b"\xfbsecret"));
    for seq in (2..=255).chain(0..10) {
        // A line that looks like a ping.
        dialogue.sent(&packet(seq, b"\x0e"));
    }
    dialogue.sent(&packet(10, b""));
    dialogue.received(&packet(11, OK));
    let command = dialogue.one();
    assert_eq!(text(&command), "LOAD DATA LOCAL INFILE ? INTO TABLE t");
    dialogue.clean();
}

#[test]
fn the_schema_is_followed() {
    let mut dialogue = Dialogue::connected(0);
    dialogue.query("USE other", &packet(1, OK));
    dialogue.query("SELECT 1 INTO @x", &packet(1, OK));
    dialogue.sent(&packet(0, b"\x02third"));
    dialogue.received(&packet(1, OK));
    dialogue.sent(&packet(0, b"\x0e"));
    dialogue.received(&packet(1, OK));
    let names: Vec<_> = dialogue.commands.iter().map(|command| (command.name, database(command))).collect();
    let expected =
        [("QUERY", Some("shop")), ("QUERY", Some("other")), ("INIT_DB", Some("other")), ("PING", Some("third"))];
    assert_eq!(names, expected);
    dialogue.clean();
}

#[test]
fn another_user_is_authenticated_again() {
    let mut dialogue = Dialogue::connected(0);
    dialogue.sent(&packet(0, b"\x11other\0\x06SECRETnew\0\x21\0caching_sha2_password\0"));
    dialogue.received(&packet(1, b"\xfemysql_native_password\0AAAA\0"));
    dialogue.sent(&packet(2, b"SECRET"));
    dialogue.received(&packet(3, OK));
    assert_eq!(dialogue.one().name, "CHANGE_USER");
    dialogue.query("SELECT 1 INTO @x", &packet(1, OK));
    assert_eq!(database(&dialogue.one()), Some("new"));
    assert!(!holds_secret(&dialogue));
    dialogue.clean();
}

#[test]
fn mariadb_says_how_far_it_is_and_leaves_metadata_out() {
    let mut dialogue = Dialogue::new(false);
    let mut hello = greeting("5.5.5-10.11.6-MariaDB");
    // The lower bit is clear, and the last reserved bytes are capabilities.
    let caps = 4 + 1 + "5.5.5-10.11.6-MariaDB".len() + 1 + 4 + 9;
    hello[caps] = 0xfe;
    hello[caps + 14..caps + 18].copy_from_slice(&[0x1f, 0, 0, 0]);
    dialogue.received(&hello);
    let mut answer = login(0);
    answer[4] &= 0xfe;
    answer[32..36].copy_from_slice(&[0x1f, 0, 0, 0]);
    dialogue.sent(&answer);
    dialogue.received(&packet(2, OK));
    dialogue.query("SELECT 1", &packets(1, &[b"\x01\x01", COLUMN, EOF, b"\x011", EOF]));
    let command = dialogue.one();
    assert_eq!(command.system, "mariadb");
    assert_eq!(command.rows, Some(1));
    dialogue.query("ALTER TABLE t ADD a INT", &packets(1, &[b"\xff\xff\xff\x01\x01\x03\x00\x00\x00\x04copy", OK]));
    assert_eq!(dialogue.one().error, None);
    dialogue.sent(&packet(0, EXECUTE));
    dialogue.received(&packets(1, &[b"\x01\x00", EOF, b"\0\0\x01", b"\0\0\x02", EOF]));
    assert_eq!(dialogue.one().rows, Some(2));
    dialogue.clean();
}

#[test]
fn long_rows_and_long_queries_are_skipped() {
    let mut dialogue = Dialogue::connected(DEPRECATE_EOF);
    let sql = format!("\x03SELECT LENGTH('{}')", "x".repeat(20_000_000));
    let (first, second) = sql.as_bytes().split_at(0xff_ffff);
    let bytes = [packet(0, first), packet(1, second)].concat();
    let (seen, _) = bytes.split_at(100_000);
    dialogue.pass(Direction::Sent, seen, 100_000);
    assert!(dialogue.tracker.skip(Direction::Sent) > 16_000_000);
    dialogue.pass(Direction::Sent, &[], 0xff_ffff + 4 - 100_000);
    dialogue.sent(&bytes[0xff_ffff + 4..]);
    dialogue.received(&packets(2, &[b"\x01", COLUMN]));
    let row = vec![b'x'; 17_000_000];
    let row = [packet(4, &row[..0xff_ffff]), packet(5, &row[0xff_ffff..])].concat();
    dialogue.received(&row[..1000]);
    assert!(dialogue.tracker.skip(Direction::Received) > 16_000_000);
    dialogue.pass(Direction::Received, &[], 0xff_ffff + 4 - 1000);
    dialogue.received(&row[0xff_ffff + 4..]);
    dialogue.received(&packet(6, END));
    let command = dialogue.one();
    assert_eq!(command.rows, Some(1));
    assert!(command.request_bytes > 20_000_000 && command.response_bytes > 17_000_000);
    assert_eq!(text(&command), "SELECT LENGTH(?...");
    dialogue.clean();
}

#[test]
fn a_length_in_the_middle_may_be_missing() {
    let mut dialogue = Dialogue::connected(0);
    let sql = [b"\x03SELECT '", &vec![b'x'; 0xff_ffff][..]].concat();
    let bytes = [packet(0, &sql[..0xff_ffff]), packet(1, &sql[0xff_ffff..])].concat();
    let (first, last) = bytes.split_at(bytes.len() - 5);
    dialogue.pass(Direction::Sent, &first[..10_000], first.len() as u64);
    dialogue.sent(last);
    let row = vec![b'x'; 17_000_000];
    let row = [packet(5, &row[..0xff_ffff]), packet(6, &row[0xff_ffff..])].concat();
    dialogue.received(&packets(2, &[b"\x01", COLUMN, EOF]));
    dialogue.pass(Direction::Received, &row[..1000], row.len() as u64);
    dialogue.received(&packet(7, EOF));
    assert!(dialogue.take().is_empty(), "it is not known yet that this was all");
    dialogue.query("SELECT 2", &packets(1, &[b"\x01", COLUMN, EOF, b"\x012", EOF]));
    let commands = dialogue.take();
    assert_eq!(commands.len(), 2, "{commands:#?}");
    assert_eq!((commands[0].rows, commands[0].quality), (None, Quality::Resynced));
    assert_eq!(commands[0].request_bytes, bytes.len() as u64);
    assert_eq!(commands[0].end_ns, commands[1].start_ns - 1_000);
    assert_eq!(commands[1].rows, Some(1));
    dialogue.clean();
}

#[test]
fn parameters_of_a_query_are_passed_over() {
    let mut dialogue = Dialogue::connected(1 << 27);
    dialogue.sent(&packet(0, b"\x03\x00\x01SELECT 1"));
    dialogue.received(&packet(1, OK));
    assert_eq!(text(&dialogue.one()), "SELECT ?");
    // Two parameters: a text and a number, and one that is NULL.
    dialogue.sent(&packet(
        0,
        b"\x03\x03\x01\x04\x01\xfd\x00\x01a\x08\x00\x01b\x06\x00\x01c\x06secret\x01\0\0\0\0\0\0\0SELECT 2",
    ));
    dialogue.received(&packet(1, OK));
    assert_eq!(text(&dialogue.one()), "SELECT ?");
    dialogue.clean();
}

#[test]
fn a_connection_that_is_encrypted_or_compressed_is_given_up() {
    let mut dialogue = Dialogue::new(false);
    dialogue.received(&greeting("8.0.36"));
    dialogue.sent(&packet(1, &[&(1_u32 << 9 | 1 << 11).to_le_bytes()[..], &[0; 28]].concat()));
    assert_eq!(dialogue.tracker.verdict(), Verdict::No);
    assert_eq!(dialogue.tracker.diagnostics().connections_encrypted, 1);
    let mut dialogue = Dialogue::new(false);
    dialogue.received(&greeting("8.0.36"));
    dialogue.sent(&login(1 << 5));
    assert_eq!(dialogue.tracker.verdict(), Verdict::No);
    assert_eq!(dialogue.tracker.diagnostics().connections_compressed, 1);
    let mut dialogue = Dialogue::connected(0);
    dialogue.sent(&packet(0, b"\x12\0\0\0\0\0\0\0\0\0\0log"));
    assert_eq!(dialogue.tracker.diagnostics().connections_unsupported, 1);
    assert_eq!(dialogue.tracker.verdict(), Verdict::No);
}

#[test]
fn credentials_are_not_kept() {
    let mut dialogue = Dialogue::new(false);
    dialogue.received(&greeting("8.0.36"));
    let login = login(0);
    let (first, second) = login.split_at(login.len() - 10);
    dialogue.sent(first);
    assert!(holds_secret(&dialogue), "as long as the packet is not complete");
    dialogue.sent(second);
    dialogue.received(&packet(2, OK));
    assert!(!holds_secret(&dialogue));
}

/// The password is among the bytes that the tracker shows of itself.
fn holds_secret(dialogue: &Dialogue) -> bool {
    let secret = format!("{:?}", b"SECRET");
    format!("{:?}", dialogue.tracker).contains(secret.trim_matches(['[', ']']))
}

/// Of a send whose beginning was not seen only the end is known, and the reply can be there before that.
#[test]
fn a_send_may_have_begun_before_its_reply_came() {
    let mut dialogue = Dialogue::connected(DEPRECATE_EOF);
    dialogue.received(&packet(1, OK));
    let data = packet(0, b"\x03SELECT 1");
    dialogue.at_once(Direction::Sent, &data);
    let command = dialogue.one();
    assert_eq!(command.start_ns, command.end_ns);
    assert!(command.end_ns < command.sent_ns);
    dialogue.clean();
}

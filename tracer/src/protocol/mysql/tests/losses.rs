//! What is missing, late or not MySQL at all.

use proptest::prelude::*;

use super::*;
use crate::protocol::stream::{Quality, Verdict};

fn rows() -> Vec<u8> {
    packets(1, &[b"\x01", COLUMN, EOF, b"\x011", EOF])
}

#[test]
fn a_connection_that_was_open_before_is_followed_from_its_next_command() {
    for reply in
        [rows(), packets(1, &[b"\x01", COLUMN, b"\x011", END]), packets(1, &[b"\x01\x01", COLUMN, EOF, b"\x011", EOF])]
    {
        let mut dialogue = Dialogue::new(true);
        // The end of the reply to a command that nobody saw.
        dialogue.received(b"in the middle of a row");
        dialogue.query("SELECT 1", &reply);
        let command = dialogue.one();
        assert_eq!((command.rows, command.quality), (Some(1), Quality::OpenedBefore));
        assert_eq!(dialogue.tracker.verdict(), Verdict::Yes);
        dialogue.sent(&packet(0, EXECUTE));
        dialogue.received(&reply);
        let command = dialogue.one();
        assert_eq!((&command.statement, command.rows), (&None, Some(1)));
        assert_eq!(database(&command), None);
    }
}

#[test]
fn a_statement_without_columns_is_prepared_in_an_unknown_dialect() {
    for late in [true, false] {
        let mut dialogue = Dialogue::new(true);
        let prepared = b"\x00\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00";
        dialogue.sent(&packet(0, b"\x16UPDATE t SET a = ?"));
        dialogue.received(&packets(1, &[prepared, COLUMN]));
        assert_eq!(dialogue.one().name, "STMT_PREPARE");
        if late {
            dialogue.received(&packet(3, EOF));
        }
        dialogue.sent(&packet(0, EXECUTE));
        dialogue.received(&packet(1, OK));
        assert_eq!(text(&dialogue.one()), "UPDATE t SET a = ?");
        dialogue.clean();
    }
}

#[test]
fn a_reply_before_the_record_of_its_command_is_its_reply() {
    let mut dialogue = Dialogue::connected(0);
    let sent = packet(0, b"\x03SELECT 1");
    let mut out = Vec::new();
    let offsets = dialogue.offsets;
    let chunk = |direction, offset, data, start_ns, end_ns| Chunk { direction, offset, len: 0, data, start_ns, end_ns };
    let reply = rows();
    let mut received = chunk(Direction::Received, offsets[0], &reply, 100_100, 100_200);
    received.len = reply.len() as u64;
    dialogue.tracker.feed(received, 0, &mut out);
    assert!(out.is_empty());
    let mut request = chunk(Direction::Sent, offsets[1], &sent, 100_000, 100_300);
    request.len = sent.len() as u64;
    dialogue.tracker.feed(request, 9, &mut out);
    assert_eq!((out[0].tag, out[0].rows, out[0].end_ns), (9, Some(1), 100_200));
    dialogue.clean();
}

#[test]
fn after_a_loss_no_reply_is_given_to_another_command() {
    for direction in [Direction::Sent, Direction::Received] {
        let mut dialogue = Dialogue::connected(0);
        dialogue.query("SELECT 1", &rows());
        dialogue.take();
        dialogue.sent(&packet(0, b"\x03SELECT 2"));
        dialogue.lost(direction, 10);
        dialogue.received(&rows()[10..]);
        assert!(dialogue.take().is_empty());
        for _ in 0..2 {
            dialogue.query("SELECT 3", &rows());
        }
        let commands = dialogue.take();
        assert!(!commands.is_empty());
        assert!(commands.iter().all(|command| command.rows == Some(1) && command.quality == Quality::Resynced));
        let diagnostics = dialogue.tracker.diagnostics();
        let passed_over = diagnostics.commands_unpaired + diagnostics.commands_unaligned;
        assert_eq!(commands.len() as u64 + passed_over, 3, "{diagnostics:?}");
    }
}

#[test]
fn a_wrong_number_is_not_believed() {
    let mut dialogue = Dialogue::connected(0);
    dialogue.query("SELECT 1", &packet(7, OK));
    assert!(dialogue.take().is_empty());
    let diagnostics = dialogue.tracker.diagnostics();
    assert_eq!((diagnostics.replies_malformed, diagnostics.commands_unpaired), (1, 1));
}

#[test]
fn what_waits_when_the_connection_ends_has_failed() {
    let mut dialogue = Dialogue::connected(0);
    dialogue.sent(&packet(0, b"\x03SELECT SLEEP(600)"));
    dialogue.received(&packets(1, &[b"\x01", COLUMN]));
    let mut out = Vec::new();
    dialogue.tracker.close(1_000_000, &mut out);
    assert_eq!((&out[0].error, out[0].end_ns), (&Some(Failure::ConnectionClosed), 1_000_000));
    dialogue.clean();
}

#[test]
fn other_protocols_with_such_lengths_give_no_command() {
    let mut dialogue = Dialogue::new(true);
    for index in 0..1000_u32 {
        let body = [&[0x03][..], &index.to_le_bytes(), b"payload"].concat();
        // Length, zero, then bytes; the other side does the same.
        dialogue.sent(&packet(0, &body));
        dialogue.received(&packet(0, &body));
        dialogue.sent(&packet(0, b"\x19abcd"));
    }
    assert_eq!(dialogue.tracker.verdict(), Verdict::No);
    assert_eq!(dialogue.tracker.diagnostics(), Diagnostics::default());
}

/// A session with everything in it: what was sent and received, in order.
fn session() -> Vec<(Direction, Vec<u8>)> {
    let (sent, received) = (Direction::Sent, Direction::Received);
    vec![
        (received, greeting("8.0.36")),
        (sent, login(0)),
        (received, packet(2, OK)),
        (sent, packet(0, b"\x03SELECT id FROM t WHERE a = 'x'")),
        (received, rows()),
        (sent, packet(0, b"\x16SELECT ? , ?")),
        (received, packets(1, &[PREPARED, COLUMN, COLUMN, EOF, COLUMN, EOF])),
        (sent, packet(0, EXECUTE)),
        (received, packets(1, &[b"\x01", COLUMN, EOF, b"\0\0\x01", b"\0\0\x02", EOF])),
        (sent, packet(0, b"\x19\x07\0\0\0")),
        (sent, packet(0, b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
        (received, packet(1, b"\xfbx")),
        (sent, packets(2, &[b"some lines", b""])),
        (received, packet(4, OK)),
        (sent, packet(0, b"\x03SELECT * FROM secret")),
        (received, packet(1, NO_TABLE)),
        (sent, packet(0, b"\x01")),
    ]
}

/// What the commands of a session say, without their times.
fn told(pieces: impl Fn(usize, &[u8]) -> Vec<usize>) -> Vec<String> {
    let mut dialogue = Dialogue::new(false);
    for (index, (direction, bytes)) in session().into_iter().enumerate() {
        let mut rest = &bytes[..];
        for at in pieces(index, &bytes) {
            let (piece, after) = rest.split_at(at.min(rest.len()));
            dialogue.pass(direction, piece, piece.len() as u64);
            rest = after;
        }
        dialogue.pass(direction, rest, rest.len() as u64);
    }
    dialogue.clean();
    let told = |command: &Command<u32>| {
        format!("{} {} {:?} {:?} {:?}", command.name, text(command), command.rows, command.affected_rows, code(command))
    };
    dialogue.commands.iter().map(told).collect()
}

#[test]
fn every_split_gives_the_same_commands() {
    let whole = told(|_, _| Vec::new());
    assert_eq!(whole.len(), 7, "{whole:#?}");
    for (index, (_, bytes)) in session().iter().enumerate() {
        for at in 1..bytes.len() {
            assert_eq!(told(|which, _| if which == index { vec![at] } else { Vec::new() }), whole, "{index} at {at}");
        }
    }
    assert_eq!(told(|_, bytes| vec![1; bytes.len()]), whole);
}

proptest! {
    #[test]
    fn any_bytes_are_taken(
        opened_before: bool,
        calls in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), 0_u64..3), 0..60),
    ) {
        let mut dialogue = Dialogue::new(opened_before);
        for (sent, bytes, missing) in calls {
            let direction = if sent { Direction::Sent } else { Direction::Received };
            dialogue.lost(direction, missing.saturating_sub(1));
            dialogue.pass(direction, &bytes, bytes.len() as u64 + missing);
        }
        prop_assert!(dialogue.commands.iter().all(|command| command.start_ns <= command.end_ns));
    }

    #[test]
    fn a_damaged_session_is_taken(at in 0_usize..17, byte in 0_usize..60, value: u8, opened_before: bool) {
        let mut dialogue = Dialogue::new(opened_before);
        for (index, (direction, mut bytes)) in session().into_iter().enumerate() {
            if index == at && !bytes.is_empty() {
                let place = byte % bytes.len();
                bytes[place] = value;
            }
            dialogue.pass(direction, &bytes, bytes.len() as u64);
        }
        let open = dialogue.tracker.open_commands();
        dialogue.tracker.close(u64::MAX, &mut dialogue.commands);
        prop_assert!(open <= 17);
    }
}

//! What is missing, late or not PostgreSQL at all.

use proptest::prelude::*;

use super::*;
use crate::protocol::stream::{Quality, Verdict};

#[test]
fn a_connection_that_was_open_before_is_followed_from_its_next_command() {
    let mut dialogue = Dialogue::new(true);
    // The end of the answer to a command that nobody saw.
    dialogue.received(b"in the middle of a row");
    dialogue.sent(&query("SELECT 1"));
    dialogue.received(&rows(1));
    let command = dialogue.one();
    assert_eq!((command.rows, command.quality, command.database), (Some(1), Quality::OpenedBefore, None));
    assert_eq!(dialogue.tracker.verdict(), Verdict::Yes);
    dialogue.sent(&[bind("", "s1"), execute(""), sync()].concat());
    dialogue.received(&[message(b'2', b""), row(), done("SELECT 1"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((&command.statement, command.rows), (&None, Some(1)), "what was prepared before is not known");
}

#[test]
fn after_a_loss_no_answer_is_given_to_another_command() {
    for direction in [Direction::Sent, Direction::Received] {
        let mut dialogue = Dialogue::connected();
        dialogue.sent(&query("SELECT 1"));
        dialogue.received(&rows(1));
        dialogue.take();
        dialogue.sent(&query("SELECT 2"));
        dialogue.sent(&query("SELECT 2"));
        dialogue.lost(direction, 10);
        dialogue.received(&rows(9)[10..]);
        assert!(dialogue.take().is_empty());
        for _ in 0..3 {
            dialogue.sent(&query("SELECT 3"));
            dialogue.received(&rows(3));
        }
        let commands = dialogue.take();
        assert!(!commands.is_empty());
        assert!(commands.iter().all(|command| command.rows == Some(3) && command.quality == Quality::Resynced));
        let diagnostics = dialogue.tracker.diagnostics();
        let passed_over = diagnostics.commands_unpaired + diagnostics.commands_unaligned;
        assert_eq!(commands.len() as u64 + passed_over, 5, "{direction:?} {diagnostics:?}");
    }
}

#[test]
fn a_statement_may_have_been_replaced_among_lost_requests() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[parse("s", "SELECT a FROM t"), sync()].concat());
    dialogue.received(&[message(b'1', b""), ready()].concat());
    dialogue.lost(Direction::Sent, 100);
    for _ in 0..2 {
        dialogue.sent(&[bind("", "s"), execute(""), sync()].concat());
        dialogue.received(&[message(b'2', b""), done("SELECT 0"), ready()].concat());
    }
    let commands = dialogue.take();
    assert!(commands.len() >= 2 && commands[1..].iter().all(|command| command.statement.is_none()), "{commands:?}");
}

#[test]
fn the_inside_of_long_values_is_not_needed() {
    let mut dialogue = Dialogue::connected();
    let long = 20_000_000;
    let header = |kind: u8, len: u32| [&[kind][..], &(len + 4).to_be_bytes()].concat();
    let begin =
        [parse("", "INSERT INTO t VALUES ($1)"), header(b'B', long), b"\0\0\0\0".to_vec(), vec![0; 9_000]].concat();
    let rest = u64::from(long) - 9_004;
    dialogue.sent(&begin);
    assert!(dialogue.tracker.skip(Direction::Sent) > 19_000_000);
    dialogue.pass(Direction::Sent, &[], rest);
    dialogue.sent(&[execute(""), sync()].concat());
    let row = [header(b'D', long), vec![0; 200]].concat();
    dialogue.received(&[message(b'1', b""), message(b'2', b"")].concat());
    dialogue.pass(Direction::Received, &row, u64::from(long) + 5);
    dialogue.received(&[done("INSERT 0 1"), ready()].concat());
    let command = dialogue.one();
    assert_eq!((command.rows, command.affected_rows), (Some(1), Some(1)));
    assert!(command.request_bytes > u64::from(long) && command.response_bytes > u64::from(long));
    dialogue.clean();
}

#[test]
fn a_command_whose_end_was_not_captured_ends_with_its_answer() {
    let header = |kind: u8, len: u32| [&[kind][..], &(len + 4).to_be_bytes()].concat();
    let mut dialogue = Dialogue::connected();
    let begin =
        [parse("", "INSERT INTO t VALUES ($1)"), header(b'B', 100_000), b"\0\0".to_vec(), vec![0; 20_000]].concat();
    // Behind the value are an Execute and a Sync.
    dialogue.pass(Direction::Sent, &begin, begin.len() as u64 + 80_000 + 15);
    dialogue.received(&[executed("INSERT 0 1", 0), ready()].concat());
    let command = dialogue.one();
    assert_eq!(
        (command.name, text(&command), command.affected_rows),
        ("EXECUTE", "INSERT INTO t VALUES ($1)", Some(1))
    );
    // The end of an answer, and the next command.
    dialogue.sent(&query("SELECT a FROM t"));
    let begin = [columns(), header(b'D', 100_000), vec![0; 20_000]].concat();
    dialogue.pass(Direction::Received, &begin, begin.len() as u64 + 80_000 + 30);
    dialogue.sent(&query("SELECT 2"));
    dialogue.received(&rows(2));
    let commands = dialogue.take();
    assert_eq!(told(&commands), [("QUERY", "SELECT a FROM t", ""), ("QUERY", "SELECT ?", "")]);
    assert_eq!((commands[0].rows, commands[0].quality, commands[1].rows), (None, Quality::Resynced, Some(2)));
    dialogue.clean();
}

#[test]
fn what_waits_when_the_connection_ends_has_failed() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query("SELECT pg_sleep(600)"));
    let mut out = Vec::new();
    dialogue.tracker.close(1_000_000, &mut out);
    assert_eq!((&out[0].error, out[0].end_ns), (&Some(Failure::ConnectionClosed), 1_000_000));
    dialogue.clean();
    // Unless the server has said why.
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&query("SELECT pg_sleep(600)"));
    dialogue.received(&error("57P01"));
    dialogue.tracker.close(1_000_000, &mut out);
    assert_eq!(out[1].error.as_ref().map(Failure::kind), Some("57P01"));
}

#[test]
fn other_protocols_give_no_command() {
    let mut dialogue = Dialogue::new(true);
    for _ in 0..200 {
        dialogue.sent(b"Q\0\0\0\x0bpayload");
        dialogue.received(b"Q\0\0\0\x0bpayload");
    }
    assert_eq!(dialogue.tracker.verdict(), Verdict::No);
    assert!(dialogue.commands.is_empty());
    assert_eq!(dialogue.tracker.diagnostics(), Diagnostics::default());
}

/// A session with everything in it: what was sent and received, in order.
fn session() -> Vec<(Direction, Vec<u8>)> {
    let (sent, received) = (Direction::Sent, Direction::Received);
    vec![
        (sent, startup(TLS)),
        (received, b"N".to_vec()),
        (sent, login()),
        (received, accepted()),
        (sent, query("SELECT id FROM t WHERE a = 'x'")),
        (received, rows(2)),
        (sent, [parse("s", "SELECT $1"), describe("S", "s"), sync()].concat()),
        (received, [message(b'1', b""), message(b't', b"\0\0"), columns(), ready()].concat()),
        (sent, [bind("", "s"), execute(""), close("P", ""), sync()].concat()),
        (received, [message(b'2', b""), row(), done("SELECT 1"), message(b'3', b""), ready()].concat()),
        (sent, [unnamed("INSERT INTO t VALUES ($1)"), unnamed("SELECT 1 / 0"), unnamed("SELECT 2"), sync()].concat()),
        (
            received,
            [executed("INSERT 0 1", 0), message(b'1', b""), message(b'2', b""), error("22012"), ready()].concat(),
        ),
        (sent, [parse("", "COPY t FROM STDIN"), bind("", ""), execute(""), sync()].concat()),
        (received, [message(b'1', b""), message(b'2', b""), message(b'G', b"\0\0\0")].concat()),
        (sent, [message(b'd', b"1\n"), message(b'c', b""), sync()].concat()),
        (received, [done("COPY 1"), ready()].concat()),
        (sent, message(b'X', b"")),
    ]
}

/// What the commands of a session say, without their times.
fn told_of(pieces: impl Fn(usize, &[u8]) -> Vec<usize>) -> Vec<String> {
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
        let error = command.error.as_ref().map(Failure::kind);
        let bytes = (command.request_bytes, command.response_bytes);
        format!("{} {} {:?} {:?} {error:?} {bytes:?}", command.name, text(command), command.rows, command.affected_rows)
    };
    dialogue.commands.iter().map(told).collect()
}

#[test]
fn every_split_gives_the_same_commands() {
    let whole = told_of(|_, _| Vec::new());
    assert_eq!(whole.len(), 7, "{whole:#?}");
    for (index, (_, bytes)) in session().iter().enumerate() {
        for at in 1..bytes.len() {
            assert_eq!(
                told_of(|which, _| if which == index { vec![at] } else { Vec::new() }),
                whole,
                "{index} at {at}"
            );
        }
    }
    assert_eq!(told_of(|_, bytes| vec![1; bytes.len()]), whole);
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
    fn messages_in_any_order_are_taken(order in proptest::collection::vec(0_usize..24, 0..80), opened_before: bool) {
        let messages = [
            (true, query("SELECT 1")), (true, parse("s", "SELECT 1")), (true, bind("", "s")), (true, execute("")),
            (true, describe("P", "")), (true, close("S", "s")), (true, sync()), (true, message(b'H', b"")),
            (true, message(b'd', b"x")), (true, message(b'c', b"")), (true, message(b'f', b"\0")), (true, login()),
            (false, ready()), (false, columns()), (false, row()), (false, done("SELECT 1")), (false, error("42601")),
            (false, message(b'1', b"")), (false, message(b'2', b"")), (false, message(b'3', b"")),
            (false, message(b'n', b"")), (false, message(b's', b"")), (false, message(b'G', b"\0\0\0")), (false, accepted()),
        ];
        let mut dialogue = if opened_before { Dialogue::new(true) } else { Dialogue::connected() };
        let executes = order.iter().filter(|index| matches!(**index, 0 | 3)).count();
        for index in order {
            let (sent, bytes) = &messages[index];
            if *sent { dialogue.sent(bytes) } else { dialogue.received(bytes) }
        }
        let open = dialogue.tracker.open_commands();
        dialogue.tracker.close(u64::MAX, &mut dialogue.commands);
        prop_assert!(open <= 80);
        // Each has one fate.
        let given = dialogue.commands.iter().filter(|command| command.runs).count();
        prop_assert!(given <= executes, "{given} of {executes}");
    }

    #[test]
    fn a_damaged_session_is_taken(at in 0_usize..17, byte in 0_usize..200, value: u8, opened_before: bool) {
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

//! Bytes that were not captured, and connections that were open before the agent came.

use proptest::prelude::*;

use super::*;

fn get(connection: &mut Connection) {
    connection.send(request("GET a")).receive("$1\r\nx\r\n");
}

/// After a second of silence nothing can be under way any longer.
fn silence(connection: &mut Connection) {
    connection.now += 2_000_000_000;
}

#[test]
fn a_lost_reply_record() {
    let mut connection = Connection::new();
    get(&mut connection);
    connection.send(request("GET a")).lose(Direction::Received, 7);
    get(&mut connection);
    get(&mut connection);
    assert_eq!(connection.commands.len(), 2);
    assert_eq!(connection.commands[1].quality, Quality::Resynced);
    assert_eq!(connection.commands[1].end_ns - connection.commands[1].start_ns, 15);
    let counted = connection.tracker.diagnostics();
    assert_eq!((counted.replies_lost, counted.commands_unpaired), (1, 2));
    silence(&mut connection);
    get(&mut connection);
    assert_eq!(connection.commands[2].quality, Quality::Certain);
}

#[test]
fn a_lost_request_record() {
    let mut connection = Connection::new();
    get(&mut connection);
    connection.lose(Direction::Sent, 20).receive("$1\r\nx\r\n");
    get(&mut connection);
    let commands = connection.take();
    assert_eq!(commands.len(), 2);
    assert_eq!((commands[1].quality, commands[1].end_ns - commands[1].start_ns), (Quality::Resynced, 15));
    let counted = connection.tracker.diagnostics();
    assert_eq!((counted.requests_lost, counted.replies_unseen), (1, 1));
}

#[test]
fn a_pipeline_that_was_too_long_to_capture() {
    let mut connection = Connection::new();
    let pipeline = request("GET a").repeat(100);
    let captured = &pipeline[..pipeline.len() / 2 + 3];
    connection.call(Direction::Sent, captured, pipeline.len() as u64);
    connection.send(request("GET a").repeat(10)).receive("$1\r\nx\r\n".repeat(60)).receive("$1\r\nx\r\n".repeat(50));
    assert_eq!(connection.commands.len(), 50, "those before the gap are paired");
    get(&mut connection);
    assert_eq!(connection.take().last().unwrap().end_ns, connection.now + 5);
    let counted = connection.tracker.diagnostics();
    assert_eq!((counted.commands_truncated, counted.commands_unaligned, counted.replies_unseen), (1, 10, 60));
}

#[test]
fn a_reply_that_was_too_long_to_capture() {
    let mut connection = Connection::new();
    connection.send(request("KEYS *")).call(Direction::Received, b"*1000\r\n$3\r\nabc\r\n$3\r\nde", 9007);
    assert!(connection.commands.is_empty());
    get(&mut connection);
    assert_eq!(connection.one().response_bytes, 7);
    assert_eq!(connection.tracker.diagnostics().commands_unpaired, 1);
}

#[test]
fn nothing_is_invented_from_the_middle_of_a_value() {
    let mut connection = Connection::new();
    connection.send(request("GET a")).call(Direction::Received, b"$1", 4);
    connection.receive("hello\r\n+OK\r\n");
    connection.send(request("GET b")).receive("ello\r\n").receive("$1\r\nx\r\n");
    assert!(connection.commands.is_empty(), "{:?}", connection.names());
    get(&mut connection);
    assert_eq!(connection.one().response_bytes, 7);
}

#[test]
fn opened_before_at_rest() {
    let mut connection = Connection::opened_before();
    (connection.sent, connection.received) = (12345, 678);
    for _ in 0..100 {
        get(&mut connection);
    }
    let commands = connection.take();
    assert_eq!(commands.len(), 100, "none is lost");
    assert!(commands.iter().all(|command| command.quality == Quality::OpenedBefore));
    silence(&mut connection);
    get(&mut connection);
    assert_eq!(connection.one().quality, Quality::Certain);
    assert_eq!(connection.tracker.diagnostics(), Diagnostics::default());
}

#[test]
fn opened_before_in_the_middle_of_a_reply() {
    let mut connection = Connection::opened_before();
    connection.receive("the end of a value\r\n");
    get(&mut connection);
    assert_eq!(connection.one().response_bytes, 7);
    assert_eq!(connection.tracker.diagnostics().bytes_skipped, 20);
}

#[test]
fn opened_before_in_the_middle_of_a_request() {
    let mut connection = Connection::opened_before();
    connection.send([b"alue\r\n".to_vec(), request("GET b")].concat()).receive("+OK\r\n$1\r\nx\r\n");
    assert!(connection.commands.is_empty(), "whose reply is whose is not known yet");
    get(&mut connection);
    assert_eq!(connection.one().response_bytes, 7);
    assert_eq!(connection.tracker.diagnostics().commands_unaligned, 1);
}

#[test]
fn replies_to_unseen_commands_do_not_shift_the_rest_for_long() {
    let mut connection = Connection::opened_before();
    // Sent before the agent came: one command. It was still under way when this one was sent.
    connection.send(request("GET a")).receive("+OK\r\n").receive("$1\r\nx\r\n");
    connection.take();
    get(&mut connection);
    let command = connection.one();
    assert_eq!((command.response_bytes, command.end_ns - command.start_ns), (7, 15));
    assert_eq!(connection.tracker.diagnostics().replies_unseen, 1);
}

#[test]
fn repeated_and_late_bytes_are_counted() {
    let mut connection = Connection::new();
    get(&mut connection);
    connection.sent = 0;
    connection.send(request("GET a"));
    assert_eq!(connection.tracker.diagnostics().bytes_stale, 20);
    get(&mut connection);
    assert_eq!(connection.take().len(), 2);
}

#[test]
fn every_command_is_given_out_or_counted() {
    let mut connection = Connection::new();
    let mut sent = 0;
    for round in 0u64..200 {
        match round % 7 {
            3 => {
                connection.lose(Direction::Received, 3);
            }
            5 => {
                connection.lose(Direction::Sent, 3);
            }
            _ => {}
        }
        connection.send([request("GET a"), request("GET b")].concat()).receive("$-1\r\n:1\r\n");
        sent += 2;
    }
    let counted = connection.tracker.diagnostics();
    let given = connection.commands.len() as u64;
    let open = connection.tracker.open_commands() as u64;
    assert!(given > 200, "{given} {counted:?}");
    assert_eq!(given + counted.commands_unpaired + counted.commands_unaligned + counted.commands_overflow + open, sent);
}

/// Many tasks on one connection: requests and replies by time, each reply as long as its request says.
fn shared_dialogue(count: u64) -> Vec<(u64, Direction, Vec<u8>)> {
    let mut calls = Vec::new();
    let (mut now, mut served) = (0, 0);
    for number in 0..count {
        // 100 commands on average in 1 ms, each served in 9 us: idle now and then, and bursts.
        now += (number * 7919 % 97) * 200 + 300;
        served = now.max(served) + 9000;
        let (request, reply) = echo(number);
        calls.push((now, Direction::Sent, request));
        calls.push((served + 500, Direction::Received, reply));
    }
    calls.sort_by_key(|(at, ..)| *at);
    calls
}

fn replay(connection: &mut Connection, calls: &[(u64, Direction, Vec<u8>)], lost: impl Fn(usize) -> bool) {
    for (index, (at, direction, bytes)) in calls.iter().enumerate() {
        connection.now = *at;
        if lost(index) {
            connection.lose(*direction, bytes.len() as u64);
        } else {
            connection.call(*direction, bytes, bytes.len() as u64);
        }
    }
}

/// Commands that have another's reply.
fn mispaired(commands: &[Command<u64>]) -> usize {
    commands.iter().filter(|command| command.request_bytes != command.response_bytes + 14).count()
}

#[test]
fn a_busy_shared_connection_from_before_the_agent() {
    let calls = shared_dialogue(10_000);
    let mut wrong = 0;
    for start in 0..100 {
        let mut connection = Connection::opened_before();
        replay(&mut connection, &calls[start * 50..], |_| false);
        let sent = calls[start * 50..].iter().filter(|(_, direction, _)| *direction == Direction::Sent).count();
        assert!(connection.commands.len() + 20 > sent, "{} of {sent}", connection.commands.len());
        wrong += mispaired(&connection.commands);
    }
    assert!(wrong < 200, "only until the first two overlap, twice per start on average: {wrong}");
}

#[test]
fn a_busy_shared_connection_with_losses() {
    let calls = shared_dialogue(20_000);
    let mut connection = Connection::new();
    replay(&mut connection, &calls, |index| index % 5003 == 5002);
    let counted = connection.tracker.diagnostics();
    assert!(counted.requests_lost > 0 && counted.replies_lost > 0, "{counted:?}");
    assert!(connection.commands.len() > 19_800, "{} {counted:?}", connection.commands.len());
    assert_eq!(mispaired(&connection.commands), 0);
}

#[test]
fn held_commands_are_given_out_in_a_pause_by_flush_and_at_the_end() {
    let mut connection = Connection::opened_before();
    connection.send(request("GET a")).send(request("GET b")).receive("$1\r\nx\r\n$-1\r\n");
    assert!(connection.commands.is_empty());
    assert_eq!(connection.tracker.open_commands(), 2);
    let mut flushed = Connection::opened_before();
    flushed.send(request("GET a")).send(request("GET b")).receive("$1\r\nx\r\n");
    flushed.tracker.flush(&mut flushed.commands);
    assert_eq!((flushed.one().response_bytes, flushed.tracker.open_commands()), (7, 1));
    connection.now += 10_000_000;
    connection.send(request("GET c"));
    assert_eq!(connection.commands.iter().map(|command| command.response_bytes).collect::<Vec<_>>(), [7, 5]);
    let mut connection = Connection::opened_before();
    connection.send(request("GET a")).send(request("GET b")).receive("$1\r\nx\r\n");
    let Connection { tracker, commands, .. } = &mut connection;
    tracker.close(5000, commands);
    assert_eq!(commands[0].error, None);
    assert_eq!(commands[1].error, Some(Failure::ConnectionClosed));
}

#[test]
fn replies_switched_off_before_the_agent_came() {
    let mut connection = Connection::opened_before();
    for _ in 0..2000 {
        connection.send(request("SET a 1"));
    }
    let commands = connection.take();
    assert_eq!(commands.len(), 2000);
    assert!(commands.iter().all(|command| command.no_reply && command.end_ns == command.sent_ns));
    connection.send(request("CLIENT REPLY ON")).receive("+OK\r\n").send(request("GET a")).receive("$-1\r\n");
    let commands = connection.take();
    assert!(commands.iter().all(|command| !command.no_reply));
}

/// A request whose reply's length tells whose it is.
fn echo(number: u64) -> (Vec<u8>, Vec<u8>) {
    let text = "x".repeat(number as usize % 97);
    (request(&format!("ECHO {text}")), format!("${}\r\n{text}\r\n", text.len()).into_bytes())
}

proptest! {
    /// What happens to each round's calls: 0 and 1 lose the record, 2 and 3 cut it, others leave it whole.
    #[test]
    fn clients_that_wait_are_never_given_anothers_reply(
        opened_before: bool,
        rounds in prop::collection::vec((1u64..5, 0u8..30, 0u8..30, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut connection = if opened_before { Connection::opened_before() } else { Connection::new() };
        let (mut number, mut total) = (0, 0);
        // What is lost before anything was seen leaves no gap.
        get(&mut connection);
        connection.take();
        let pass = |connection: &mut Connection, direction, bytes: &[u8], fate: u8, at: prop::sample::Index| match fate {
            0 | 1 => {
                connection.now += 10;
                connection.lose(direction, bytes.len() as u64);
            }
            2 | 3 => {
                connection.call(direction, &bytes[..at.index(bytes.len())], bytes.len() as u64);
            }
            _ => {
                connection.call(direction, bytes, bytes.len() as u64);
            }
        };
        for (batch, sent, received, at) in &rounds {
            let (requests, replies): (Vec<_>, Vec<_>) = (number..number + batch).map(echo).unzip();
            (number, total) = (number + batch, total + batch);
            pass(&mut connection, Direction::Sent, &requests.concat(), *sent, *at);
            pass(&mut connection, Direction::Received, &replies.concat(), *received, *at);
        }
        for command in &connection.commands {
            let own = command.request_bytes == command.response_bytes + 14;
            prop_assert!(own, "{:?}", command);
        }
        let counted = connection.tracker.diagnostics();
        let given = connection.commands.len() as u64;
        prop_assert!(given + counted.commands_unpaired + counted.commands_unaligned <= total);
        if rounds.iter().all(|(_, sent, received, _)| *sent > 3 && *received > 3) {
            prop_assert_eq!(given, total);
        }
    }
}

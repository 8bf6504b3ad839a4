//! Bytes that were not captured, and connections that were open before the agent came.

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
    let Connection { tracker, commands, .. } = &mut connection;
    tracker.close(u64::MAX, commands);
    let counted = connection.tracker.diagnostics();
    let given = connection.commands.len() as u64;
    assert!(given > 200, "{given} {counted:?}");
    assert_eq!(given + counted.commands_unpaired + counted.commands_unaligned + counted.commands_overflow, sent);
}

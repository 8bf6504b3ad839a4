//! Subscriptions: one confirmation per channel, then messages.

use super::*;

fn confirmation(marker: char, kind: &str, channel: &str, count: u32) -> String {
    format!("{marker}3\r\n${}\r\n{kind}\r\n${}\r\n{channel}\r\n:{count}\r\n", kind.len(), channel.len())
}

fn message(marker: char) -> String {
    format!("{marker}3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n")
}

fn subscriber(marker: char) {
    let mut connection = Connection::new();
    connection.send(request("SUBSCRIBE a b"));
    connection.receive(confirmation(marker, "subscribe", "a", 1) + &message(marker));
    assert!(connection.commands.is_empty(), "one channel is missing");
    connection.receive(confirmation(marker, "subscribe", "b", 2));
    let subscribe = connection.one();
    assert_eq!((subscribe.first_reply_ns, subscribe.end_ns), (1025, 1035));
    connection.receive(message(marker).repeat(10));
    connection.send(request("PSUBSCRIBE a*")).receive(message(marker) + &confirmation(marker, "psubscribe", "a*", 3));
    connection.receive(
        "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$5\r\nhello\r\n"
            .replace('*', &marker.to_string())
            .replace("a>", "a*"),
    );
    connection.send(request("PING")).receive("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    connection.send(request("UNSUBSCRIBE"));
    connection.receive(confirmation(marker, "unsubscribe", "a", 2) + &confirmation(marker, "unsubscribe", "b", 1));
    connection.send(request("PUNSUBSCRIBE a*")).receive(confirmation(marker, "punsubscribe", "a*", 0));
    connection.send(request("UNSUBSCRIBE")).receive(format!("{marker}3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"));
    connection.send(request("LRANGE l 0 -1")).receive(message('*'));
    connection.send(request("GET a")).receive("$-1\r\n");
    assert_eq!(
        connection.names(),
        ["PSUBSCRIBE", "PING", "UNSUBSCRIBE", "PUNSUBSCRIBE", "UNSUBSCRIBE", "LRANGE", "GET"]
    );
    assert!(connection.commands.iter().all(|command| command.error.is_none()));
    assert_eq!(connection.commands[5].response_bytes, message('*').len() as u64, "an array like a message");
    assert_eq!(connection.tracker.diagnostics(), Diagnostics { push_messages: 13, ..Diagnostics::default() });
}

#[test]
fn resp2() {
    subscriber('*');
}

#[test]
fn resp3() {
    subscriber('>');
}

#[test]
fn shards() {
    let mut connection = Connection::new();
    connection.send(request("SSUBSCRIBE a b"));
    connection.receive(confirmation('>', "ssubscribe", "a", 1) + &confirmation('>', "ssubscribe", "b", 2));
    connection.receive(">3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$5\r\nhello\r\n");
    // The slot moved: nobody asked.
    connection.send(request("GET x")).receive(confirmation('>', "sunsubscribe", "a", 1) + "$-1\r\n");
    connection.send(request("SUNSUBSCRIBE")).receive(confirmation('>', "sunsubscribe", "b", 0));
    assert_eq!(connection.names(), ["SSUBSCRIBE", "GET", "SUNSUBSCRIBE"]);
    assert_eq!(connection.commands[1].response_bytes, 5);
}

#[test]
fn refused() {
    let mut connection = Connection::new();
    connection.send(request("SUBSCRIBE a b")).receive("-NOPERM no\r\n").send(request("GET a")).receive("$-1\r\n");
    let commands = connection.take();
    assert_eq!(commands[0].error.as_ref().unwrap().kind(), "NOPERM");
    assert_eq!(commands.len(), 2);
}

#[test]
fn fewer_confirmations_than_channels() {
    let mut connection = Connection::new();
    connection.send([request("SUBSCRIBE a b"), request("PING")].concat());
    connection.receive(confirmation('*', "subscribe", "a", 1)).receive("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    assert_eq!(connection.names(), ["SUBSCRIBE", "PING"]);
    assert_eq!(connection.commands[0].end_ns, 1025);
}

#[test]
fn closed_while_subscribed() {
    let mut connection = Connection::new();
    connection.send(request("SUBSCRIBE a b")).receive(confirmation('*', "subscribe", "a", 1));
    let Connection { tracker, commands, .. } = &mut connection;
    tracker.close(5000, commands);
    let subscribe = connection.one();
    assert_eq!((subscribe.error, subscribe.end_ns), (None, 1025));
}

#[test]
fn a_subscriber_from_before_the_agent() {
    let mut connection = Connection::opened_before();
    connection.receive(message('*').repeat(5)).send(request("UNSUBSCRIBE")).receive(message('*'));
    connection.receive(confirmation('*', "unsubscribe", "a", 0)).send(request("GET a")).receive("$-1\r\n");
    assert_eq!(connection.names(), ["UNSUBSCRIBE", "GET"]);
}

#[test]
fn the_confirmation_is_recorded_first() {
    let mut connection = Connection::new();
    let reply = confirmation('>', "subscribe", "a", 1);
    let len = reply.len() as u64;
    let received =
        Chunk { direction: Direction::Received, offset: 0, len, data: reply.as_bytes(), start_ns: 5, end_ns: 20 };
    connection.tracker.feed(received, 0, &mut connection.commands);
    let data = request("SUBSCRIBE a");
    let sent =
        Chunk { direction: Direction::Sent, offset: 0, len: data.len() as u64, data: &data, start_ns: 10, end_ns: 30 };
    connection.tracker.feed(sent, 0, &mut connection.commands);
    assert_eq!(connection.one().end_ns, 20);
}

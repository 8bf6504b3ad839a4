//! Requests and replies in all their shapes on the wire.

use super::*;

#[test]
fn a_command_and_its_reply() {
    let command = exchange(&request("SET order:1 secret"), b"+OK\r\n");
    assert_eq!(command.name, "SET");
    assert_eq!(command.query_text.as_deref(), Some("SET ? ?"));
    assert_eq!((command.args, command.request_bytes, command.response_bytes), (2, 38, 5));
    assert_eq!((command.tag, command.start_ns, command.sent_ns), (1010, 1010, 1015));
    assert_eq!((command.first_reply_ns, command.end_ns), (1025, 1025));
    assert_eq!((command.database, command.error, command.quality), (Some(0), None, Quality::Certain));
    assert!(command.pipeline.is_none() && !command.transaction && !command.blocking && !command.no_reply);
    assert_eq!(exchange(&request("get x"), b"$-1\r\n").name, "get", "as sent");
    assert_eq!(span_name(&exchange(&request("CLIENT SETINFO lib-name x"), b"+OK\r\n")), "CLIENT SETINFO");
}

#[test]
fn over_many_calls() {
    let mut connection = Connection::new();
    for byte in request("GET key") {
        connection.send([byte]);
    }
    for byte in b"$5\r\nvalue\r\n" {
        connection.receive([*byte]);
    }
    let command = connection.one();
    assert_eq!((command.start_ns, command.tag), (1010, 1010), "the first byte's call");
    assert_eq!(command.sent_ns, 1000 + 10 * 22 + 5, "the last byte's call");
    assert_eq!(command.first_reply_ns, 1000 + 10 * 23 + 5);
    assert_eq!(command.end_ns, 1000 + 10 * 33 + 5);
    assert_eq!((command.request_bytes, command.response_bytes), (22, 11));
}

#[test]
fn a_pipeline_is_one_span_per_command() {
    let mut connection = Connection::new();
    connection.send([request("GET a"), request("GET b"), request("GET c")].concat());
    connection.receive(b"$1\r\nx\r\n$-1").receive(b"\r\n:1\r\n");
    let commands = connection.take();
    assert_eq!(commands.iter().map(|command| command.end_ns).collect::<Vec<_>>(), [1025, 1035, 1035]);
    assert_eq!(commands[1].first_reply_ns, 1025);
    let batches: Vec<_> = commands.into_iter().map(|command| command.pipeline.unwrap()).collect();
    assert!(batches.iter().all(|batch| (batch.id, batch.size) == (0, 3)));
    assert_eq!(batches.iter().map(|batch| batch.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(batches[0].name(), "PIPELINE GET");

    connection.send([request("GET a"), request("SET b 1")].concat()).receive(b"$-1\r\n+OK\r\n");
    assert_eq!(connection.take()[0].pipeline.as_ref().unwrap().name(), "PIPELINE", "not all alike");
    connection.send(request("GET a")).send(request("GET b")).receive(b"$-1\r\n$-1\r\n");
    assert!(connection.take().iter().all(|command| command.pipeline.is_none()), "two calls");
}

#[test]
fn inline_commands() {
    let mut connection = Connection::new();
    connection.send("PING\r\n").receive("+PONG\r\n");
    connection.send("\r\nset  key \"two words\" \r\n").receive("+OK\r\n");
    connection.send("EXISTS 'a b' c\n").receive(":0\r\n");
    let commands = connection.take();
    let texts: Vec<_> = commands.iter().map(|command| command.query_text.as_deref().unwrap()).collect();
    assert_eq!(texts, ["PING", "set ? ?", "EXISTS ? ?"]);
    connection.send("GET \"unbalanced\r\n");
    assert_eq!(connection.tracker.diagnostics().requests_malformed, 1);
}

#[test]
fn empty_requests_have_no_reply() {
    let mut connection = Connection::new();
    connection.send(b"*0\r\n*-1\r\n\r\n").send(request("PING")).receive("+PONG\r\n");
    let ping = connection.one();
    assert_eq!((ping.start_ns, ping.request_bytes), (1020, 14));
}

#[test]
fn huge_values_are_counted_not_kept() {
    const SIZE: u64 = 100 << 20;
    let mut connection = Connection::new();
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${SIZE}\r\n");
    connection.call(Direction::Sent, head.as_bytes(), head.len() as u64);
    assert_eq!(connection.tracker.skip(Direction::Sent), head.len() as u64 + SIZE);
    connection.call(Direction::Sent, b"xx", SIZE / 2).lose(Direction::Sent, SIZE / 2).send("\r\n").receive("+OK\r\n");
    let set = connection.one();
    assert_eq!((set.request_bytes, set.query_text.as_deref()), (head.len() as u64 + SIZE + 2, Some("SET ? ?")));

    let head = format!("${SIZE}\r\n");
    connection.send(request("GET k")).call(Direction::Received, head.as_bytes(), head.len() as u64 + SIZE / 2);
    assert!(connection.commands.is_empty());
    assert_eq!(connection.tracker.skip(Direction::Received), 5 + head.len() as u64 + SIZE);
    connection.call(Direction::Received, b"", SIZE / 2 + 1).receive("\n");
    let get = connection.one();
    assert_eq!((get.response_bytes, get.end_ns), (head.len() as u64 + SIZE + 2, connection.now + 5));
    assert_eq!(connection.tracker.diagnostics(), Diagnostics::default());
}

#[test]
fn skip_never_goes_back() {
    let mut connection = Connection::new();
    connection.call(Direction::Sent, b"*2\r\n$4\r\nECHO\r\n$5000\r\n", 22 + 5000).send("\r\n");
    let skip = connection.tracker.skip(Direction::Sent);
    connection.receive("$1\r\nx\r\n").send(request("PING"));
    assert!(connection.tracker.skip(Direction::Sent) >= skip);
    assert_eq!(connection.tracker.skip(Direction::Received), 0);
}

#[test]
fn databases_follow_select_when_it_succeeds() {
    let mut connection = Connection::new();
    connection.send([request("SELECT 3"), request("GET a")].concat()).receive("+OK\r\n$-1\r\n");
    connection
        .send([request("SELECT 99"), request("GET a")].concat())
        .receive("-ERR DB index is out of range\r\n$-1\r\n");
    let databases: Vec<_> = connection.take().iter().map(|command| command.database).collect();
    assert_eq!(databases, [Some(0), Some(3), Some(3), Some(3)]);
    connection.send(request("RESET")).receive("+RESET\r\n").send(request("GET a")).receive("$-1\r\n");
    assert_eq!(connection.take()[1].database, Some(0));

    let mut late = Connection::opened_before();
    late.send(request("GET a")).receive("$-1\r\n").send(request("SELECT 2")).receive("+OK\r\n");
    late.send(request("GET a")).receive("$-1\r\n");
    let databases: Vec<_> = late.take().iter().map(|command| command.database).collect();
    assert_eq!(databases, [None, None, Some(2)]);
}

#[test]
fn blocking_commands() {
    for text in [
        "BLPOP q 0",
        "brpop q 0",
        "XREAD COUNT 1 BLOCK 0 STREAMS s $",
        "xreadgroup GROUP g c block 5 STREAMS s >",
        "WAIT 1 0",
        "WAITAOF 1 0 0",
    ] {
        assert!(exchange(&request(text), b"*-1\r\n").blocking, "{text}");
    }
    for text in ["LPOP q", "XREAD STREAMS BLOCK 0", "SET BLOCK BLOCK"] {
        assert!(!exchange(&request(text), b"*-1\r\n").blocking, "{text}");
    }
}

#[test]
fn replies_off_and_skip() {
    let mut connection = Connection::new();
    connection.send(request("CLIENT REPLY OFF")).send([request("SET a 1"), request("SELECT 4")].concat());
    connection.send(request("client reply on")).receive("+OK\r\n");
    connection
        .send([request("CLIENT REPLY SKIP"), request("SET a 1"), request("GET a")].concat())
        .receive("$1\r\n1\r\n");
    let commands = connection.take();
    let silent: Vec<_> = commands.iter().map(|command| command.no_reply).collect();
    assert_eq!(silent, [true, true, true, false, true, true, false]);
    assert_eq!((commands[1].end_ns, commands[1].response_bytes), (commands[1].sent_ns, 0));
    assert_eq!(commands[6].database, Some(4));
    assert_eq!(commands[3].name, "client reply");
}

#[test]
fn silent_commands_wait_for_their_predecessors() {
    let mut connection = Connection::new();
    connection.send([request("GET a"), request("CLIENT REPLY OFF"), request("SET a 1")].concat());
    assert!(connection.commands.is_empty());
    connection.receive("$-1\r\n");
    assert_eq!(connection.names(), ["GET", "CLIENT REPLY", "SET"]);
}

#[test]
fn refused_reply_off_is_noticed() {
    let mut connection = Connection::new();
    connection.send(request("CLIENT REPLY OFF")).receive("-NOAUTH Authentication required.\r\n");
    connection.send(request("GET a")).receive("-NOAUTH Authentication required.\r\n");
    let commands = connection.take();
    assert_eq!(commands[1].error.as_ref().unwrap().kind(), "NOAUTH");
}

#[test]
fn a_reply_may_be_recorded_before_its_command() {
    let mut connection = Connection::new();
    let reply =
        Chunk { direction: Direction::Received, offset: 0, len: 5, data: b"$-1\r\n", start_ns: 120, end_ns: 130 };
    connection.tracker.feed(reply, 0, &mut connection.commands);
    assert!(connection.commands.is_empty());
    let data = request("GET a");
    let sent = Chunk {
        direction: Direction::Sent,
        offset: 0,
        len: data.len() as u64,
        data: &data,
        start_ns: 100,
        end_ns: 140,
    };
    connection.tracker.feed(sent, 0, &mut connection.commands);
    let get = connection.one();
    assert_eq!((get.start_ns, get.end_ns), (100, 130));
    assert_eq!(connection.tracker.diagnostics(), Diagnostics::default());
}

/// Of a send whose beginning was not seen only the end is known, and the reply can be there before that.
#[test]
fn a_send_may_have_begun_before_its_reply_came() {
    let mut connection = Connection::new();
    connection.send(request("GET a")).receive("$-1\r\n");
    connection.take();
    connection.receive("$-1\r\n");
    let data = request("GET b");
    connection.now += 10;
    let (offset, now) = (connection.sent, connection.now);
    let sent =
        Chunk { direction: Direction::Sent, offset, len: data.len() as u64, data: &data, start_ns: now, end_ns: now };
    connection.tracker.feed(sent, 7, &mut connection.commands);
    let get = connection.one();
    assert_eq!((get.tag, get.start_ns, get.first_reply_ns, get.end_ns), (7, 1035, 1035, 1035));
    assert_eq!(connection.tracker.diagnostics(), Diagnostics::default());
}

#[test]
fn a_reply_from_before_the_command_is_a_strangers() {
    let mut connection = Connection::new();
    connection.receive("+OK\r\n").send(request("GET a")).receive("$-1\r\n");
    let get = connection.one();
    assert_eq!((get.response_bytes, get.end_ns), (5, 1035));
    assert_eq!(connection.tracker.diagnostics().replies_unseen, 1);
}

#[test]
fn close_ends_what_waits() {
    let mut connection = Connection::new();
    connection
        .send([request("GET a"), request("BLPOP q 0"), b"*2\r\n$3\r\nGET\r\n".to_vec()].concat())
        .receive("$-1\r\n");
    let Connection { tracker, commands, .. } = &mut connection;
    tracker.close(9000, commands);
    let last = connection.commands.pop().unwrap();
    assert_eq!((last.name.as_ref(), last.end_ns), ("BLPOP", 9000));
    assert_eq!(last.error, Some(Failure::ConnectionClosed));
    assert_eq!(last.error.as_ref().unwrap().message(), "connection closed");
    assert_eq!(connection.tracker.diagnostics().commands_truncated, 1);
    assert_eq!(connection.one().error, None);
}

#[test]
fn the_servers_side() {
    let mut connection = Connection::with(Tracker::new(Role::Server));
    connection.receive(request("GET a")).send("$-1\r\n");
    let get = connection.one();
    assert_eq!((get.tag, get.start_ns, get.sent_ns), (1010, 1010, 1015));
    assert_eq!((get.first_reply_ns, get.end_ns), (1020, 1025), "when it began to write");
}

#[test]
fn a_replica_is_no_client_any_longer() {
    let mut connection = Connection::new();
    connection.send(request("REPLCONF listening-port 1")).receive("+OK\r\n").send(request("PSYNC ? -1"));
    connection.receive("+FULLRESYNC 1 0\r\n$5\r\nREDIS").receive([0; 100]).send(request("REPLCONF ACK 0"));
    assert_eq!(connection.names(), ["REPLCONF", "PSYNC"]);
}

#[test]
fn many_waiting_commands_are_bounded_and_stay_in_order() {
    let mut connection = Connection::new();
    let pings = request("PING").repeat(1 << 10);
    for _ in 0..1 << 10 {
        connection.send(&pings);
    }
    connection.send([request("GET a"), request("GET b")].concat());
    assert_eq!(connection.tracker.diagnostics().commands_overflow, 2);
    let pongs = b"+PONG\r\n".repeat(1 << 10);
    for _ in 0..1 << 10 {
        connection.receive(&pongs);
        connection.commands.clear();
    }
    connection.receive("$-1\r\n$-1\r\n").send(request("GET c")).receive(":3\r\n");
    assert_eq!(connection.one().response_bytes, 4);
}

#[test]
fn replies_without_commands_are_bounded() {
    let mut connection = Connection::new();
    for _ in 0..40 {
        connection.receive(b"+OK\r\n".repeat(1000));
    }
    let counted = connection.tracker.diagnostics();
    assert!(counted.replies_overflow > 30_000);
    connection.send(request("GET a")).receive("$-1\r\n");
    assert_eq!(connection.one().response_bytes, 5);
    assert_eq!(counted.replies_overflow + connection.tracker.diagnostics().replies_unseen, 40_000);
}

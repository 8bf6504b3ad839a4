//! Every RESP type, errors, and what is not a reply.

use super::*;

/// The reply is one, and the next command's reply begins after it.
fn framed(reply: &[u8]) -> Command<u64> {
    let mut connection = Connection::new();
    connection.send(request("FIRST")).receive(reply).send(request("SECOND")).receive("+OK\r\n");
    let commands = connection.take();
    assert_eq!(commands.len(), 2, "{}", String::from_utf8_lossy(reply));
    assert_eq!(commands[0].response_bytes, reply.len() as u64);
    assert_eq!(connection.tracker.diagnostics(), Diagnostics::default());
    commands.into_iter().next().unwrap()
}

#[test]
fn every_type() {
    for reply in [
        "+OK\r\n",
        "+\r\n",
        ":-42\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$4\r\n\r\n\r\n\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",-1.5e10\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n_\r\n",
        "%0\r\n",
        "~3\r\n:1\r\n:2\r\n#f\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*1\r\n:1\r\n",
        "|0\r\n+x\r\n",
        "*3\r\n:1\r\n|1\r\n+ttl\r\n*2\r\n:1\r\n:2\r\n:2\r\n:3\r\n",
        "$?\r\n;4\r\nabcd\r\n;1\r\ne\r\n;0\r\n",
        "$?\r\n;0\r\n",
        "*?\r\n:1\r\n$?\r\n;2\r\nab\r\n;0\r\n*2\r\n:1\r\n:2\r\n.\r\n",
        "%?\r\n+a\r\n:1\r\n.\r\n",
        "|?\r\n+a\r\n:1\r\n.\r\n:7\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*?\r\n.\r\n",
    ] {
        assert_eq!(framed(reply.as_bytes()).error, None, "{reply}");
    }
}

#[test]
fn errors() {
    let error = framed(b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n").error.unwrap();
    assert_eq!(error.kind(), "WRONGTYPE");
    assert_eq!(error.message(), "Operation against a key holding the wrong kind of value");
    let error = framed(b"!21\r\nSYNTAX invalid syntax\r\n").error.unwrap();
    assert_eq!(error.kind(), "SYNTAX");
    let error = framed(b"-ERR unknown command 'AUHT', with args beginning with: 'hunter2'\r\n").error.unwrap();
    assert_eq!((error.kind().as_ref(), error.message()), ("ERR", "unknown command"));
    let long = [b"-ERR ".as_slice(), &[b'x'; 100_000], b"\r\n"].concat();
    assert_eq!(framed(&long).error.unwrap().kind(), "ERR");
}

#[test]
fn errors_inside() {
    let command = framed(b"*3\r\n:1\r\n-WRONGTYPE Operation against\r\n*1\r\n!5\r\nERR x\r\n");
    assert_eq!((command.error, command.inner_errors), (None, 2));
    assert_eq!(command.inner_error.unwrap().prefix, "WRONGTYPE");
}

#[test]
fn not_resp() {
    for reply in [
        "\r\n",
        "x\r\n",
        "$-2\r\n",
        "$x\r\n",
        "*-2\r\n",
        ":\r\n",
        "#x\r\n",
        ".\r\n",
        ";1\r\n",
        "%-1\r\n",
        "$1\r\nabc",
        "$?\r\n:1\r\n",
        "=?\r\n",
    ] {
        let mut connection = Connection::new();
        connection.send(request("GET a")).receive(reply);
        assert_eq!(connection.commands.len(), 0, "{reply:?}");
        let counted = connection.tracker.diagnostics();
        assert_eq!((counted.replies_malformed, counted.commands_unpaired), (1, 1), "{reply:?}");
        connection.send(request("GET b")).receive("$-1\r\n");
        let next = connection.one();
        assert_eq!(next.quality, Quality::Resynced, "{reply:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let mut connection = Connection::new();
    connection.send(request("EVAL x 0")).receive("*1\r\n".repeat(100_000));
    assert_eq!(connection.tracker.diagnostics().replies_malformed, 1);
}

#[test]
fn push_messages_are_not_replies() {
    let mut connection = Connection::new();
    connection.send(request("HELLO 3")).receive("%1\r\n+proto\r\n:3\r\n");
    connection.receive(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
    connection.send(request("GET a"));
    connection.receive(">2\r\n$10\r\ninvalidate\r\n_\r\n$1\r\nx\r\n>2\r\n+future\r\n:1\r\n");
    assert_eq!(connection.names(), ["HELLO", "GET"]);
    assert_eq!(connection.commands[1].response_bytes, 7);
    assert_eq!(connection.tracker.diagnostics().push_messages, 3);
}

#[test]
fn monitor_lines_are_not_replies() {
    let mut connection = Connection::new();
    connection.send(request("MONITOR")).receive("+OK\r\n");
    connection.receive("+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n".repeat(3));
    connection.send(request("PING")).receive("+1339518090.420270 [0 127.0.0.1:60866] \"ping\"\r\n+PONG\r\n");
    assert_eq!(connection.names(), ["MONITOR", "PING"]);
    assert_eq!(connection.tracker.diagnostics().push_messages, 4);
}

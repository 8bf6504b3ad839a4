//! MULTI, EXEC, DISCARD, WATCH.

use super::*;

#[test]
fn queued_then_executed() {
    let mut connection = Connection::new();
    connection.send(request("MULTI")).receive("+OK\r\n");
    connection.send(request("GET a")).receive("+QUEUED\r\n").send(request("GET b")).receive("+QUEUED\r\n");
    connection.send(request("EXEC")).receive("*2\r\n$-1\r\n-WRONGTYPE Operation\r\n");
    connection.send(request("GET c")).receive("$-1\r\n");
    let commands = connection.take();
    let inside: Vec<_> = commands.iter().map(|command| command.transaction).collect();
    assert_eq!(inside, [true, true, true, true, false]);
    let exec = &commands[3];
    let batch = exec.multi.as_ref().unwrap();
    assert_eq!((batch.name().as_str(), batch.size, batch.kind), ("MULTI GET", 2, BatchKind::Multi));
    assert_eq!((exec.error.as_ref(), exec.inner_errors), (None, 1));
    assert_eq!(exec.inner_error.as_ref().unwrap().prefix, "WRONGTYPE");
}

#[test]
fn in_one_call() {
    let mut connection = Connection::new();
    connection.send([request("MULTI"), request("SET a 1"), request("INCR b"), request("EXEC")].concat());
    connection.receive("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:1\r\n");
    let exec = connection.take().pop().unwrap();
    assert_eq!(exec.multi.unwrap().name(), "MULTI");
    assert_eq!(exec.pipeline.unwrap().size, 4);
}

#[test]
fn a_watched_key_changed() {
    for null in ["*-1\r\n", "_\r\n"] {
        let mut connection = Connection::new();
        connection.send(
            [request("WATCH a"), request("MULTI"), request("SELECT 5"), request("EXEC"), request("GET a")].concat(),
        );
        connection.receive(format!("+OK\r\n+OK\r\n+QUEUED\r\n{null}$-1\r\n"));
        let commands = connection.take();
        assert!(commands[3].aborted && commands[3].error.is_none());
        assert_eq!(commands[4].database, Some(0), "SELECT did not run");
    }
}

#[test]
fn select_runs_with_exec() {
    let mut connection = Connection::new();
    connection
        .send([request("MULTI"), request("SELECT 5"), request("GET a"), request("EXEC"), request("GET a")].concat());
    connection.receive("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$-1\r\n$-1\r\n");
    let databases: Vec<_> = connection.take().iter().map(|command| command.database).collect();
    assert_eq!(databases, [Some(0), Some(0), Some(0), Some(0), Some(5)]);
}

#[test]
fn discarded_and_refused() {
    let mut connection = Connection::new();
    connection.send([request("MULTI"), request("GET a"), request("DISCARD"), request("GET a")].concat());
    connection.receive("+OK\r\n+QUEUED\r\n+OK\r\n$-1\r\n");
    assert!(!connection.take()[3].transaction);
    connection.send([request("MULTI"), request("GETT a"), request("EXEC"), request("GET a")].concat());
    connection.receive(
        "+OK\r\n-ERR unknown command 'GETT'\r\n-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n",
    );
    let commands = connection.take();
    assert!(commands[1].transaction && commands[1].error.is_some());
    assert_eq!(commands[2].error.as_ref().unwrap().kind(), "EXECABORT");
    assert!(!commands[3].transaction);
}

#[test]
fn begun_before_the_agent_came() {
    let mut connection = Connection::opened_before();
    connection.send(request("GET a")).receive("+QUEUED\r\n").send(request("EXEC")).receive("*1\r\n$-1\r\n");
    let commands = connection.take();
    assert!(commands[0].transaction);
    assert_eq!(commands[1].multi.as_ref().unwrap().name(), "MULTI GET");
}

#[test]
fn nothing_blocks_or_goes_silent_inside() {
    let mut connection = Connection::new();
    connection.send([request("MULTI"), request("BLPOP q 0"), request("CLIENT REPLY OFF"), request("EXEC")].concat());
    connection.receive("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n*-1\r\n+OK\r\n");
    let commands = connection.take();
    assert_eq!(commands.len(), 4);
    assert!(commands.iter().all(|command| !command.blocking && !command.no_reply));
}

#[test]
fn without_replies() {
    let mut connection = Connection::new();
    connection.send(
        [
            request("CLIENT REPLY OFF"),
            request("MULTI"),
            request("SET a 1"),
            request("SELECT 2"),
            request("EXEC"),
            request("SET a 1"),
        ]
        .concat(),
    );
    let commands = connection.take();
    assert_eq!(commands[4].multi.as_ref().unwrap().size, 2);
    assert_eq!((commands[5].database, commands[5].transaction), (Some(2), false));
}

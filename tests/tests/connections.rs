//! Connections are sockets: whatever descriptors name one, whatever calls use it and whichever processes share it, each command that
//! passes it is one span with the right end. Against a real redis-server.

use std::collections::BTreeMap;

use tracer_tests::{Agent, Outcome, RedisServer, Span, Target, require_root};

/// GETs of each kind.
const COUNT: usize = 120;
/// Ways to name and to share a socket.
const NAMES: [&str; 8] = ["single", "clone", "duplicates", "reused", "forked", "passed", "taken", "executed"];
/// Ways to send and to receive by which all bytes can be seen.
const CALLS: [&str; 6] = ["vectors", "many-vectors", "addressed", "zerocopy", "peeked", "partial"];

/// GETs by the kind in their key.
fn by_kind(spans: &[Span]) -> BTreeMap<&str, Vec<&Span>> {
    let mut kinds: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.name == "GET") {
        let key = span.attribute("db.query.text").strip_prefix("GET ").expect("the key is shown");
        kinds.entry(key.split(':').next().unwrap_or_default()).or_default().push(span);
    }
    kinds
}

/// Lets a target do these things, each once.
fn trace(probe: &str, address: &str, kinds: &[&str]) -> Outcome {
    let mut target = Target::start("connection_target");
    let mut agent = Agent::run(&[
        "-n",
        "connection_target",
        "--socket-probe",
        probe,
        "--redis-server",
        "off",
        "--query-text",
        "full",
    ]);
    for kind in kinds {
        let child = target.ask(&format!("{kind} {address} {COUNT}")).as_u64().expect("a process number");
        if child != 0 {
            agent.wait_until(&format!("(process {child})"));
        }
    }
    assert!(target.end().success());
    agent.stop()
}

/// Fails unless each kind has all its GETs, with the ends that they had, and there is nothing else.
fn assert_whole(outcome: &Outcome, kinds: &[&str]) {
    let found = by_kind(&outcome.spans);
    assert_eq!(found.keys().count(), kinds.len(), "{:?}\n{:#}\n{}", found.keys(), outcome.stats, outcome.said);
    for kind in kinds {
        let spans = found.get(kind).unwrap_or_else(|| panic!("no {kind}: {:#}\n{}", outcome.stats, outcome.said));
        assert_eq!(spans.len(), COUNT, "{kind}: {:#}\n{}", outcome.stats, outcome.said);
        let wrong: Vec<&&Span> = spans
            .iter()
            .filter(|span| {
                span.attributes.contains_key("error.type") || !span.attribute("tracer.redis.pairing").is_empty()
            })
            .collect();
        assert!(wrong.is_empty(), "{kind}: {wrong:#?}");
    }
    let others: Vec<&Span> = outcome.spans.iter().filter(|span| span.name != "GET").collect();
    assert!(others.is_empty(), "files and pipes were taken for connections: {others:#?}");
}

fn assert_counted(server: &RedisServer, kinds: &[&str]) {
    assert_eq!(server.command_calls()["get"], (COUNT * kinds.len()) as u64, "the server's own count");
}

fn median(spans: &[&Span]) -> u64 {
    let mut nanos: Vec<u64> = spans.iter().map(|span| span.nanos()).collect();
    nanos.sort_unstable();
    nanos[nanos.len() / 2]
}

fn every_name(probe: &str) {
    require_root();
    let server = RedisServer::start();
    let outcome = trace(probe, &server.address(), &NAMES);
    outcome.assert_complete();
    assert_counted(&server, &NAMES);
    assert_whole(&outcome, &NAMES);
    let found = by_kind(&outcome.spans);
    let (single, cloned) = (median(&found["single"]), median(&found["clone"]));
    // Two threads that wake each other take longer than one; a reply that is not seen takes until the end of the connection.
    assert!(cloned < 20 * single, "a GET on a clone takes {cloned} ns, and {single} ns on one descriptor");
    let processes =
        |kind: &str| found[kind].iter().map(|span| span.pid).collect::<std::collections::BTreeSet<u32>>().len();
    assert_eq!(processes("forked"), 2, "each span is of the process that asked");
    assert_eq!(processes("passed"), 1);
}

#[test]
fn every_name_of_a_socket_is_the_same_connection() {
    every_name("auto");
}

#[test]
fn every_name_of_a_socket_is_the_same_connection_by_system_calls() {
    every_name("syscalls");
}

#[test]
fn unix_sockets_are_followed_by_every_name() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let server = RedisServer::start();
        let kinds = ["single", "clone", "duplicates", "reused", "forked", "passed", "vectors", "peeked"];
        let outcome = trace(probe, server.socket().to_str().expect("UTF-8"), &kinds);
        outcome.assert_complete();
        assert_counted(&server, &kinds);
        assert_whole(&outcome, &kinds);
    }
}

/// Whichever record comes first.
#[test]
fn a_first_reply_that_is_read_while_its_command_is_still_being_sent() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let server = RedisServer::start();
        let socket = server.socket().to_str().expect("UTF-8").to_owned();
        for address in [server.address(), socket] {
            let outcome = trace(probe, &address, &["early"]);
            outcome.assert_complete();
            assert_whole(&outcome, &["early"]);
        }
    }
}

#[test]
fn every_call_that_sends_or_receives_is_seen() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let server = RedisServer::start();
        let outcome = trace(probe, &server.address(), &CALLS);
        outcome.assert_complete();
        assert_counted(&server, &CALLS);
        assert_whole(&outcome, &CALLS);
    }
}

/// The tracepoints of the socket layer tell of each message.
#[test]
fn several_messages_in_one_call_are_seen() {
    require_root();
    let server = RedisServer::start();
    let outcome = trace("sockets", &server.address(), &["messages"]);
    outcome.assert_complete();
    assert_whole(&outcome, &["messages"]);
}

/// Bytes that cannot be read are a gap of the right length: it is counted, and what follows is understood.
#[test]
fn bytes_that_cannot_be_read_are_a_gap_of_the_right_length() {
    require_root();
    for probe in ["auto", "syscalls"] {
        for kind in ["sendfile", "splice"] {
            let server = RedisServer::start();
            let outcome = trace(probe, &server.address(), &[kind]);
            let unseen: usize =
                (2..COUNT).step_by(3).map(|id| format!("*2\r\n$3\r\nGET\r\n$00\r\n{kind}:{id}\r\n").len()).sum();
            let shorter = (2..COUNT).step_by(3).filter(|id| format!("{kind}:{id}").len() < 10).count();
            assert_eq!(outcome.count("/lost/socket_bytes_unseen"), (unseen - shorter) as u64, "{:#}", outcome.stats);
            assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
            let found = by_kind(&outcome.spans);
            let failed = found[kind].iter().filter(|span| span.attributes.contains_key("error.type")).count();
            assert_eq!(failed, 0, "{:#?}", found[kind]);
            assert_eq!(found[kind].len(), COUNT - COUNT / 3, "those whose bytes were seen: {:#}", outcome.stats);
        }
    }
}

/// Another program uses the connection in between, and is not traced: TCP's numbers tell that something is missing.
#[test]
fn bytes_of_a_stranger_on_the_same_connection_are_a_gap() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let server = RedisServer::start();
        let outcome = trace(probe, &server.address(), &["stranger"]);
        assert_eq!(outcome.count("/lost/socket_bytes_unseen"), 14 + 7, "{:#}\n{}", outcome.stats, outcome.said);
        let found = by_kind(&outcome.spans);
        // The first command after the gap is what tells where commands begin again.
        assert_eq!(outcome.count("/lost/redis_commands_unaligned"), 1, "{:#}", outcome.stats);
        assert_eq!(found["stranger"].len(), COUNT - 1, "{:#}", outcome.stats);
        assert!(found["stranger"].iter().all(|span| !span.attributes.contains_key("error.type")));
    }
}

#[test]
fn commands_without_a_reply_end_with_their_connection() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let server = RedisServer::start();
        for address in [server.address(), server.socket().to_str().expect("UTF-8").to_owned()] {
            let outcome = trace(probe, &address, &["unanswered"]);
            outcome.assert_complete();
            assert_eq!(outcome.spans.len(), COUNT, "{:#}\n{}", outcome.stats, outcome.said);
            for span in &outcome.spans {
                assert_eq!((span.name.as_str(), span.status), ("BLPOP", 2));
                assert!(span.nanos() < 1_000_000_000, "it ended with the connection, not later: {span:?}");
            }
        }
    }
}

/// What passes by io_uring cannot be read. It is counted and said, and nothing is made up.
#[test]
fn io_uring_is_counted_and_said() {
    require_root();
    let server = RedisServer::start();
    let outcome = trace("auto", &server.address(), &["single", "uring"]);
    assert_counted(&server, &["single", "uring"]);
    assert_eq!(outcome.count("/lost/socket_calls_uring"), 2 * COUNT as u64, "{:#}", outcome.stats);
    assert!(outcome.said.contains("io_uring"), "{}", outcome.said);
    assert_eq!(by_kind(&outcome.spans).keys().collect::<Vec<_>>(), [&"single"]);
}

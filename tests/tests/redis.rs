//! Redis spans against a real server: one per command, no more and no less.

use std::collections::BTreeMap;
use std::process::Command;

use tracer_tests::{Agent, Outcome, RedisServer, Span, Target, program, require_root};

/// What the test itself asks the server.
const OWN: [&str; 3] = ["info", "ping", "quit"];

/// Commands by the names that the server counts them under. It does not count what it does not know: Redis before 7.2 has
/// no CLIENT SETINFO, which redis-rs sends.
fn by_command(spans: &[Span]) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    let unknown = |span: &Span| span.name == "CLIENT SETINFO" && span.attribute("db.response.status_code") == "ERR";
    for span in commands(spans).filter(|span| !unknown(span)) {
        *calls.entry(span.name.to_lowercase().replace(' ', "|")).or_default() += 1;
    }
    calls
}

/// The clients' side: the server's spans are below it.
fn commands(spans: &[Span]) -> impl Iterator<Item = &Span> {
    const CLIENT: u64 = 3;
    spans.iter().filter(|span| span.kind == CLIENT && span.attribute("db.system.name") == "redis")
}

/// Fails unless the spans are exactly the calls that the server counted since `before`.
fn assert_same(server: &RedisServer, before: &BTreeMap<String, u64>, outcome: &Outcome) {
    outcome.assert_complete();
    let mut counted = server.command_calls();
    for (name, calls) in before {
        *counted.get_mut(name).expect("counters stay") -= calls;
    }
    counted.retain(|name, calls| *calls > 0 && !OWN.contains(&name.as_str()));
    let mut seen = by_command(&outcome.spans);
    seen.retain(|name, _| !OWN.contains(&name.as_str()));
    assert_eq!(seen, counted, "{:#}", outcome.stats);
}

fn named<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a Span> {
    commands(&outcome.spans).filter(|span| span.name == name).collect()
}

#[test]
fn a_hundred_thousand_commands_of_redis_rs_are_as_many_spans() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let before = server.command_calls();
    let mut asked = 0;
    for (how, count) in
        [("sync", 20_000), ("resp3", 10_000), ("pipelines", 30_000), ("transactions", 2_500), ("multiplexed", 30_000)]
    {
        asked += target.ask(&format!("{how} {} {count}", server.address())).as_u64().expect("a number");
    }
    assert_eq!(asked, 100_000);
    assert!(target.end().success());
    assert_same(&server, &before, &agent.stop());
}

#[test]
fn redis_benchmark_with_pipelines_is_traced_whole() {
    require_root();
    let server = RedisServer::start();
    let before = server.command_calls();
    let port = server.port().to_string();
    let outcome = Agent::start(&[
        "--",
        "redis-benchmark",
        "-p",
        &port,
        "-P",
        "16",
        "-n",
        "20000",
        "-c",
        "20",
        "-t",
        "set,get,lpush,mset",
        "-q",
    ])
    .wait();
    assert_same(&server, &before, &outcome);
    assert_eq!(named(&outcome, "GET").len(), 20_000);
}

#[test]
fn redis_cli_is_traced_whole() {
    require_root();
    let server = RedisServer::start();
    let before = server.command_calls();
    let port = server.port().to_string();
    let outcome = Agent::start(&["--", "redis-cli", "-p", &port, "-r", "50", "SET", "key", "secret-value"]).wait();
    assert_same(&server, &before, &outcome);
    let spans = named(&outcome, "SET");
    assert_eq!(spans.len(), 50);
    let span = spans[0];
    assert_eq!(span.kind, 3, "CLIENT");
    assert_eq!(span.attribute("db.query.text"), "SET ? ?");
    assert_eq!(span.attribute("server.address"), "127.0.0.1");
    assert_eq!(span.attribute("server.port"), port);
    assert_eq!(span.attribute("db.namespace"), "0");
    let everything = format!("{:?}{}", outcome.spans, outcome.said);
    assert!(!everything.contains("secret-value"), "values stay in the agent");
}

#[test]
fn credentials_are_never_shown() {
    require_root();
    let server = RedisServer::start();
    server.ask("CONFIG SET requirepass hunter2");
    let port = server.port().to_string();
    let outcome =
        Agent::start(&["--query-text", "full", "--", "redis-cli", "-p", &port, "-a", "hunter2", "SET", "k", "shown"])
            .wait();
    outcome.assert_complete();
    assert_eq!(named(&outcome, "SET")[0].attribute("db.query.text"), "SET k shown");
    let spans = format!("{:?}", outcome.spans);
    assert!(!spans.contains("hunter2"), "{spans}");
}

#[test]
fn errors_databases_and_blocking_commands_say_so() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let before = server.command_calls();
    let address = server.address();
    for command in ["errors", "blocking", "pubsub"] {
        target.ask(&format!("{command} {address} 20"));
    }
    target.ask(&format!("database {address} 3"));
    assert!(target.end().success());
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
    let failed = named(&outcome, "LPUSH");
    assert_eq!(failed.len(), 20);
    for span in failed {
        assert_eq!((span.status, span.attribute("db.response.status_code")), (2, "WRONGTYPE"));
        assert_eq!(span.attribute("error.type"), "WRONGTYPE");
    }
    for span in named(&outcome, "BLPOP") {
        assert!(span.nanos() >= 10_000_000, "it waits in the server for 10 ms: {} ns", span.nanos());
    }
    let sets: Vec<&str> = named(&outcome, "SET").iter().map(|span| span.attribute("db.namespace")).collect();
    assert!(sets.contains(&"3") && sets.contains(&"0"), "{sets:?}");
}

#[test]
fn a_value_of_100_mb_passes_and_the_agent_keeps_none_of_it() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let before = server.command_calls();
    target.ask(&format!("large {} 104857600", server.address()));
    target.ask(&format!("sync {} 100", server.address()));
    let peak = agent.memory_kb("VmHWM");
    assert!(target.end().success());
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
    // 64 MiB of it are the ring buffer, which is mapped twice.
    assert!(peak < 128 * 1024, "the agent needed {peak} kB");
    let span = named(&outcome, "GET")[0];
    assert!(span.attribute("tracer.redis.response.size").parse::<u64>().is_ok_and(|size| size > 104_857_600));
}

#[test]
fn a_connection_that_was_open_before_is_followed() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let address = server.address();
    target.ask(&format!("open {address} 0"));
    target.ask(&format!("kept {address} 7"));
    let before = server.command_calls();
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("kept {address} 1000"));
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
}

#[test]
fn what_follows_a_decode_is_in_its_trace() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("flow {} 1000", server.address()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let processes: Vec<&Span> = outcome.spans.iter().filter(|span| span.name.starts_with("process ")).collect();
    assert_eq!(processes.len(), 1000);
    let mut children: BTreeMap<(&str, &str), Vec<&Span>> = BTreeMap::new();
    for span in &outcome.spans {
        children.entry((&span.trace, &span.parent)).or_default().push(span);
    }
    for process in processes {
        let of = &children[&(process.trace.as_str(), process.id.as_str())];
        let names: Vec<&str> = of.iter().map(|span| span.name.split(' ').next().unwrap_or_default()).collect();
        assert!(names.contains(&"decode") && names.contains(&"GET") && names.contains(&"encode"), "{names:?}");
    }
}

#[test]
fn restarts_and_late_starters_are_traced_from_their_first_command() {
    require_root();
    let server = RedisServer::start();
    let mut first = Target::start("redis_target");
    let agent = Agent::run(&["-n", "redis_target"]);
    let before = server.command_calls();
    first.ask(&format!("sync {} 100", server.address()));
    assert!(first.end().success());
    for _ in 0..3 {
        let mut next = Target::spawn(&mut Command::new(program("redis_target")));
        next.ask(&format!("sync {} 100", server.address()));
        assert!(next.end().success());
    }
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
    let pids: std::collections::BTreeSet<u32> = commands(&outcome.spans).map(|span| span.pid).collect();
    assert_eq!(pids.len(), 4, "one resource per process");
}

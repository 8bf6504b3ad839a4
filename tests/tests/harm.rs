//! What befalls the agent does not befall its targets: it is stopped, killed and runs out of memory while they work.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use tracer_tests::service::Service;
use tracer_tests::{Agent, RedisServer, Target, program, require_root, wait_for};

/// At the 99th percentile a round of a target may take so many times as long as without an agent, and what other work of the
/// machine took. A target that waited for its agent would take seconds.
const TIMES: u64 = 5;
const SLACK_NS: u64 = 10_000_000;

struct Worker {
    target: Target,
    server: RedisServer,
    _program: Service,
}

impl Worker {
    fn start(name: &str) -> Self {
        require_root();
        let program = Service::process_target(name);
        Self { target: program.start(), server: RedisServer::start(), _program: program }
    }

    /// Works for so long, and returns the 99th percentile of a round in nanoseconds.
    fn p99(&mut self, what: &str, seconds: u64) -> u64 {
        let figures = self.timed(seconds);
        println!("{what}: {figures}");
        figures["p99_ns"].as_u64().expect("a number")
    }

    fn timed(&mut self, seconds: u64) -> Value {
        self.target.ask(&format!("timed {} {seconds}", self.server.address()))
    }
}

fn assert_unharmed(p99: u64, alone: u64) {
    assert!(p99 <= TIMES * alone + SLACK_NS, "{p99} ns, and {alone} ns without an agent");
}

#[test]
fn a_stopped_agent_does_not_stop_its_target() {
    let mut worker = Worker::start("of_a_stopped_agent");
    let alone = worker.p99("without an agent", 2);
    let agent = Agent::run(&["-n", "of_a_stopped_agent", "--ring-size", "65536", "--redis-server", "off"]);
    let traced = worker.p99("traced", 2);
    agent.stop_for_a_while();
    // The ring is full after some milliseconds.
    let stopped = worker.p99("while the agent is stopped", 10);
    agent.go_on();
    let after = worker.p99("after that", 2);
    let outcome = agent.stop();
    assert_eq!(outcome.stats["balanced"], true, "{:#}\n{}", outcome.stats, outcome.said);
    assert!(outcome.stats["lost"]["sockets_ring_full"].as_u64() > Some(0), "{:#}", outcome.stats);
    for p99 in [traced, stopped, after] {
        assert_unharmed(p99, alone);
    }
}

#[test]
fn a_killed_agent_leaves_its_target_as_it_was() {
    let mut worker = Worker::start("of_a_killed_agent");
    let alone = worker.p99("without an agent", 2);
    let agent = Agent::run(&["-n", "of_a_killed_agent", "--redis-server", "off"]);
    worker.target.send(&format!("timed {} 2", worker.server.address()));
    agent.kill();
    let killed = worker.target.answer();
    println!("killed meanwhile: {killed}");
    assert_unharmed(killed["p99_ns"].as_u64().expect("a number"), alone);
    let after = worker.p99("after that", 2);
    assert_unharmed(after, alone);
}

/// Spans pile up because the collector takes none, and the agent's memory has an end.
#[test]
fn an_agent_without_memory_ends_alone() {
    let mut worker = Worker::start("of_a_big_agent");
    let alone = worker.p99("without an agent", 2);
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback works");
    let collector = format!("otlp:http://{}", silent.local_addr().expect("it is bound"));
    let mut command = Command::new(program("tracer"));
    // Its allocator takes address space by the gigabyte, long before it uses it: here by pieces that a limit can refuse.
    command.env("MIMALLOC_ARENA_RESERVE", "32MiB");
    let arguments = ["-n", "of_a_big_agent", "--export", &collector, "--max-queue-size", "100000000"];
    let mut agent = Agent::run_by(command, &[&arguments[..], &["--redis-server", "off"]].concat());
    agent.limit_memory(16 << 20);
    let ended = wait_for("the agent to run out of memory", || {
        let meanwhile = worker.p99("while memory runs out", 1);
        agent.has_ended().then_some(meanwhile)
    });
    assert_unharmed(ended, alone);
    let after = worker.p99("after that", 2);
    assert_unharmed(after, alone);
}

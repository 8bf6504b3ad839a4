//! Too much of everything, on purpose: what is lost has a named cause and is counted to the event, and the state of the agent is right
//! afterwards. The maps of the eBPF programs have a file of their own.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tracer_tests::service::Service;
use tracer_tests::{Agent, Outcome, RedisServer, require_root, wait_for};

#[test]
fn with_a_small_ring_each_message_is_a_span_or_counted_as_lost() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("small_ring");
    let mut target = program.start();
    let agent = Agent::run(&["-n", program.name(), "--ring-size", "65536", "--redis-server", "off"]);
    // The agent does not get to empty the ring while it is stopped.
    agent.stop_for_a_while();
    let rounds = 5_000;
    target.ask(&format!("work {} {rounds}", server.address()));
    agent.go_on();
    target.ask(&format!("work {} {rounds}", server.address()));
    let outcome = agent.stop();
    outcome.assert_balanced();
    let made = outcome.spans_of(target.pid(), "encode") + outcome.spans_of(target.pid(), "decode");
    assert!(outcome.lost("messages_ring_full") > 0, "the ring was not full: {:#}", outcome.stats);
    assert_eq!(made + outcome.lost("messages_ring_full"), 4 * rounds, "{:#}", outcome.stats);
    assert!(outcome.lost("sockets_ring_full") > 0, "{:#}", outcome.stats);
    assert!(outcome.said.contains("losing messages_ring_full"), "it is said while it happens: {}", outcome.said);
    assert_eq!(outcome.lost("lifecycle_ring_full"), 0, "processes have a ring of their own");
}

/// The ring of processes is one page: most of what happens to them while the agent is stopped is lost.
#[test]
fn after_a_loss_of_records_of_processes_the_state_is_right_again() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("lost_lives");
    let mut ends = program.start();
    let mut stays = program.start();
    let mut agent = Agent::run_with_maps("LIFECYCLE=4096", &["-n", program.name(), "--redis-server", "off"]);
    agent.stop_for_a_while();
    // 73 records fit, and each of these makes one.
    stays.ask("spawned 200");
    let ended = ends.pid();
    ends.ask(&format!("work {} 10", server.address()));
    assert!(ends.end().success());
    let mut begins = program.start();
    agent.go_on();
    agent.wait_until("records of processes that start or end were lost");
    agent.wait_until(&format!("tracing {} (process {})", program.name(), begins.pid()));
    for target in [&mut stays, &mut begins] {
        target.ask(&format!("work {} 50", server.address()));
    }
    let outcome = agent.stop();
    outcome.assert_balanced();
    assert!(outcome.lost("lifecycle_ring_full") > 0, "{:#}", outcome.stats);
    assert!(outcome.said.contains(&format!("process {ended} has ended")), "{}", outcome.said);
    for target in [&stays, &begins] {
        for name in ["encode", "GET", "decode"] {
            assert_eq!(outcome.spans_of(target.pid(), name), 50, "{name}: {}", outcome.said);
        }
    }
}

/// The exporter's disk is full: spans are dropped by that name, and the rest goes on.
#[test]
fn a_full_disk_is_a_cause_of_its_own() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("full_disk");
    let mut target = program.start();
    let disk = SmallDisk::mount();
    let file = format!("file:{}", disk.path().join("spans").display());
    let agent = Agent::run(&["-n", program.name(), "--export", &file, "--redis-server", "off"]);
    target.ask(&format!("work {} 2000", server.address()));
    let outcome = agent.stop();
    assert_eq!(outcome.stats["balanced"], true, "{:#}\n{}", outcome.stats, outcome.said);
    let exporters = outcome.stats["exporters"].as_array().expect("a list");
    let find = |on_the_disk: bool| -> &Value {
        exporters.iter().find(|exporter| (exporter["name"] == file.as_str()) == on_the_disk).expect("two exporters")
    };
    let dropped: u64 = find(true)["dropped"].as_object().expect("causes").values().filter_map(Value::as_u64).sum();
    assert!(dropped > 0, "{:#}", outcome.stats);
    assert_eq!(find(false)["dropped"], serde_json::json!({}), "the other exporter has a disk of its own");
    assert_eq!(outcome.spans_of(target.pid(), "encode"), 2000);
}

/// A collector that takes nothing, and room for a few spans.
#[test]
fn a_full_queue_is_a_cause_of_its_own() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("full_queue");
    let mut target = program.start();
    // It accepts connections, by the kernel's backlog, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback works");
    let collector = format!("otlp:http://{}", silent.local_addr().expect("it is bound"));
    let mut agent =
        Agent::run(&["-n", program.name(), "--export", &collector, "--max-queue-size", "100", "--redis-server", "off"]);
    target.ask(&format!("work {} 2000", server.address()));
    agent.wait_until("losing queue_full");
    let outcome = agent.stop();
    assert_eq!(outcome.stats["balanced"], true, "{:#}\n{}", outcome.stats, outcome.said);
    let exporters = outcome.stats["exporters"].as_array().expect("a list");
    let full: u64 = exporters.iter().filter_map(|exporter| exporter["dropped"]["queue_full"].as_u64()).sum();
    assert!(full > 0, "{:#}", outcome.stats);
}

/// GETs of which no reply is ever read: all wait. Returns what the agent made of them, and its memory at its highest, in KiB; before
/// that, waits until the agent has said something.
fn unanswered(gets: u64, budget: &str, says: Option<&str>) -> (Outcome, i64) {
    let server = RedisServer::start();
    let program = Service::process_target("unanswered");
    let mut target = program.start();
    let flags = ["-n", program.name(), "--memory-budget", budget, "--redis-server", "off"];
    let mut agent = Agent::run(&flags);
    target.ask(&format!("unanswered {} {gets}", server.address()));
    if let Some(text) = says {
        agent.wait_until(text);
    }
    let outcome = agent.stop();
    outcome.assert_balanced();
    (outcome, largest_child_kb())
}

#[test]
fn the_memory_budget_holds_and_what_it_costs_is_counted() {
    require_root();
    let gets = 400_000;
    let (outcome, limited) = unanswered(gets, "16777216", Some("losing state_evicted"));
    let fates = [
        outcome.count("/agent/commands"),
        outcome.count("/agent/commands_open"),
        outcome.lost("redis_commands_unpaired"),
        outcome.lost("redis_commands_unaligned"),
        outcome.lost("redis_commands_truncated"),
    ];
    assert_eq!(fates.iter().sum::<u64>(), gets, "{fates:?} {:#}", outcome.stats);
    assert!(outcome.count("/agent/connections_evicted") > 0, "{:#}", outcome.stats);
    let (outcome, unlimited) = unanswered(gets, "1000000000", None);
    assert_eq!(outcome.lost("state_evicted"), 0, "{:#}", outcome.stats);
    println!("{limited} KiB within the budget, {unlimited} KiB without one");
    // Each of them takes some 300 bytes while it waits.
    assert!(limited + 64 * 1024 < unlimited, "{limited} KiB within the budget, {unlimited} KiB without one");
}

/// The most memory that a child of the test has had, of those that have ended.
fn largest_child_kb() -> i64 {
    // SAFETY: all zeroes are a value of this struct of integers, and the call writes no more than it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage.ru_maxrss
    }
}

/// A file system of 64 KiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path());
        assert!(mount.status().expect("mount is there").success());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = || Command::new("umount").arg(self.path()).status().is_ok_and(|status| status.success());
        wait_for("the end of its last user", || unmounted().then_some(()));
    }
}

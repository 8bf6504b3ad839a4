//! Too much of everything, on purpose: what is lost has a named cause and is counted to the event, and the state of the agent is right
//! afterwards.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tracer_tests::service::Service;
use tracer_tests::{Agent, Outcome, RedisServer, Target, program, require_root, wait_for};

fn with_maps(sizes: &str, arguments: &[&str]) -> Agent {
    let mut command = Command::new(program("tracer"));
    command.env("TRACER_MAP_SIZES", sizes);
    Agent::run_by(command, arguments)
}

fn lost(outcome: &Outcome, cause: &str) -> u64 {
    outcome.stats["lost"][cause].as_u64().unwrap_or(0)
}

/// Spans of a process of one kind.
fn spans(outcome: &Outcome, pid: u32, name: &str) -> u64 {
    let is_it = |span: &str| span == name || span.starts_with(&format!("{name} "));
    outcome.spans.iter().filter(|span| span.pid == pid && is_it(&span.name)).count() as u64
}

fn assert_balanced(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(outcome.stats["balanced"], true, "{:#}\n{}", outcome.stats, outcome.said);
}

/// Causes that have a number above zero.
fn causes(outcome: &Outcome) -> Vec<&str> {
    outcome.stats["lost"].as_object().expect("an object").keys().map(String::as_str).collect()
}

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
    assert_balanced(&outcome);
    let made = spans(&outcome, target.pid(), "encode") + spans(&outcome, target.pid(), "decode");
    assert!(lost(&outcome, "messages_ring_full") > 0, "the ring was not full: {:#}", outcome.stats);
    assert_eq!(made + lost(&outcome, "messages_ring_full"), 4 * rounds, "{:#}", outcome.stats);
    assert!(lost(&outcome, "sockets_ring_full") > 0, "{:#}", outcome.stats);
    assert!(outcome.said.contains("losing messages_ring_full"), "it is said while it happens: {}", outcome.said);
    assert_eq!(lost(&outcome, "lifecycle_ring_full"), 0, "processes have a ring of their own");
}

/// The ring of processes is one page: most of what happens to them while the agent is stopped is lost.
#[test]
fn after_a_loss_of_records_of_processes_the_state_is_right_again() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("lost_lives");
    let mut ends = program.start();
    let mut stays = program.start();
    let mut agent = with_maps("LIFECYCLE=4096", &["-n", program.name(), "--redis-server", "off"]);
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
    assert_balanced(&outcome);
    assert!(lost(&outcome, "lifecycle_ring_full") > 0, "{:#}", outcome.stats);
    assert!(outcome.said.contains(&format!("process {ended} has ended")), "{}", outcome.said);
    for target in [&stays, &begins] {
        for name in ["encode", "GET", "decode"] {
            assert_eq!(spans(&outcome, target.pid(), name), 50, "{name}: {}", outcome.said);
        }
    }
}

#[test]
fn more_targets_than_the_map_holds_are_counted_and_said() {
    require_root();
    let program = Service::process_target("many_targets");
    let targets: Vec<Target> = (0..4).map(|_| program.start()).collect();
    let agent = with_maps("TARGETS=2", &["-n", program.name()]);
    let outcome = agent.stop();
    drop(targets);
    assert_balanced(&outcome);
    assert_eq!(causes(&outcome), ["targets_map_full"], "{:#}", outcome.stats);
    assert_eq!(lost(&outcome, "targets_map_full"), 2);
    assert!(outcome.said.contains("targets_map_full"), "{}", outcome.said);
}

/// Children of targets become some in the kernel, before the agent hears of them.
#[test]
fn children_for_which_the_map_of_targets_has_no_room_are_counted() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("many_children");
    let mut target = program.start();
    let agent = with_maps("TARGETS=1", &["-n", program.name(), "--redis-server", "off"]);
    target.ask(&format!("fork {} 10", server.address()));
    let outcome = agent.stop();
    assert_balanced(&outcome);
    assert!(lost(&outcome, "targets_map_full") > 0, "{:#}", outcome.stats);
}

#[test]
fn threads_for_whose_calls_the_maps_have_no_room_are_counted() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("many_threads");
    let mut target = program.start();
    let agent = with_maps("CALLS=1,SOCKET_CALLS=1", &["-n", program.name(), "--redis-server", "off"]);
    // The thread that works first has the only place for as long as it lives.
    target.ask(&format!("work {} 10", server.address()));
    target.ask(&format!("threads {} 10 4", server.address()));
    let outcome = agent.stop();
    assert_balanced(&outcome);
    let messages = spans(&outcome, target.pid(), "encode") + spans(&outcome, target.pid(), "decode");
    // What is inside of another call is known as such only where that is followed; `encode_to_vec` calls `encode`.
    let calls = messages + outcome.count("/kernel/messages_nested") + lost(&outcome, "messages_map_full");
    assert_eq!(calls, 3 * (10 + 4 * 10), "{:#}", outcome.stats);
    assert!(lost(&outcome, "messages_map_full") >= 3 * 3 * 10, "{:#}", outcome.stats);
    assert!(lost(&outcome, "socket_calls_map_full") > 0, "{:#}", outcome.stats);
}

#[test]
fn connections_for_which_the_map_has_no_room_are_counted() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("many_connections");
    let mut target = program.start();
    let agent = with_maps("CONNECTIONS=2", &["-n", program.name(), "--redis-server", "off"]);
    target.ask(&format!("threads {} 10 8", server.address()));
    let outcome = agent.stop();
    assert_balanced(&outcome);
    assert!(lost(&outcome, "connections_map_full") > 0, "{:#}", outcome.stats);
    assert_eq!(spans(&outcome, target.pid(), "encode"), 80, "messages need no connection: {:#}", outcome.stats);
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
    assert_eq!(spans(&outcome, target.pid(), "encode"), 2000);
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

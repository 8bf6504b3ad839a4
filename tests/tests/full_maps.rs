//! Each map of the eBPF programs full, on purpose: what is lost has a named cause, is said, and is counted to the event.

use tracer_tests::redis::ping;
use tracer_tests::service::Service;
use tracer_tests::{Agent, Outcome, RedisServer, Target, require_root};

/// Causes that have a number above zero.
fn causes(outcome: &Outcome) -> Vec<&str> {
    outcome.stats["lost"].as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Fails unless nothing but this was lost, so often, and it was said.
fn assert_lost_only(outcome: &Outcome, cause: &str, times: u64) {
    outcome.assert_balanced();
    assert_eq!(causes(outcome), [cause], "{:#}", outcome.stats);
    assert_eq!(outcome.lost(cause), times, "{:#}", outcome.stats);
    assert_said(outcome, cause);
}

/// It is said when it begins, or at the end of a session that is shorter than that.
fn assert_said(outcome: &Outcome, cause: &str) {
    let said = [format!("losing {cause} "), format!("lost: {cause} ")];
    assert!(said.iter().any(|text| outcome.said.contains(text)), "{}", outcome.said);
}

#[test]
fn more_targets_than_the_map_holds_are_counted_and_said() {
    require_root();
    let program = Service::process_target("many_targets");
    let targets: Vec<Target> = (0..4).map(|_| program.start()).collect();
    let agent = Agent::run_with_maps("TARGETS=2", &["-n", program.name()]);
    let outcome = agent.stop();
    drop(targets);
    assert_lost_only(&outcome, "targets_map_full", 2);
}

/// A child of a target becomes one in the kernel, before the agent hears of it; then the agent has no room for it either.
#[test]
fn children_for_which_the_map_of_targets_has_no_room_are_counted() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("many_children");
    let mut target = program.start();
    let agent = Agent::run_with_maps("TARGETS=1", &["-n", program.name(), "--redis-server", "off"]);
    // When the agent goes on, the child has ended.
    agent.stop_for_a_while();
    target.ask(&format!("fork {} 10", server.address()));
    agent.go_on();
    assert_lost_only(&agent.stop(), "targets_map_full", 1);
}

/// The first of its processes is traced all the same, and so is each later one once the agent has seen it.
#[test]
fn executables_for_which_there_is_no_room_are_traced_a_moment_later() {
    require_root();
    let server = RedisServer::start();
    let programs = [Service::process_target("executable_one"), Service::process_target("executable_two")];
    let mut targets: Vec<Target> = programs.iter().map(Service::start).collect();
    let [one, two] = programs.each_ref().map(Service::name);
    let mut agent = Agent::run_with_maps("EXECUTABLES=1", &["-n", one, "-n", two, "--redis-server", "off"]);
    for program in &programs {
        let target = program.start();
        agent.wait_until(&format!("tracing {} (process {})", program.name(), target.pid()));
        targets.push(target);
    }
    for target in &mut targets {
        target.ask(&format!("work {} 10", server.address()));
    }
    let outcome = agent.stop();
    // Each of the two processes of one of them asked for it, and again if it has loaded libraries since.
    outcome.assert_balanced();
    assert_eq!(causes(&outcome), ["executables_map_full"], "{:#}", outcome.stats);
    assert!((2..=4).contains(&outcome.lost("executables_map_full")), "{:#}", outcome.stats);
    assert_said(&outcome, "executables_map_full");
    assert!(outcome.said.contains("will be traced a moment later"), "{}", outcome.said);
    for target in &targets {
        for name in ["encode", "GET", "decode"] {
            assert_eq!(outcome.spans_of(target.pid(), name), 10, "{name}: {}", outcome.said);
        }
    }
}

#[test]
fn functions_for_which_there_is_no_number_are_missing_and_counted_by_their_sites() {
    require_root();
    let program = Service::process_target("many_functions");
    let mut target = program.start();
    // `N prost functions, M probe sites` of what is attached to.
    let attached = |outcome: &Outcome| -> (u64, u64) {
        let line = outcome.said.lines().find(|line| line.contains("prost functions,")).expect("it is said");
        let words: Vec<&str> = line.split(' ').collect();
        let before = |word: &str| {
            let index = words.iter().position(|other| *other == word).expect("a number of them");
            words[index - 1].parse().expect("a number")
        };
        (before("prost"), before("probe"))
    };
    let all = Agent::run(&["-n", program.name(), "--redis-server", "off"]).stop();
    all.assert_complete();
    let agent = Agent::run_with_maps("PROBES=2", &["-n", program.name(), "--redis-server", "off"]);
    let server = RedisServer::start();
    target.ask(&format!("work {} 10", server.address()));
    let outcome = agent.stop();
    let ((functions, sites), (limited, limited_sites)) = (attached(&all), attached(&outcome));
    assert!(functions > 2 && limited == 2, "{functions} {limited}");
    assert_lost_only(&outcome, "probe_sites_missing", sites - limited_sites);
    assert!(outcome.said.contains("2 functions are probed already"), "{}", outcome.said);
    assert_eq!(outcome.spans_of(target.pid(), "GET"), 10, "sockets need no function");
}

/// What a session with such maps has seen of threads that each do some rounds on a connection of their own.
fn rounds_in_threads(name: &str, sizes: &str) -> Outcome {
    let server = RedisServer::start();
    let program = Service::process_target(name);
    let mut target = program.start();
    let agent = Agent::run_with_maps(sizes, &["-n", program.name(), "--redis-server", "off"]);
    // The thread that works first has its place for as long as it lives.
    target.ask(&format!("work {} 10", server.address()));
    target.ask(&format!("threads {} 10 4", server.address()));
    let outcome = agent.stop();
    outcome.assert_balanced();
    outcome
}

#[test]
fn threads_for_whose_calls_the_maps_have_no_room_are_counted() {
    require_root();
    let all = rounds_in_threads("all_threads", "");
    all.assert_complete();
    let outcome = rounds_in_threads("many_threads", "CALLS=1,SOCKET_CALLS=1");
    let of = |name| outcome.spans.iter().filter(|span| span.name.starts_with(name)).count() as u64;
    // What is inside of another call is known as such only where that is followed; `encode_to_vec` calls `encode`.
    let calls =
        of("encode") + of("decode") + outcome.count("/kernel/messages_nested") + outcome.lost("messages_map_full");
    assert_eq!(calls, 3 * (10 + 4 * 10), "{:#}", outcome.stats);
    assert_eq!(outcome.lost("messages_map_full"), 3 * 4 * 10, "{:#}", outcome.stats);
    let lost = outcome.lost("socket_calls_map_full");
    assert_eq!(outcome.count("/kernel/sockets") + lost, all.count("/kernel/sockets"), "{:#}", outcome.stats);
    // Each of their rounds is one call that sends and one that receives.
    assert!(lost >= 2 * 4 * 10, "{:#}", outcome.stats);
    assert_said(&outcome, "messages_map_full");
    assert_said(&outcome, "socket_calls_map_full");
}

/// Each call that sends has one that receives the answer.
#[test]
fn connections_for_which_the_map_has_no_room_are_counted_by_what_they_send() {
    require_root();
    let all = rounds_in_threads("all_connections", "");
    all.assert_complete();
    let outcome = rounds_in_threads("many_connections", "CONNECTIONS=1");
    let lost = outcome.lost("connections_map_full");
    assert!(lost > 0, "{:#}", outcome.stats);
    assert_eq!(outcome.count("/kernel/sockets") + 2 * lost, all.count("/kernel/sockets"), "{:#}", outcome.stats);
    assert_said(&outcome, "connections_map_full");
    let encodes = outcome.spans.iter().filter(|span| span.name.starts_with("encode")).count();
    assert_eq!(encodes, 50, "messages need no connection: {:#}", outcome.stats);
}

/// The programs do not hear which bytes they may leave out, and go on to copy them all: no command is lost.
#[test]
fn connections_about_which_there_is_no_room_for_advice_are_counted_and_followed_all_the_same() {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("much_advice");
    let mut target = program.start();
    let agent = Agent::run_with_maps("ADVICE=2", &["-n", program.name(), "--redis-server", "off"]);
    // The agent hears of all connections at once: it has something to say of each before it knows of their ends.
    agent.stop_for_a_while();
    target.ask(&format!("threads {} 10 8", server.address()));
    agent.go_on();
    let outcome = agent.stop();
    assert_lost_only(&outcome, "advice_map_full", 8 - 2);
    for name in ["encode", "GET", "decode"] {
        assert_eq!(outcome.spans_of(target.pid(), name), 80, "{name}: {:#}", outcome.stats);
    }
}

/// Servers that start while the agent is late have their first calls in a map.
#[test]
fn servers_for_which_there_is_no_room_are_counted_by_their_reads_and_writes() {
    require_root();
    let mut agent = Agent::run_with_maps("SERVERS=1", &["-n", "redis-server"]);
    agent.stop_for_a_while();
    let _first = RedisServer::start_unasked();
    let second = RedisServer::start_unasked();
    let mut client = second.connect();
    ping(&mut client, 20);
    agent.go_on();
    // The agent gives it a place of its own.
    agent.wait_until(&format!("(process {}) as a server", second.pid()));
    ping(&mut client, 10);
    let outcome = agent.stop();
    assert_lost_only(&outcome, "servers_map_full", 2 * 20);
    assert!(outcome.count("/agent/server_steps") >= 2 * 10, "{:#}", outcome.stats);
}

#[test]
fn connections_of_a_server_for_which_there_is_no_room_are_counted_by_its_reads() {
    require_root();
    let server = RedisServer::start_unasked();
    let agent = Agent::run_with_maps("SERVED=1", &["-p", &server.pid().to_string()]);
    let [mut first, mut second] = [server.connect(), server.connect()];
    ping(&mut first, 5);
    ping(&mut second, 20);
    ping(&mut first, 5);
    let outcome = agent.stop();
    assert_lost_only(&outcome, "served_map_full", 20);
    assert!(outcome.count("/agent/server_steps") >= 2 * 10, "{:#}", outcome.stats);
}

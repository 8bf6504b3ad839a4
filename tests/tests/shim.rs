//! The shim's spans and the agent's are one trace.

use std::collections::HashMap;
use std::process::Command;

use tracer_tests::{Agent, Outcome, RedisServer, Span, Target, program, require_root};

#[test]
fn two_processes_make_one_trace_per_order() {
    require_root();
    const ORDERS: usize = 10_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log").display().to_string();
    let chain = program("chain").display().to_string();
    let outcome = Agent::start(&["--", &chain, "unix", &ORDERS.to_string(), &log]).wait();
    outcome.assert_complete();

    let mut traces: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in &outcome.spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    assert_eq!(traces.len(), ORDERS);
    let logged = std::fs::read_to_string(format!("{log}.client")).expect("the client's log");
    assert_eq!(logged.lines().count(), ORDERS);
    for line in logged.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let spans = &traces[words[1]];
        let mut parent = "";
        let mut pids = Vec::new();
        for name in ["order", "encode Order", "decode Order", "encode Ack", "decode Ack"] {
            let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
            assert_eq!(found.len(), 1, "{name} of order {}", words[0]);
            assert_eq!(found[0].parent, parent, "{name} of order {}", words[0]);
            parent = &found[0].id;
            pids.push(found[0].pid);
        }
        assert_eq!(spans.len(), 5);
        assert!(spans.iter().all(|span| span.service == "chain"), "named by the process itself");
        assert!(pids[1] != pids[2] && pids[2] == pids[3] && pids[3] != pids[4], "two processes: {pids:?}");
    }
}

/// Fails unless each GET is below the span that was active where it was made.
fn assert_below(outcome: &Outcome, seen: &serde_json::Value, count: usize) {
    outcome.assert_complete();
    let gets: Vec<&Span> = outcome.spans.iter().filter(|span| span.name == "GET").collect();
    assert_eq!(gets.len(), count);
    assert!(gets.iter().all(|span| span.service == "shim-target"), "the process context names the service");
    let seen = seen.as_array().expect("a list");
    assert_eq!(seen.len(), count);
    // Every order has a trace of its own, so the pair names the order.
    let mut made: HashMap<(&str, &str), u32> = HashMap::new();
    for get in gets {
        *made.entry((&get.trace, &get.parent)).or_default() += 1;
    }
    for order in seen {
        let context = (order[1].as_str().expect("a trace id"), order[2].as_str().expect("a span id"));
        assert_eq!(made.remove(&context), Some(1), "order {}", order[0]);
    }
    assert!(made.is_empty(), "{made:?}");
}

fn traced(command: &str, count: usize) {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("shim_target");
    let agent = Agent::run(&["-p", &target.pid().to_string(), "--query-text", "full"]);
    let seen = target.ask(&format!("{command} {} {count}", server.address()));
    assert!(target.end().success());
    assert_below(&agent.stop(), &seen, count);
}

#[test]
fn a_command_is_below_the_active_span_on_one_thread() {
    traced("sync", 2_000);
}

#[test]
fn a_command_is_below_the_active_span_across_awaits() {
    traced("tasks", 5_000);
}

#[test]
fn a_command_is_below_what_its_task_decoded_without_any_scope() {
    traced("flows", 20_000);
}

#[test]
fn a_command_is_below_the_active_span_on_another_thread() {
    traced("threads", 2_000);
}

/// The agent changes what a running target records; what is not sampled does not even reach the probe.
#[test]
fn sampling_is_changed_while_the_target_runs() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("shim_target");
    let pid = target.pid().to_string();
    let agent = Agent::run(&["-p", &pid]);
    let sample = |arguments: &[&str]| {
        let status = Command::new(program("tracer")).args(["-q", "sample", "-p", &pid]).args(arguments).status();
        assert!(status.expect("tracer runs").success(), "{arguments:?}");
    };
    let mut round = || {
        target.ask(&format!("sync {} 1000", server.address()));
    };
    round();
    sample(&["--ratio", "0"]);
    round();
    sample(&["--ratio", "0", "--rule", "order=1"]);
    round();
    sample(&["--ratio", "0.25"]);
    round();
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let traces = outcome.spans.iter().filter(|span| span.name == "order").count();
    // 1,000 + 0 + 1,000 + about 250.
    assert!((2_150..2_350).contains(&traces), "{traces} traces");
    assert_eq!(outcome.count("/kernel/shim"), outcome.count("/agent/shim_traced"), "{:#}", outcome.stats);
    let encodes = outcome.spans.iter().filter(|span| span.name.starts_with("encode ")).count();
    assert_eq!(encodes, 2 * traces, "the spans below follow the first one");
}

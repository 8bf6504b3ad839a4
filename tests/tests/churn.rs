//! Processes and connections come and go: at the end the agent has what it had at the beginning.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracer_tests::service::Service;
use tracer_tests::{Agent, RedisServer, Target, kernel_maps, require_root, wait_for};

/// How much.
struct Size {
    short_processes: usize,
    connections_for: Duration,
    restarts: usize,
}

const CONNECTIONS_PER_SECOND: f64 = 200.0;
/// The allocator keeps some of what it had.
const MEMORY_GROWTH_KB: u64 = 32 << 10;

/// What an agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    maps: BTreeMap<String, usize>,
}

fn held(agent: &Agent) -> Held {
    Held { descriptors: agent.descriptors(), maps: kernel_maps::entries(agent.pid()) }
}

/// What an agent holds when it holds the same for a second.
fn held_at_rest(agent: &Agent) -> Held {
    let (mut since, mut last) = (Instant::now(), held(agent));
    wait_for("the agent to hold the same for a second", || {
        let now = held(agent);
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        (since.elapsed() > Duration::from_secs(1)).then(|| last.clone())
    })
}

fn churn(size: &Size) {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target("churned");
    let mut stays = program.start();
    let mut agent = Agent::run(&["-n", program.name(), "--redis-server", "off"]);
    let work = |target: &mut Target| target.ask(&format!("work {} 10", server.address()));
    // Everything has been used once.
    work(&mut stays);
    restart(&program, work);
    agent.wait_until("has ended");
    // The sweep of connections is at its end when two looks a second apart agree.
    let settled = held_at_rest(&agent);
    let memory_before = agent.memory_kb("VmRSS");

    stays.ask(&format!("spawned {}", size.short_processes));
    let begin = Instant::now();
    let mut connections = 0.0;
    while begin.elapsed() < size.connections_for {
        // Paced: as many as are due by now.
        while connections < begin.elapsed().as_secs_f64() * CONNECTIONS_PER_SECOND {
            stays.ask(&format!("work {} 1", server.address()));
            connections += 1.0;
        }
        std::thread::yield_now();
    }
    for _ in 0..size.restarts {
        restart(&program, work);
    }

    assert_eq!(held_at_rest(&agent), settled);
    let memory_after = agent.memory_kb("VmRSS");
    println!("{connections} connections; resident before {memory_before} kB, after {memory_after} kB; {settled:?}");
    assert!(memory_after < memory_before + MEMORY_GROWTH_KB, "from {memory_before} kB to {memory_after} kB");
    let outcome = agent.stop();
    outcome.assert_complete();
    let gets = outcome.spans.iter().filter(|span| span.name == "GET").count();
    assert_eq!(gets, 10 + connections as usize + (size.restarts + 1) * 10);
}

/// A process that starts, works and ends.
fn restart(program: &Service, work: impl Fn(&mut Target) -> serde_json::Value) {
    let mut target = program.start();
    work(&mut target);
    assert!(target.end().success());
}

#[test]
fn after_processes_and_connections_have_come_and_gone_the_agent_holds_what_it_held() {
    churn(&Size { short_processes: 500, connections_for: Duration::from_secs(10), restarts: 30 });
}

#[test]
#[ignore = "twenty minutes; `cargo xtask test --full` runs it"]
fn the_same_for_twenty_minutes() {
    churn(&Size { short_processes: 10_000, connections_for: Duration::from_secs(15 * 60), restarts: 1_000 });
}

//! A large program is inspected while others are traced.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tracer_tests::service::{Service, enlarge, messages};
use tracer_tests::{Agent, Target, program, require_root};

/// Debug info, in bytes: inspecting it takes most of a second.
const SIZE: usize = 120 << 20;

fn large() -> Service {
    let service = Service::new(&program("prost_target"));
    enlarge(&program("prost_target"), service.path(), SIZE);
    service
}

/// The agent without the plans of earlier runs.
fn without_plans(cache: &TempDir) -> Command {
    let mut command = Command::new(program("tracer"));
    command.env("XDG_CACHE_HOME", cache.path());
    command
}

fn number(calls: &BTreeMap<String, (u64, u64)>) -> u64 {
    calls.values().map(|(count, _)| count).sum()
}

/// The ring buffer holds a seventh of a second of records: it would be full long before the second service is planned.
#[test]
fn a_second_service_costs_the_first_none_of_its_records() {
    require_root();
    let service = large();
    let mut first = Target::start("prost_target");
    let (pid, ring) = (first.pid().to_string(), (8 << 20).to_string());
    let cache = TempDir::new().expect("a temporary folder");
    let mut agent = Agent::run_by(without_plans(&cache), &["-p", &pid, "-n", service.name(), "--ring-size", &ring]);
    let mut second = service.start();
    let traced = AtomicBool::new(false);
    let mut calls = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            agent.wait_until(&format!("(process {})", second.pid()));
            traced.store(true, Ordering::Relaxed);
        });
        while !traced.load(Ordering::Relaxed) {
            calls += number(&messages(&mut first, 20));
        }
    });
    assert!(calls > 20_000, "{calls} calls are few: was the second service planned before?");
    calls += number(&messages(&mut second, 30));
    assert!(first.end().success() && second.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(outcome.count("/kernel/messages"), calls);
}

/// A session for one process ends with it, also when that is before its program has been inspected.
#[test]
fn a_process_that_ends_while_it_is_planned_is_no_target_for_ever() {
    require_root();
    let service = large();
    let target = service.start();
    let cache = TempDir::new().expect("a temporary folder");
    let mut agent = Agent::start_by(without_plans(&cache), &["-v", "-p", &target.pid().to_string()]);
    agent.wait_until("while its files are inspected");
    assert!(target.end().success());
    let outcome = agent.wait();
    outcome.assert_complete();
    assert!(outcome.said.contains("has ended"), "{}", outcome.said);
}

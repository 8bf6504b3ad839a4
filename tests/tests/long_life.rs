//! An agent that lives through many deploys holds what the last one needs, and nothing of those before.

use std::fs;

use tracer_tests::service::Service;
use tracer_tests::{Agent, program, require_root, wait_for};

/// What an agent holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    /// Files that have no name any more.
    deleted: usize,
    memory_kib: u64,
}

fn held(agent: &Agent) -> Held {
    let proc = format!("/proc/{}", agent.pid());
    let files: Vec<_> = fs::read_dir(format!("{proc}/fd"))
        .expect("it runs")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect();
    Held {
        descriptors: files.len(),
        deleted: files.iter().filter(|file| file.to_string_lossy().ends_with(" (deleted)")).count(),
        memory_kib: agent.memory_kb("VmRSS"),
    }
}

/// Deploys a service with two thousand probe sites, each time as another file, and has it make some calls.
fn deploys(times: u32) {
    require_root();
    let build = program("many_target");
    let service = Service::new(&build);
    let mut agent = Agent::run(&["-n", service.name()]);
    let mut calls = 0;
    let mut early = None;
    for deploy in 0..times {
        service.replace("cp $NEW next; mv next $SERVICE", &build);
        let mut target = service.start();
        agent.wait_until(&format!("(process {}): ", target.pid()));
        calls += target.ask("messages 1").as_u64().expect("a number");
        assert!(target.end().success());
        if deploy == 9 {
            early = Some(held(&agent));
        }
    }
    let early = early.expect("there are more than ten deploys");
    // The last build still has its name: what it needs is given back after a moment.
    let late = wait_for("everything to be given back", || {
        let now = held(&agent);
        (now.deleted == 0 && now.descriptors <= early.descriptors).then_some(now)
    });
    eprintln!("after ten deploys {early:?}, after {times} {late:?}");
    assert!(late.memory_kib < early.memory_kib + 24 * 1024, "{early:?} {late:?}");
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(outcome.count("/kernel/messages"), calls);
    let line = outcome.said.lines().find(|line| line.contains("probe sites")).expect("it was traced");
    let sites: u32 = line.rsplit(", ").next().and_then(|part| part.split(' ').next()?.parse().ok()).expect("a number");
    assert!(sites >= 1500, "{line}");
}

#[test]
fn thirty_deploys_leave_nothing_behind() {
    deploys(30);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test --full`"]
fn a_thousand_deploys_leave_nothing_behind() {
    deploys(1000);
}

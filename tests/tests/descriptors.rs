//! How many descriptors an agent needs, and what it does without them.

use std::process::Command;

use tracer_tests::{Agent, RedisServer, Target, program, require_root};

/// The agent under limits of descriptors, soft and hard.
fn within(soft: u32, hard: u32, arguments: &[&str], perf_events: bool) -> Agent {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={soft}:{hard}")).arg(program("tracer"));
    if perf_events {
        command.env("TRACER_PERF_UPROBES", "1");
    }
    Agent::run_by(command, arguments)
}

/// Encodes and decodes; returns the number of calls.
fn calls(target: &mut Target) -> u64 {
    let truth = target.ask("messages 100");
    truth.as_object().expect("calls").values().map(|call| call["count"].as_u64().expect("a number")).sum()
}

#[test]
fn the_soft_limit_is_raised() {
    require_root();
    let mut target = Target::start("prost_target");
    let agent = within(100, 4096, &["-p", &target.pid().to_string()], true);
    assert!(agent.descriptors() > 100, "each site is a perf event and a link");
    let calls = calls(&mut target);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(outcome.count("/kernel/messages"), calls);
}

#[test]
fn many_sites_of_a_file_are_a_few_descriptors() {
    require_root();
    let mut target = Target::start("prost_target");
    let nothing = within(1024, 1024, &["-n", "no-such-program"], false);
    let agent = within(1024, 1024, &["-p", &target.pid().to_string()], false);
    // A link for each program that has sites in it, the file, and the libraries that it has mapped; not one for each site.
    assert!(agent.descriptors() <= nothing.descriptors() + 12, "{} {}", agent.descriptors(), nothing.descriptors());
    let calls = calls(&mut target);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(outcome.count("/kernel/messages"), calls);
    nothing.stop().assert_complete();
}

/// What is missing is a number by cause, sockets are seen all the same, and what is seen of messages is whole.
#[test]
fn too_few_descriptors_cost_sites_and_nothing_else() {
    require_root();
    let redis = RedisServer::start();
    let mut messages = Target::start("prost_target");
    let mut commands = Target::start("redis_target");
    let (first, second) = (messages.pid().to_string(), commands.pid().to_string());
    let agent = within(280, 280, &["-p", &first, "-p", &second], true);
    let made = calls(&mut messages);
    let sent = commands.ask(&format!("sync {} 100", redis.address()));
    let outcome = agent.stop();
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
    let missing = outcome.count("/lost/probe_sites_missing");
    let lost = outcome.stats["lost"].as_object().expect("losses");
    assert_eq!(lost.len(), 1, "{:#}", outcome.stats);
    let lines: Vec<&str> = outcome.said.lines().filter(|line| line.contains("probe sites of")).collect();
    assert!(lines.iter().all(|line| line.contains("are missing") && line.contains("LimitNOFILE")), "{lines:?}");
    let number = |line: &&str| line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number");
    assert_eq!(lines.iter().map(number).sum::<u64>(), missing, "{lines:?}");
    let seen = outcome.count("/kernel/messages");
    assert!(seen > 0 && seen < made, "{seen} of {made}");
    // Of the commands, one may well fail: Redis 7.0 refuses CLIENT SETINFO.
    let failed = outcome.spans.iter().find(|span| span.service == "prost_target" && span.status == 2);
    assert!(failed.is_none(), "a call of which an end is not seen is not begun: {failed:?}");
    let gets = outcome.spans.iter().filter(|span| span.attribute("db.system.name") == "redis").count();
    assert!(gets >= 100, "{gets} commands, the target says {sent}");
}

/// What the agent starts has the limits that it would have without the agent.
#[test]
fn a_command_keeps_its_limits() {
    require_root();
    let folder = tempfile::tempdir().expect("a folder");
    let said = folder.path().join("limits");
    let script = format!("ulimit -Sn > {0}; ulimit -Hn >> {0}", said.display());
    let mut command = Command::new("prlimit");
    command.arg("--nofile=777:4096").arg(program("tracer"));
    let outcome = Agent::run_by(command, &["--", "sh", "-c", &script]).wait();
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(std::fs::read_to_string(said).expect("limits"), "777\n4096\n");
}

//! Processes that fork, run other programs, lose their main thread, and end while nobody looks.

use std::path::Path;

use tracer_tests::service::Service;
use tracer_tests::{Agent, Outcome, RedisServer, Target, require_root, wait_for};

const ROUNDS: usize = 50;
/// Room for all spans of a test: the file exporter may be slower than the targets.
const QUEUE: &str = "2000000";

/// How the process is asked for.
#[derive(Clone, Copy, Debug)]
enum By {
    Name,
    Number,
}

fn agent(by: By, program: &Service, target: &Target) -> Agent {
    match by {
        By::Name => Agent::run(&["-n", program.name(), "--max-queue-size", QUEUE]),
        By::Number => Agent::run(&["-p", &target.pid().to_string(), "--max-queue-size", QUEUE]),
    }
}

/// Spans of a process: encodes, GETs and decodes.
fn work_of(outcome: &Outcome, pid: u32) -> [usize; 3] {
    ["encode", "GET", "decode"].map(|name| {
        let is_it = |span: &str| span == name || span.starts_with(&format!("{name} "));
        outcome.spans.iter().filter(|span| span.pid == pid && is_it(&span.name)).count()
    })
}

fn work(target: &mut Target, how: &str, server: &RedisServer) -> u32 {
    let pid = target.ask(&format!("{how} {} {ROUNDS}", server.address()));
    pid.as_u64().and_then(|pid| pid.try_into().ok()).expect("a process number")
}

/// The state that the kernel shows of the main thread.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn main_thread_ends(by: By, name: &str, before: bool) {
    require_root();
    let server = RedisServer::start();
    let program = Service::process_target(name);
    let mut target = program.start();
    let pid = target.pid();
    if before {
        target.ask("leave");
        assert_eq!(state(pid), Some('Z'));
    }
    let agent = agent(by, &program, &target);
    let mut rounds = 0;
    if !before {
        work(&mut target, "work", &server);
        target.ask("leave");
        rounds += ROUNDS;
    }
    // More than one sweep, which must not take the process for one that has ended.
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(2_500) {
        work(&mut target, "work", &server);
        rounds += ROUNDS;
    }
    assert!(target.end().success());
    let outcome = match by {
        By::Name => agent.stop(),
        // The session lasts as long as the process.
        By::Number => agent.wait(),
    };
    outcome.assert_complete();
    assert_eq!(work_of(&outcome, pid), [rounds; 3], "{}", outcome.said);
}

#[test]
fn a_process_whose_main_thread_ends_is_traced_on() {
    main_thread_ends(By::Name, "leader_ends", false);
}

#[test]
fn a_process_asked_for_by_number_whose_main_thread_ends_is_traced_on() {
    main_thread_ends(By::Number, "leader_ends_p", false);
}

#[test]
fn a_process_whose_main_thread_has_ended_is_attached_to() {
    main_thread_ends(By::Name, "leader_ended", true);
}

#[test]
fn a_process_asked_for_by_number_whose_main_thread_has_ended_is_attached_to() {
    main_thread_ends(By::Number, "leader_ended_p", true);
}

#[test]
fn a_child_without_a_program_of_its_own_is_traced_like_its_parent() {
    require_root();
    let server = RedisServer::start();
    for (by, name) in [(By::Name, "forks"), (By::Number, "forks_p")] {
        let program = Service::process_target(name);
        let mut target = program.start();
        let agent = agent(by, &program, &target);
        let child = work(&mut target, "fork", &server);
        let grandchild = work(&mut target, "daemon", &server);
        // The agent takes the end of a child for that of no other.
        work(&mut target, "work", &server);
        let outcome = agent.stop();
        assert_eq!(work_of(&outcome, target.pid()), [ROUNDS; 3], "{by:?}: {}", outcome.said);
        for pid in [child, grandchild] {
            let [encodes, gets, decodes] = work_of(&outcome, pid);
            assert_eq!(gets, ROUNDS, "{by:?}: {}", outcome.said);
            // By number each process has its own probes, which the child gets when the agent has heard of it.
            if matches!(by, By::Name) {
                assert_eq!([encodes, decodes], [ROUNDS; 2], "{}", outcome.said);
            }
        }
        outcome.assert_complete();
    }
}

#[test]
fn a_child_with_a_program_of_its_own_is_traced_if_it_was_asked_for() {
    require_root();
    let server = RedisServer::start();
    for (by, name, expected) in [(By::Name, "spawns", ROUNDS), (By::Number, "spawns_p", 0)] {
        let program = Service::process_target(name);
        let mut target = program.start();
        let agent = agent(by, &program, &target);
        let child = work(&mut target, "spawn", &server);
        work(&mut target, "work", &server);
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(work_of(&outcome, child), [expected; 3], "{by:?}: {}", outcome.said);
        assert_eq!(work_of(&outcome, target.pid()), [ROUNDS; 3], "{by:?}: {}", outcome.said);
    }
}

/// `posix_spawn` and `vfork` borrow the parent's memory until the exec: nothing is attached for that moment.
#[test]
fn running_other_programs_makes_no_targets() {
    require_root();
    let program = Service::process_target("runs_others");
    for by in [By::Name, By::Number] {
        let mut target = program.start();
        let agent = agent(by, &program, &target);
        target.ask("spawned 50");
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(outcome.said.matches("tracing runs_others").count(), 1, "{}", outcome.said);
    }
}

#[test]
fn an_exec_in_another_thread_than_the_main_one_leaves_the_process_a_target() {
    require_root();
    let server = RedisServer::start();
    let name = "executes";
    let program = Service::process_target(name);
    for by in [By::Name, By::Number] {
        let mut target = program.start();
        let mut agent = agent(by, &program, &target);
        work(&mut target, "work", &server);
        target.send("execute");
        target.wait_until_ready();
        agent.wait_until(&format!("tracing {name}"));
        work(&mut target, "work", &server);
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(work_of(&outcome, target.pid()), [2 * ROUNDS; 3], "{by:?}: {}", outcome.said);
    }
}

/// Whoever gets the number of a target that has ended is no target.
#[test]
fn a_stranger_with_the_number_of_a_target_is_not_traced() {
    require_root();
    let server = RedisServer::start();
    let (program, stranger) = (Service::process_target("numbered"), Service::process_target("stranger"));
    let mut strange = stranger.start();
    let keeps_the_session = program.start();
    let agent = Agent::run(&["-n", program.name()]);
    let mut target = program.start();
    let pid = target.pid();
    work(&mut target, "work", &server);
    assert!(target.end().success());
    let work_of_others = strange.ask(&format!("fork_as {pid} {} {ROUNDS}", server.address()));
    assert_eq!(work_of_others, pid, "the kernel gives the number again");
    drop(keeps_the_session);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(work_of(&outcome, pid), [ROUNDS; 3], "only what the target did: {}", outcome.said);
}

/// A process that ends while its program is inspected is not waited for.
#[test]
fn a_session_ends_with_a_process_that_ends_while_it_is_attached_to() {
    require_root();
    let program = Service::process_target("short_lived");
    let mut sessions = 0;
    for _ in 0..10 {
        let target = program.start();
        let pid = target.pid();
        let agent = Agent::start(&["-p", &pid.to_string()]);
        assert!(target.end().success());
        let outcome = agent.wait();
        let was_found = !outcome.said.contains(&format!("no process has the number {pid}"));
        assert_eq!(outcome.code == Some(0), was_found, "{:?}: {}", outcome.code, outcome.said);
        sessions += 1;
    }
    assert_eq!(sessions, 10);
}

/// The first seconds of a session see programs that were there before, and the kernel's records of how they started.
#[test]
fn a_killed_process_has_ended() {
    require_root();
    let program = Service::process_target("killed");
    let target = program.start();
    let mut agent = Agent::run(&["-n", program.name()]);
    let pid = target.pid();
    drop(target);
    agent.wait_until(&format!("process {pid} has ended"));
    wait_for("the end of the process", || state(pid).is_none().then_some(()));
    agent.stop().assert_complete();
}

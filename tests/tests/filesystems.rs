//! Programs on file systems whose numbers for `stat` are not the kernel's, that are mounted twice, or that keep the agent out.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tracer_tests::started::{Stage, prost_spans};
use tracer_tests::{Agent, Mount, RedisServer, Target, program, require_root};

const NOBODY: u32 = 65_534;

/// Starts a program many times for a moment; returns how many calls it has made.
fn run_for_a_moment(path: &Path, times: u64) -> u64 {
    (0..times)
        .map(|_| {
            let mut child =
                Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
            child.stdin.take().expect("it is piped").write_all(b"messages 3\n").expect("it reads");
            let output = child.wait_with_output().expect("it ends");
            let output = String::from_utf8(output.stdout).expect("text");
            let answer = output.lines().nth(1).expect("an answer");
            calls_of(&serde_json::from_str(answer).expect("JSON"))
        })
        .sum()
}

/// Calls that a target says it has made.
fn calls_of(answer: &serde_json::Value) -> u64 {
    answer.as_object().expect("calls by name").values().map(|call| call["count"].as_u64().expect("a number")).sum()
}

/// All calls of processes that live for a moment are seen: the kernel itself must know the file when it is run.
fn assert_seen_from_the_first_instruction(path: &Path) {
    let agent = Agent::run(&["-e", &path.display().to_string()]);
    let calls = run_for_a_moment(path, 30);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
}

#[test]
fn a_subvolume_of_btrfs() {
    require_root();
    let stage = Stage::new("on_btrfs");
    let mount = Mount::btrfs();
    for folder in [".", "sub"] {
        let path = mount.path(folder).canonicalize().expect("it is there").join("on_btrfs");
        stage.copy_to(&path);
        assert_seen_from_the_first_instruction(&path);
    }
}

#[test]
fn overlayfs_with_layers_on_two_file_systems() {
    require_root();
    let stage = Stage::new("on_overlay");
    let mount = Mount::overlay(|lower| stage.copy_to(&lower.join("below")));
    assert_seen_from_the_first_instruction(&mount.path("below"));
    stage.copy_to(&mount.path("above"));
    assert_seen_from_the_first_instruction(&mount.path("above"));
}

/// Two containers of one image: the file below is the same, and a call is still one call.
#[test]
fn two_overlays_of_one_file() {
    require_root();
    let stage = Stage::new("in_two");
    let first = Mount::overlay(|lower| stage.copy_to(&lower.join("in_two")));
    let shared = first.path("../lower/in_two");
    let second = Mount::overlay(|lower| std::fs::hard_link(&shared, lower.join("in_two")).expect("one file system"));
    let mut targets = [&first, &second, &first].map(|mount| Target::spawn(&mut Command::new(mount.path("in_two"))));
    let agent = Agent::run(&["-n", "in_two"]);
    let calls: u64 = targets.iter_mut().map(|target| calls_of(&target.ask("messages 30"))).sum();
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
}

#[test]
fn a_file_that_is_mounted_twice() {
    require_root();
    let stage = Stage::new("mounted_twice");
    let mount = Mount::bind(&stage.path(""));
    let agent = Agent::run(&["-e", &stage.program().display().to_string()]);
    let calls = run_for_a_moment(&mount.path("mounted_twice"), 10) + run_for_a_moment(&stage.program(), 10);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
}

/// Root cannot read the program: what needs no look at it is traced, and the reason is said wherever the process is shown.
#[test]
fn fuse_of_another_user() {
    require_root();
    let source = tempfile::TempDir::new_in("/tmp").expect("a temporary folder");
    std::fs::copy(program("redis_target"), source.path().join("on_fuse")).expect("there is room");
    let mount = Mount::fuse(source.path(), NOBODY);
    assert!(std::fs::metadata(mount.path("on_fuse")).is_err(), "root may enter: there is nothing to test here");
    let server = RedisServer::start();
    let mut agent = Agent::run(&["-n", "on_fuse"]);
    let mut target = Target::spawn(Command::new(mount.path("on_fuse")).uid(NOBODY).gid(NOBODY));
    agent.wait_until("FUSE");
    let before = server.command_calls();
    target.ask(&format!("sync {} 100", server.address()));
    let tracer = |arguments: &[&str]| Command::new(program("tracer")).args(arguments).output().expect("tracer runs");
    let pid = target.pid().to_string();
    let shown = String::from_utf8_lossy(&tracer(&["inspect", &pid]).stderr).into_owned();
    assert!(shown.contains("FUSE") && shown.contains("allow_root"), "{shown}");
    let listed: serde_json::Value = serde_json::from_slice(&tracer(&["ps", "--json"]).stdout).expect("JSON");
    let row = listed.as_array().expect("rows").iter().find(|row| row["pid"] == target.pid()).expect("its row");
    assert!(row["note"].as_str().is_some_and(|note| note.contains("FUSE")), "{row:#}");
    let outcome = agent.stop();
    outcome.assert_complete();
    let commands = server.command_calls().values().sum::<u64>() - before.values().sum::<u64>();
    let spans = outcome.spans.iter().filter(|span| span.service == "on_fuse").count() as u64;
    assert!(spans > 0 && spans <= commands, "{spans} of {commands}: {}", outcome.said);
    assert_eq!(outcome.said.matches("WARN").count(), 1, "{}", outcome.said);
}

//! What cannot be seen of a program is said by `tracer run` when it attaches, is a column of `tracer ps`, and is counted in the balance,
//! in the words of `tracer inspect`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tracer_tests::service::Service;
use tracer_tests::{Agent, RedisServer, Target, program, require_root};

const STRIPPED: &str = "there is no symbol table, so prost functions cannot be found";

/// A copy of a program without some of its sections.
fn stripped(original: &Path, how: &str) -> (TempDir, Service) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join(Service::name_in(folder.path()));
    let status = Command::new("strip").arg(how).arg("-o").arg(&path).arg(original).status().expect("binutils");
    assert!(status.success());
    (folder, Service::at(path))
}

fn tracer(arguments: &[&str]) -> String {
    let output = Command::new(program("tracer")).args(arguments).output().expect("tracer starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("tracer writes UTF-8")
}

/// Fails unless this is said of the program, in one line where it is attached to, and its process is counted. Returns the target.
fn assert_said(service: &Service, name: &str, text: &str) {
    let mut target = service.start();
    let pid = target.pid();
    let inspected = tracer(&["inspect", &service.path().display().to_string()]);
    assert!(inspected.contains(text), "{inspected}");
    assert_eq!(listed(&target), [name]);
    let agent = Agent::run(&["-n", service.name(), "--redis-server", "off"]);
    let outcome = agent.stop();
    target.send("end");
    outcome.assert_complete();
    let attached = format!("tracing {} (process {pid})", service.name());
    let lines: Vec<&str> = outcome.said.lines().filter(|line| line.contains(&attached)).collect();
    assert!(matches!(lines[..], [line] if line.contains(text)), "{lines:#?}");
    assert_eq!(outcome.count(&format!("/kernel/targets_{name}")), 1, "{:#}", outcome.stats);
}

/// The limits that `tracer ps` lists.
fn listed(target: &Target) -> Vec<String> {
    let rows: Vec<Value> = serde_json::from_str(&tracer(&["ps", "--json"])).expect("JSON");
    let row = rows.iter().find(|row| row["pid"] == target.pid()).expect("it is a Rust process");
    let table = tracer(&["ps"]);
    assert!(table.lines().next().is_some_and(|header| header.contains("LIMITS")), "{table}");
    let limits = row["limits"].as_array().expect("a list").iter();
    limits.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn a_program_without_symbols() {
    require_root();
    let (_folder, service) = stripped(&program("prost_target"), "--strip-all");
    assert_said(&service, "stripped", STRIPPED);
}

#[test]
fn a_program_of_which_all_can_be_seen_has_no_limits() {
    require_root();
    let server = RedisServer::start();
    let service = Service::process_target("unlimited");
    let mut target = service.start();
    assert!(listed(&target).is_empty());
    let agent = Agent::run(&["-n", service.name(), "--redis-server", "off"]);
    target.ask(&format!("work {} 1", server.address()));
    let outcome = agent.stop();
    outcome.assert_complete();
    for name in ["stripped", "inlined", "uring"] {
        assert_eq!(outcome.count(&format!("/kernel/targets_{name}")), 0);
    }
    assert!(!outcome.said.contains("cannot be found"), "{}", outcome.said);
}

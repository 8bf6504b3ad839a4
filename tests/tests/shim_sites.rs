//! The shim's probe in programs of every kind of link, and in processes that guard their system calls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tracer_tests::{Agent, RedisServer, Target, require_root};

const ORDERS: usize = 4_000;
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// `shim-sites`, linked with these flags. Only the program itself is compiled again: its libraries are the same in all.
fn linked(name: &str, flags: &[&str]) -> PathBuf {
    // Each link replaces the program of the one before.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim-sites");
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--release", "--offline", "--package", "shim-sites", "--target", TRIPLE, "--target-dir"])
        .arg(&folder)
        .arg("--")
        .args(flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let program = folder.join(format!("shim-sites-{name}"));
    std::fs::copy(folder.join(TRIPLE).join("release/shim-sites"), &program).expect("it was built");
    program
}

/// `e_type` of an ELF file.
fn kind(program: &Path) -> u8 {
    std::fs::read(program).expect("it is there")[16]
}

/// Fails unless each GET is in the trace of its order.
fn flows(program: &Path) {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::spawn(&mut Command::new(program));
    let agent = Agent::run(&["-p", &target.pid().to_string(), "--redis-server", "off", "--query-text", "full"]);
    let seen = target.ask(&format!("flows {} {ORDERS}", server.address()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let traces: std::collections::HashMap<&str, &str> = outcome
        .spans
        .iter()
        .filter(|span| span.name.starts_with("GET"))
        .map(|span| (span.attribute("db.query.text").rsplit(' ').next().expect("a key"), span.trace.as_str()))
        .collect();
    let seen = seen.as_array().expect("a list");
    assert_eq!(seen.len(), ORDERS);
    let right = seen.iter().filter(|order| traces.get(order[0].as_str().expect("a key")).copied() == order[1].as_str());
    assert_eq!(right.count(), ORDERS, "GETs in the trace of their order; {} were seen", traces.len());
}

const EXEC: u8 = 2;
const DYN: u8 = 3;

#[test]
#[ignore = "builds programs of its own, minutes long; `cargo xtask test --full` runs it"]
fn flows_of_a_position_independent_program() {
    let program = linked("pie", &[]);
    assert_eq!(kind(&program), DYN);
    flows(&program);
}

#[test]
#[ignore = "builds programs of its own, minutes long; `cargo xtask test --full` runs it"]
fn flows_of_a_program_that_is_not_position_independent() {
    let program = linked("fixed", &["-Crelocation-model=static"]);
    assert_eq!(kind(&program), EXEC);
    flows(&program);
}

#[test]
#[ignore = "builds programs of its own, minutes long; `cargo xtask test --full` runs it"]
fn flows_of_static_programs() {
    let program = linked("static", &["-Crelocation-model=static", "-Ctarget-feature=+crt-static"]);
    assert_eq!(kind(&program), EXEC);
    flows(&program);
    let program = linked("static-pie", &["-Ctarget-feature=+crt-static"]);
    assert_eq!(kind(&program), DYN);
    flows(&program);
}

/// Segments that are aligned to huge pages, and a program whose first one is not at the beginning of the file's addresses.
#[test]
#[ignore = "builds programs of its own, minutes long; `cargo xtask test --full` runs it"]
fn flows_of_programs_whose_segments_lie_elsewhere() {
    let program = linked("huge", &["-Clink-arg=-Wl,-z,max-page-size=0x200000"]);
    flows(&program);
    let program = linked("high", &["-Crelocation-model=static", "-Clink-arg=-Wl,--image-base=0x10000000"]);
    assert_eq!(kind(&program), EXEC);
    flows(&program);
}

/// On kernels that make a system call of the probe, a filter that does not know that call must not end the target.
#[test]
#[ignore = "builds programs of its own, minutes long; `cargo xtask test --full` runs it"]
fn a_seccomp_filter_does_not_make_the_probe_deadly() {
    require_root();
    const MESSAGES: u64 = 2_000;
    let program = linked("pie", &[]);
    let messages = format!("messages {MESSAGES}");
    // The filter is there before the probe.
    let mut target = Target::spawn(&mut Command::new(&program));
    assert_eq!(target.ask("filter"), true);
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    assert_eq!(target.ask(&messages), MESSAGES);
    assert!(target.end().success());
    assert_spans(&agent.stop(), 2 * MESSAGES);

    // It comes when the kernel has optimised the probe already.
    let mut target = Target::spawn(&mut Command::new(&program));
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    assert_eq!(target.ask(&messages), MESSAGES);
    assert_eq!(target.ask("filter"), true);
    assert_eq!(target.ask(&messages), MESSAGES);
    assert!(target.end().success());
    assert_spans(&agent.stop(), 4 * MESSAGES);
}

/// Fails unless there are this many spans, half of them encodes.
fn assert_spans(outcome: &tracer_tests::Outcome, count: u64) {
    outcome.assert_complete();
    let starting = |word: &str| outcome.spans.iter().filter(|span| span.name.starts_with(word)).count() as u64;
    assert_eq!((starting("encode "), starting("decode ")), (count / 2, count / 2));
}

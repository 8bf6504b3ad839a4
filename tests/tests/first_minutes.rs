//! The first minutes with `tracer`: what it says without being asked, what it says of a wrong name, and what a bug report holds.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use tempfile::TempDir;
use tracer_tests::secrets::{Secrets, assert_none};
use tracer_tests::{Agent, DEADLINE, Target, program, require_root};

/// What was said after the session had begun.
fn end(said: &str) -> Vec<&str> {
    said.lines().skip_while(|line| !line.contains("Ctrl-C ends")).skip(1).collect()
}

#[test]
fn a_session_that_lost_nothing_ends_with_one_line() {
    require_root();
    let mut target = Target::start("prost_target");
    let pid = target.pid().to_string();
    let session = |target: &mut Target, arguments: &[&str]| {
        let agent = Agent::run(arguments);
        target.ask("messages 100");
        agent.stop()
    };
    let outcome = session(&mut target, &["-p", &pid]);
    outcome.assert_complete();
    let lines = end(&outcome.said);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let exported = format!("{} exported; nothing was lost", outcome.spans.len());
    assert!(lines[0].ends_with(&exported), "{lines:?}");
    let outcome = session(&mut target, &["-p", &pid, "-v"]);
    assert!(outcome.said.contains("prost calls recorded: "), "the whole balance: {}", outcome.said);
}

#[test]
fn a_wrong_name_is_answered_with_near_ones() {
    require_root();
    let _target = Target::start("prost_target");
    let mut agent = Agent::start(&["-n", "prost_targte"]);
    agent.wait_until("nothing called prost_targte runs; names that are near it: prost_target");
    agent.wait_until("Ctrl-C ends");
    agent.stop().assert_complete();
}

#[test]
fn without_arguments_it_shows_what_could_be_traced_and_how() {
    require_root();
    let target = Target::start("prost_target");
    let output = Command::new(program("tracer")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let line = said.lines().find(|line| line.contains("prost_target")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("process {}", target.pid())) && line.contains("prost functions"), "{line}");
    assert!(said.contains("tracer run -n ") && said.lines().count() < 20, "{said}");
}

#[test]
fn where_nothing_could_be_traced_it_shows_its_help() {
    require_root();
    let mut alone = Command::new("unshare");
    let output = alone.args(["--pid", "--fork", "--mount-proc"]).arg(program("tracer")).output().expect("util-linux");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Usage: tracer") && said.contains("doctor"), "{said}");
}

#[test]
fn a_bug_report_tells_of_the_machine_and_no_secrets() {
    require_root();
    let (folder, mut secrets) = (TempDir::new().expect("a temporary folder"), Secrets::new(11));
    let mut command = Command::new(program("prost_target"));
    let target = Target::spawn(command.arg(secrets.fill("--token={}")).arg(secrets.word()).env("KEY", secrets.word()));
    let (config, report) = (folder.path().join("tracer.yaml"), folder.path().join("report.txt"));
    let settings =
        secrets.fill("name: {}\nexport: 'otlp:http://u:{}@host/{}'\nresource-attributes: {a: {}}\nring-size: 65536\n");
    std::fs::write(&config, settings).expect("it can be written");
    let mut tracer = Command::new(program("tracer"));
    tracer.arg("bug-report").arg("-o").arg(&report).arg("--config").arg(&config);
    let output = tracer.env("OTEL_EXPORTER_OTLP_HEADERS", secrets.fill("key={}")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("before you send it"), "{said}");
    let text = std::fs::read_to_string(&report).expect("it was written");
    assert_eq!(std::fs::metadata(&report).expect("it is there").mode() & 0o7777, 0o600);
    let pid = target.pid();
    let wanted = [
        &format!("tracer {}", env!("CARGO_PKG_VERSION")),
        "kernel: ",
        "eBPF programs",
        "prost_target",
        &format!("{pid}: prost_target --token=? ?"),
        "export: otlp:?",
        "ring-size: 65536",
        "OTEL_EXPORTER_OTLP_HEADERS=?",
    ];
    for words in wanted {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    assert_none("the report", &text);
    assert_none("what it says", &said);
}

#[test]
fn systemd_hears_that_the_session_is_ready_alive_and_ending() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(DEADLINE)).expect("it has one");
    let news = || {
        let mut text = [0; 512];
        let length = manager.recv(&mut text).expect("the agent speaks in time");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let tracer = || {
        let mut tracer = Command::new(program("tracer"));
        tracer.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
        tracer
    };
    let target = Target::start("prost_target");
    let agent = Agent::run_by(tracer(), &["-p", &target.pid().to_string()]);
    assert_eq!(news(), "READY=1\nSTATUS=tracing 1 process\n");
    for _ in 0..3 {
        assert_eq!(news(), "WATCHDOG=1\n");
    }
    agent.stop().assert_complete();
    let last = std::iter::repeat_with(news).find(|news| news != "WATCHDOG=1\n");
    assert_eq!(last.as_deref(), Some("STOPPING=1\n"));
    // A command must not take itself for the service.
    let outcome = Agent::start_by(tracer(), &["--", "sh", "-c", "echo heard: $NOTIFY_SOCKET$WATCHDOG_USEC."]).wait();
    assert!(outcome.printed.contains("heard: ."), "{}", outcome.printed);
}

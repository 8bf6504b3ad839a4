//! What the agent may do and what it gives up: without root, without capabilities, and what its command inherits.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tracer_tests::capable::{FOUR, USER};
use tracer_tests::pipeline::{Load, SERVICES};
use tracer_tests::{Agent, Capable, Outcome, Pipeline, RedisServer, Span, Target, program, require_root};

/// The line of a `/proc/PID/status`.
fn line<'a>(status: &'a str, name: &str) -> &'a str {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{name} in {status}")).trim()
}

/// A set of capabilities in a status.
fn set(status: &str, name: &str) -> u64 {
    u64::from_str_radix(line(status, name), 16).expect("hexadecimal digits")
}

/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
const FOUR_BITS: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;
/// CAP_LEASE, CAP_CHECKPOINT_RESTORE.
const EXTRA_BITS: u64 = 1 << 28 | 1 << 40;

/// By name: the status of each thread of a process.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let statuses = tasks.map(|task| fs::read_to_string(task.expect("it runs").path().join("status")).expect("it runs"));
    statuses.map(|status| (line(&status, "Name").to_owned(), status)).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The order that a span names, by the key of its Redis command.
fn order(span: &Span) -> Option<u64> {
    let key = span.attribute("db.query.text").split(' ').nth(1)?;
    key.strip_prefix("order:").or_else(|| key.strip_prefix("engine:"))?.parse().ok()
}

/// Fails unless each order has one trace, which goes through all services.
fn assert_one_trace_per_order(outcome: &Outcome, orders: u64) {
    let mut services: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut traces: HashMap<u64, HashSet<&str>> = HashMap::new();
    for span in &outcome.spans {
        services.entry(&span.trace).or_default().insert(&span.service);
        if let Some(order) = order(span) {
            traces.entry(order).or_default().insert(&span.trace);
        }
    }
    for number in 1..=orders {
        let traces = &traces[&number];
        assert_eq!(traces.len(), 1, "traces of order {number}");
        let services = traces.iter().flat_map(|trace| &services[trace]).copied().collect::<HashSet<_>>();
        assert!(SERVICES.iter().all(|service| services.contains(service)), "order {number}: {services:?}");
    }
    assert_eq!(services.len() as u64, orders, "and no other trace");
}

#[test]
fn a_user_with_four_capabilities_traces_the_order_pipeline() {
    require_root();
    const ORDERS: u64 = 200;
    let pipeline = Pipeline::start(&SERVICES);
    let tracer = Capable::with(&FOUR);
    let agent = Agent::run_by(tracer.command(), &["-e", &pipeline.glob(), "--query-text", "full"]);
    let answers = pipeline.send(Load { count: ORDERS, rate: ORDERS, burst: 20, first: 1 });
    assert_eq!(answers["filled"], ORDERS, "{answers}");
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_one_trace_per_order(&outcome, ORDERS);
}

#[test]
fn a_user_with_four_capabilities_traces_redis() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let tracer = Capable::with(&FOUR);
    let agent = Agent::run_by(tracer.command(), &["-p", &target.pid().to_string()]);
    assert_eq!(target.ask(&format!("sync {} 500", server.address())), 500);
    let outcome = agent.stop();
    outcome.assert_complete();
    let clients = outcome.spans.iter().filter(|span| span.service == "redis_target");
    assert!(clients.filter(|span| span.attribute("db.system.name") == "redis").count() >= 500, "{}", outcome.said);
}

/// As `nobody`, by the file, and as root, whose bounding set lacks it.
#[test]
fn each_missing_capability_is_named() {
    require_root();
    for missing in FOUR {
        let name = missing.to_uppercase();
        let others: Vec<&str> = FOUR.into_iter().filter(|capability| *capability != missing).collect();
        let tracer = Capable::with(&others);
        let without = format!("-{},-sys_admin,-dac_override", missing.trim_start_matches("cap_"));
        let root = || {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--bounding-set", &without]).arg(tracer.path()).env("NO_COLOR", "1");
            setpriv
        };
        for (mut run, mut doctor, remedy) in
            [(tracer.command(), tracer.command(), "setcap"), (root(), root(), "--cap-add")]
        {
            let output = run.args(["run", "-n", "x"]).output().expect("it runs");
            let text = said(&output);
            assert_eq!(output.status.code(), Some(4), "{text}");
            assert!(text.contains(&format!("{name} is missing")) && text.contains(remedy), "{text}");
            let output = doctor.arg("doctor").output().expect("it runs");
            assert_eq!(output.status.code(), Some(4));
            assert!(
                said(&output).contains(&format!("BAD      privilege        {name} is missing")),
                "{}",
                said(&output)
            );
        }
    }
}

#[test]
fn root_without_capabilities_is_told_all_of_them() {
    require_root();
    for arguments in [["run", "-n", "x"].as_slice(), &["record", "-n", "x"], &["doctor"]] {
        let folder = TempDir::new().expect("a temporary folder");
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-all"])
            .arg(program("tracer"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("util-linux has setpriv");
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        let names = FOUR.map(str::to_uppercase).join(", ");
        assert!(said(&output).contains(&format!("{names} are missing")), "{}", said(&output));
    }
}

#[test]
fn doctor_is_content_with_four_capabilities() {
    require_root();
    let output = Capable::with(&FOUR).command().arg("doctor").output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// Every thread is filtered, none has more than it needs, and those of exporters have nothing.
#[test]
fn what_is_not_needed_is_given_up() {
    require_root();
    let target = Target::start("prost_target");
    let number = target.pid().to_string();
    let user = Capable::with(&FOUR);
    let full = set(&fs::read_to_string("/proc/self/status").expect("our own"), "CapBnd");
    let agents = [
        (Agent::run(&["-p", &number]), FOUR_BITS | full & EXTRA_BITS, true),
        (Agent::run_by(user.command(), &["-p", &number]), FOUR_BITS, false),
    ];
    for (agent, kept, bounded) in agents {
        let threads = threads(agent.pid());
        for (name, status) in &threads {
            let exporter = name.starts_with("export") || name.starts_with("tokio");
            let held = if exporter { 0 } else { kept };
            assert_eq!((set(status, "CapEff"), set(status, "CapPrm")), (held, held), "{status}");
            assert_eq!((set(status, "CapInh"), set(status, "CapAmb")), (0, 0), "{status}");
            // Nobody but root may give up what programs could get; `no_new_privs` has the same effect.
            assert_eq!(set(status, "CapBnd"), if bounded { kept } else { full }, "{status}");
            assert_eq!((line(status, "NoNewPrivs"), line(status, "Seccomp")), ("1", "2"), "{status}");
        }
        for name in ["tracer", "export"] {
            assert!(threads.iter().any(|(thread, _)| thread == name), "a thread {name} of {threads:?}");
        }
        agent.stop().assert_complete();
    }
}

#[test]
fn no_sandbox_keeps_everything() {
    require_root();
    let target = Target::start("prost_target");
    let agent = Agent::run(&["--no-sandbox", "-p", &target.pid().to_string()]);
    let own = fs::read_to_string("/proc/self/status").expect("our own");
    for (_, status) in threads(agent.pid()) {
        for name in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"] {
            assert_eq!(line(&status, name), line(&own, name), "{name} of {status}");
        }
    }
    agent.stop().assert_complete();
}

/// A folder to which every user may write, with a program of root's in it that runs as root whoever starts it.
fn shared_folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let id = folder.path().join("id-of-root");
    fs::copy("/usr/bin/id", &id).expect("coreutils");
    fs::set_permissions(&id, Permissions::from_mode(0o4755)).expect("it is ours");
    folder
}

/// Runs a command that writes down what it is: its status, then its environment, then whom a setuid program takes it for.
fn started(mut tracer: Command, flags: &[&str], folder: &Path) -> (String, Output) {
    let seen = folder.join("seen");
    let script = format!("cat /proc/self/status; env; {0}/id-of-root -u", folder.display());
    let output = tracer
        .args(["run", "--export", "none"])
        .args(flags)
        .args(["--", "sh", "-c", &format!("({script}) > {}", seen.display())])
        .env("NO_COLOR", "1")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    (fs::read_to_string(&seen).unwrap_or_else(|error| panic!("{error}: {}", said(&output))), output)
}

#[test]
fn the_command_inherits_no_restriction() {
    require_root();
    let folder = shared_folder();
    let (seen, output) = started(Command::new(program("tracer")), &[], folder.path());
    let own = fs::read_to_string("/proc/self/status").expect("our own");
    for name in ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"] {
        assert_eq!(line(&seen, name), line(&own, name), "{name} of {seen}");
    }
    assert!(!said(&output).contains("--user"), "{}", said(&output));
}

#[test]
fn the_command_runs_as_the_user_that_is_named() {
    require_root();
    let folder = shared_folder();
    let sudo = || {
        let mut tracer = Command::new(program("tracer"));
        tracer.env("SUDO_UID", "1000").env("SUDO_USER", "alice");
        tracer
    };
    for (user, gid) in [("nobody", USER), ("65534", USER), ("65534:12345", 12345)] {
        let (seen, output) = started(sudo(), &["--user", user], folder.path());
        assert_eq!(line(&seen, "Uid"), format!("{USER}\t{USER}\t{USER}\t{USER}"));
        assert_eq!(line(&seen, "Gid"), format!("{gid}\t{gid}\t{gid}\t{gid}"));
        assert_eq!(line(&seen, "Groups"), gid.to_string());
        for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(set(&seen, name), 0, "{name} of {seen}");
        }
        assert_eq!((line(&seen, "NoNewPrivs"), line(&seen, "Seccomp")), ("0", "0"));
        assert!(seen.contains("\nUSER=nobody\n") && seen.contains("\nLOGNAME=nobody\n"), "{seen}");
        assert!(!seen.contains("\nHOME=/root\n"), "{seen}");
        assert!(seen.ends_with("\n0\n"), "setuid programs work: {seen}");
        assert!(!said(&output).contains("runs as root"), "{}", said(&output));
        fs::remove_file(folder.path().join("seen")).expect("it was written");
    }
    // Under sudo root is what was asked for, but it may not be what was meant.
    let (seen, output) = started(sudo(), &[], folder.path());
    assert!(line(&seen, "Uid").starts_with("0\t"));
    assert!(said(&output).contains("sh runs as root; `--user alice` runs it as you"), "{}", said(&output));
}

#[test]
fn a_user_who_cannot_be_is_an_error() {
    require_root();
    let run = |mut tracer: Command, user: &str| {
        tracer.args(["run", "--user", user, "--", "true"]).env("NO_COLOR", "1").output().expect("it runs")
    };
    let output = run(Command::new(program("tracer")), "no-such-user");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no user \"no-such-user\""), "{}", said(&output));
    let output = run(Capable::with(&FOUR).command(), "root");
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains("CAP_SETUID, CAP_SETGID are missing"), "{}", said(&output));
}

/// As a systemd unit with `AmbientCapabilities` starts the agent: they would be inherited by every program.
#[test]
fn the_command_of_a_user_has_none_of_the_agents_capabilities() {
    require_root();
    let folder = shared_folder();
    let four = FOUR.map(|name| format!("+{}", name.trim_start_matches("cap_"))).join(",");
    let plain = Capable::with(&[]);
    let mut ambient = Command::new("setpriv");
    ambient.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", &four]);
    ambient.args(["--ambient-caps", &four]).arg(plain.path());
    for tracer in [ambient, Capable::with(&FOUR).command()] {
        let (seen, _) = started(tracer, &[], folder.path());
        assert!(line(&seen, "Uid").starts_with(&format!("{USER}\t")));
        for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(set(&seen, name), 0, "{name} of {seen}");
        }
        assert_eq!((line(&seen, "NoNewPrivs"), line(&seen, "Seccomp")), ("0", "0"));
        fs::remove_file(folder.path().join("seen")).expect("it was written");
    }
}

#[test]
fn a_command_does_not_begin_if_the_agent_cannot() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let made = folder.path().join("made");
    let made = made.display().to_string();
    let output =
        Command::new(program("tracer")).args(["run", "-p", "4194305", "--", "touch", &made]).output().expect("it runs");
    // All that has the pipes has ended by now, the process that waited for the agent's word among them.
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(!Path::new(&made).exists());
}

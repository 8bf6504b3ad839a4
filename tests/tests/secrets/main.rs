//! Planted secrets: more than ten thousand random words, in command lines, environments, messages, Redis commands of all kinds
//! and SQL of all kinds, none of which may be in a log (at `-vv`), an export, a metric, a balance or a report.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tracer_tests::rotel::{self, Collector, Sink};
use tracer_tests::secrets::{Said, assert_none};
use tracer_tests::{Agent, Outcome, RedisServer, Secrets, Target, program, require_root};

mod redis_commands;
mod sql_statements;

/// Writes the list that `secret_target` reads.
fn list<T: serde::Serialize>(folder: &TempDir, items: &[T]) -> PathBuf {
    let path = folder.path().join("list");
    std::fs::write(&path, serde_json::to_vec(items).expect("JSON")).expect("there is room for it");
    path
}

fn spans_of<'a>(outcome: &'a Outcome, system: &'a str) -> usize {
    outcome.spans.iter().filter(|span| span.attribute("db.system.name") == system).count()
}

/// Arguments in which programs are given secrets; `{}` is one.
const ARGUMENTS: &[&str] = &[
    "--password={}",
    "--password",
    "{}",
    "-p{}",
    "-p",
    "{}",
    "--token:{}",
    "--{}",
    "--{}={}",
    "-{}",
    "redis://:{}@127.0.0.1/0",
    "mysql://user:{}@127.0.0.1/shop?ssl-key={}",
    "https://{}:{}@example.invalid/{}?token={}#{}",
    "PASSWORD={}",
    "api_key={}",
    "Authorization: Bearer {}",
    "--header=X-Api-Key: {}",
    "/run/secrets/{}",
    "--port={}",
    "--port",
    "{}",
    "--log-level={}",
    "{{\"password\": \"{}\"}}",
    "--db.url=jdbc:postgresql://h/db?user={}&password={}",
    "{}",
];
const VARIABLES: &[&str] =
    &["PASSWORD", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "TOKEN", "OTEL_EXPORTER_OTLP_HEADERS", "HOME"];

#[test]
fn command_lines_environments_and_messages_stay_here() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let mut secrets = Secrets::new(1);
    let mut targets: Vec<Target> = (0..40)
        .map(|_| {
            let mut command = Command::new(program("secret_target"));
            command.args(ARGUMENTS.iter().map(|argument| secrets.fill(argument)));
            command.envs(VARIABLES.iter().map(|name| (name, secrets.fill("u:{}@h,x={}"))));
            Target::spawn(&mut command)
        })
        .collect();
    let texts: Vec<String> = (0..40).map(|_| secrets.fill("{} {}")).collect();
    let path = list(&folder, &texts);
    let pids: Vec<String> = targets.iter().map(|target| target.pid().to_string()).collect();
    let pids: Vec<&str> = std::iter::once("-p").chain(pids.iter().map(String::as_str)).collect();
    let recording = folder.path().join("recording");
    let ask = |targets: &mut [Target]| {
        for target in targets {
            assert_eq!(target.ask(&format!("messages {}", path.display())), texts.len());
        }
    };

    // Off: not even the names of options are said.
    let agent = Agent::run(&[&["-vv"], pids.as_slice()].concat());
    ask(&mut targets);
    let outcome = agent.stop();
    outcome.assert_complete();
    outcome.assert_no_secrets();
    assert!(!outcome.exported.contains("--password"), "arguments go out only when asked for");
    assert!(outcome.spans.len() > texts.len(), "{:#}", outcome.stats);

    // On: what is no value.
    let agent = Agent::run(&[&["-vv", "--command-args"], pids.as_slice()].concat());
    let recorder = record(&recording, &pids);
    ask(&mut targets);
    let outcome = agent.stop();
    outcome.assert_complete();
    outcome.assert_no_secrets();
    assert!(outcome.exported.contains("--password=?") && outcome.exported.contains("process.command_args"));
    let output = Command::new(program("tracer")).args(["-vv", "inspect", pids[1]]).output().expect("tracer runs");
    assert!(output.status.success());
    assert_none("what inspect says", &format!("{output:?}"));
    drop(targets);
    // The session ends with its targets.
    assert_none("the log of the recorder", &recorder.end());
    assert!(secrets.planted() > 1_500, "{}", secrets.planted());

    // A recording has what the sockets had, and these targets have none: of the processes themselves it holds no secret. The
    // messages are in it as they were.
    let whole = std::fs::read(&recording).expect("it was written");
    let frames = String::from_utf8_lossy(&whole);
    let processes: Vec<&str> =
        frames.split("{\"id\":").skip(1).map(|frame| frame.split('\u{0}').next().unwrap_or_default()).collect();
    assert!(processes.len() >= targets_in(&pids), "{} processes", processes.len());
    for process in processes {
        assert_none("the recording's description of a process", process);
    }
}

fn targets_in(pids: &[&str]) -> usize {
    pids.len() - 1
}

/// `tracer record` on these processes, once it records.
fn record(path: &Path, pids: &[&str]) -> Said {
    let mut recorder = Command::new(program("tracer"));
    let recorder = recorder.args(["-vv", "record", "-o"]).arg(path).args(pids).stderr(Stdio::piped());
    let mut said = Said::new(recorder.spawn().expect("tracer starts"));
    said.wait_until("Ctrl-C ends");
    said
}

/// Of a call's metadata and of the reason of a refusal nothing is said, neither of the ends that are traced without the shim nor in what
/// is kept for the next session.
#[test]
fn metadata_of_grpc_calls_stays_here() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let mut secrets = Secrets::new(4);
    let texts: Vec<String> = (0..500).map(|_| secrets.word()).collect();
    let path = list(&folder, &texts);
    let mut target = Target::spawn(Command::new(program("grpc_target")).env("TOKEN", secrets.word()));
    let port = target.ask("serve");
    let cache = folder.path().join("cache");
    let pid = target.pid().to_string();
    let mut tracer = Command::new(program("tracer"));
    tracer.env("XDG_CACHE_HOME", &cache);
    let agent = Agent::run_by(tracer, &["-vv", "-p", &pid]);
    target.ask(&format!("metadata {port} {}", path.display()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    outcome.assert_no_secrets();
    assert!(outcome.spans.iter().filter(|span| span.name == "encode CounterRequest").count() == texts.len());
    let plans: Vec<PathBuf> = std::fs::read_dir(cache.join("tracer"))
        .expect("plans are kept")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!plans.is_empty());
    for plan in plans {
        assert_none("a kept plan", &String::from_utf8_lossy(&std::fs::read(plan).expect("it can be read")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_commands_stay_here() {
    require_root();
    let server = RedisServer::start();
    let folder = TempDir::new().expect("a temporary folder");
    let sink = Sink::start().await.expect("it listens");
    let rotel = rotel::agent(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("rotel is installed");
    let collector = Collector::start(&rotel, folder.path(), sink.address).expect("it starts");
    let mut secrets = Secrets::new(2);
    let mut target = Target::start("secret_target");
    let otlp = format!("otlp:http://{}", collector.http);
    let pid = target.pid().to_string();
    let agent = Agent::run(&["-vv", "--blame", "--export", &otlp, "-p", &pid, "-n", "redis-cli"]);
    for round in 0..12 {
        let calls = redis_commands::calls(&mut secrets, round % 3);
        let path = list(&folder, &calls);
        target.ask(&format!("raw {} {}", server.address(), path.display()));
    }
    redis_commands::redis_cli(&mut secrets, &server, folder.path());
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_no_secrets();
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
    assert!(secrets.planted() > 10_000, "{}", secrets.planted());
    let spans = spans_of(&outcome, "redis");
    assert!(spans > 1_500, "{spans} spans: {:#}", outcome.stats);
    for name in ["AUTH", "HELLO", "ACL SETUSER", "CONFIG SET", "EVAL", "MIGRATE", "_OTHER"] {
        assert!(outcome.spans.iter().any(|span| span.name == name), "no span of {name}");
    }
    let traces = sink.take(outcome.spans.len()).expect("they come");
    assert_none("the collector's traces", &format!("{traces:?}"));
    let metrics = sink.take_metrics(|requests| !requests.is_empty()).expect("they come");
    assert_none("the collector's metrics", &format!("{metrics:?}"));
}

#[test]
fn sql_stays_here() {
    require_root();
    let server = tracer_tests::MariaDb::start();
    let folder = TempDir::new().expect("a temporary folder");
    let mut secrets = Secrets::new(3);
    let mut target = Target::start("secret_target");
    let pid = target.pid().to_string();
    let agent = Agent::run(&["-vv", "-p", &pid, "-n", "mariadb"]);
    for mode in sql_statements::MODES {
        let texts = sql_statements::texts(&mut secrets, mode, 400);
        let path = list(&folder, &texts);
        target.ask(&format!("statements {} {}", server.url(), path.display()));
        for charset in sql_statements::CHARSETS {
            sql_statements::mariadb(&mut secrets, &server, mode, charset, folder.path());
        }
    }
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_no_secrets();
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
    assert!(secrets.planted() > 3_000, "{}", secrets.planted());
    let spans = spans_of(&outcome, "mariadb");
    assert!(spans > 1_500, "{spans} spans: {:#}", outcome.stats);
    // The texts are there, and not only their first words.
    let whole =
        outcome.spans.iter().filter(|span| span.attribute("db.query.text").ends_with("WHERE a = ? AND b = ?")).count();
    assert!(whole > 30, "{whole} texts to their end");
}

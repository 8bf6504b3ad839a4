//! A recording makes the same spans as often as it is replayed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tracer_tests::{RedisServer, Target, program, require_root, spans};

#[test]
fn a_recording_replays_to_the_same_spans_without_root() {
    require_root();
    let server = RedisServer::start();
    let folder = TempDir::new_in("/tmp").expect("a temporary folder");
    let recording = folder.path().join("recording");
    let mut target = Target::start("redis_target");
    let mut recorder = Command::new(program("tracer"))
        .args(["record", "-p", &target.pid().to_string(), "-o"])
        .arg(&recording)
        .stderr(Stdio::piped())
        .spawn()
        .expect("tracer starts");
    let mut said = BufReader::new(recorder.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("Ctrl-C ends") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("tracer writes UTF-8"), 0, "tracer ended");
    }
    target.ask(&format!("flow {} 200", server.address()));
    assert!(target.end().success());
    assert!(recorder.wait().expect("it is our child").success(), "the session ends with its only target");

    let replay = |name: &str| {
        let path = folder.path().join(name);
        let stats = folder.path().join("stats.json");
        let status = Command::new(program("tracer"))
            .arg("replay")
            .arg(&recording)
            .arg("--export")
            .arg(format!("file:{}", path.display()))
            .arg("--stats-json")
            .arg(&stats)
            .stderr(Stdio::null())
            .status()
            .expect("tracer runs");
        assert!(status.success());
        let stats: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(stats).expect("it was written")).expect("JSON");
        assert_eq!(stats["balanced"], true, "{stats:#}");
        let mut spans = spans::parse(&std::fs::read_to_string(path).expect("it was written"));
        // Their order in the file depends on how they were batched: each batch is sorted by process.
        spans.sort_by(|a, b| (&a.trace, &a.id).cmp(&(&b.trace, &b.id)));
        spans
    };
    let first = replay("first");
    assert_eq!(first.iter().filter(|span| span.name == "GET" && span.kind == 3).count(), 200);
    assert_eq!(first.iter().filter(|span| span.name.starts_with("process ")).count(), 200);
    assert_eq!(first, replay("second"));
}

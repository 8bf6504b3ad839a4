//! The files that the agent makes as root: only their owner can read them, and they lead nowhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tracer_tests::{RedisServer, Target, program, require_root};

fn tracer(arguments: &[&str]) -> Output {
    Command::new(program("tracer")).args(arguments).env("NO_COLOR", "1").output().expect("tracer runs")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// A recording of one target that sends a password; what `tracer record` said.
fn record(path: &Path) -> String {
    let server = RedisServer::start();
    let folder = TempDir::new().expect("a temporary folder");
    let list = folder.path().join("list");
    let calls = [b"AUTH hunter2\r\n".to_vec(), b"PING\r\n".to_vec()];
    fs::write(&list, serde_json::to_vec(&calls).expect("JSON")).expect("there is room for it");
    let mut target = Target::start("secret_target");
    let recorder = Command::new(program("tracer"))
        .args(["record", "-p", &target.pid().to_string(), "-o"])
        .arg(path)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("tracer starts");
    let mut said = tracer_tests::secrets::Said::new(recorder);
    said.wait_until("Ctrl-C ends");
    target.ask(&format!("raw {} {}", server.address(), list.display()));
    assert!(target.end().success());
    said.end()
}

#[test]
fn every_file_is_for_its_owner_alone() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let said = record(&path("recording"));
    assert!(said.contains("passwords and messages included"), "{said}");
    let recorded = fs::read(path("recording")).expect("it was written");
    assert!(String::from_utf8_lossy(&recorded).contains("hunter2"), "the warning is true");
    // One that was there, for all to read.
    fs::write(path("spans"), "from before").expect("there is room for it");
    fs::set_permissions(path("spans"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let spans = format!("file:{}", shown("spans"));
    let output = tracer(&["replay", &shown("recording"), "--export", &spans, "--stats-json", &shown("stats")]);
    assert!(output.status.success(), "{output:?}");
    let output = tracer(&["blame", &shown("recording"), "--svg", &shown("svg")]);
    assert!(output.status.success(), "{output:?}");
    for name in ["recording", "spans", "stats", "svg"] {
        assert_eq!(mode(&path(name)), 0o600, "{name}");
    }
    let exported = fs::read_to_string(path("spans")).expect("it was written");
    assert!(
        exported.contains("AUTH") && !exported.contains("from before") && !exported.contains("hunter2"),
        "{exported}, {:?}",
        fs::read_to_string(path("stats"))
    );
    let output = tracer(&["replay", &shown("recording"), "--export", "file:/dev/stdout"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(tracer_tests::spans::parse(&printed).len(), tracer_tests::spans::parse(&exported).len(), "{printed}");
}

#[test]
fn what_others_have_put_there_is_not_written_to() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("precious"), "precious").expect("there is room for it");
    symlink(path("precious"), path("link")).expect("a link");
    fs::hard_link(path("precious"), path("hard")).expect("a link");
    fs::write(path("theirs"), "theirs").expect("there is room for it");
    chown(path("theirs"), Some(65_534), None).expect("root may");
    assert!(Command::new("mkfifo").arg(path("fifo")).status().expect("coreutils").success());
    for (name, words) in [
        ("link", "symbolic link"),
        ("hard", "hard link"),
        ("theirs", "belongs to user 65534"),
        ("fifo", "not a regular file"),
    ] {
        let shown = path(name).display().to_string();
        let export = format!("file:{shown}");
        for arguments in [
            &["run", "--export", &export, "--", "true"][..],
            &["run", "--export", "none", "--stats-json", &shown, "--", "true"],
            &["record", "-o", &shown, "--", "true"],
        ] {
            let output = tracer(arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(words) && said.contains(&shown), "{arguments:?}: {said}");
        }
    }
    assert_eq!(fs::read_to_string(path("precious")).expect("it is there"), "precious");
    assert_eq!(fs::read_to_string(path("theirs")).expect("it is there"), "theirs");
}

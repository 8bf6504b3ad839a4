//! The package in a fresh Debian: installed, used, upgraded, and gone without a trace.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tracer_tests::debian::ended_well;
use tracer_tests::{Debian, Target, program, require_root, spans};

/// The package that `cargo xtask dist` has made.
fn package() -> PathBuf {
    std::env::var_os("TRACER_DEB").expect("`cargo xtask test --full` sets it").into()
}

/// The same package with a later version.
fn next_version(folder: &Path) -> PathBuf {
    let (tree, later) = (folder.join("tree"), folder.join("later.deb"));
    ended_well(Command::new("dpkg-deb").arg("-R").arg(package()).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("it has one");
    let version = text.lines().find(|line| line.starts_with("Version: ")).expect("it has one");
    fs::write(&control, text.replace(version, "Version: 99.0.0-1")).expect("written");
    ended_well(Command::new("dpkg-deb").arg("-b").arg(&tree).arg(&later));
    later
}

/// A program as the unit starts it: another user, with the capabilities of the unit.
fn as_the_unit(debian: &Debian, program: &str) -> Command {
    let unit = fs::read_to_string(debian.path("/lib/systemd/system/tracer.service")).expect("it is installed");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).expect("it has capabilities");
    let names: Vec<String> = line.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
    let capabilities = names.join(",");
    let mut command = debian.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
    command.args(["--inh-caps", &capabilities, "--ambient-caps", &capabilities]);
    command.args(["--bounding-set", &format!("-all,{capabilities}")]).arg(program);
    command
}

/// The session of a service that makes 100 messages; its spans and its balance.
fn session(mut tracer: Command, debian: &Debian) -> (Vec<tracer_tests::Span>, Value) {
    tracer.args(["run", "--export", "file:/tmp/spans.jsonl", "--stats-json", "/tmp/stats.json", "--", "/opt/service"]);
    let mut service = Target::spawn(&mut tracer);
    service.ask("messages 100");
    assert!(service.end().success(), "the session ends well");
    let read = |path: &str| {
        let (path, name) = (debian.path(path), path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::remove_file(&path).expect("it was there");
        text
    };
    (spans::parse(&read("/tmp/spans.jsonl")), serde_json::from_str(&read("/tmp/stats.json")).expect("JSON"))
}

#[test]
#[ignore = "needs the packages and a Debian of its own: `cargo xtask test --full`"]
fn the_package_comes_works_and_goes() {
    require_root();
    let debian = Debian::fresh();
    fs::copy(program("prost_target"), debian.path("/opt/service")).expect("copied");
    fs::copy(package(), debian.path("/opt/tracer.deb")).expect("copied");
    for folder in ["/var/lib/private", "/var/cache/private"] {
        fs::create_dir(debian.path(folder)).expect("systemd has made it where it runs");
    }
    let before = debian.changed();

    debian.run("dpkg", &["-i", "/opt/tracer.deb"]);
    assert_eq!(fs::metadata(debian.path("/usr/bin/tracer")).expect("it is installed").mode() & 0o7777, 0o755);
    for file in ["/usr/share/man/man1/tracer-run.1.gz", "/usr/share/bash-completion/completions/tracer"] {
        assert!(debian.path(file).is_file(), "{file}");
    }
    debian.run("tracer", &["doctor"]);
    for tracer in [debian.command("tracer"), as_the_unit(&debian, "tracer")] {
        let (spans, stats) = session(tracer, &debian);
        assert!(spans.len() > 100, "{} spans: {stats:#}", spans.len());
        assert_eq!((&stats["balanced"], &stats["lost"]), (&json!(true), &json!({})), "{stats:#}");
    }

    let config = debian.path("/etc/tracer/tracer.yaml");
    let edited = "name: [service]\n";
    fs::write(&config, edited).expect("written");
    let folder = TempDir::new().expect("a temporary folder");
    fs::copy(next_version(folder.path()), debian.path("/opt/tracer.deb")).expect("copied");
    debian.run("dpkg", &["-i", "/opt/tracer.deb"]);
    assert_eq!(
        debian.run("dpkg-query", &["-W", "-f", "${Version} ${Status}", "tracer"]),
        "99.0.0-1 install ok installed"
    );
    assert_eq!(fs::read_to_string(&config).expect("it is there"), edited, "what was configured stays");

    for folder in ["/var/lib/private/tracer", "/var/cache/private/tracer"] {
        fs::create_dir(debian.path(folder)).expect("made");
        fs::write(debian.path(folder).join("left"), "by the service").expect("written");
    }
    debian.run("dpkg", &["--remove", "tracer"]);
    assert!(!debian.path("/usr/bin/tracer").exists() && config.exists(), "only the configuration stays");
    debian.run("dpkg", &["--purge", "tracer"]);
    assert_eq!(debian.changed(), before);
}

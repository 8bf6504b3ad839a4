//! Bad input and bad surroundings: what the command line says and how it exits.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tracer_tests::{Agent, Target, program, require_root, wait_for};

fn tracer(arguments: &[&str]) -> Output {
    Command::new(program("tracer")).args(arguments).env("NO_COLOR", "1").output().expect("tracer runs")
}

/// Fails unless `output` ended with `code` and said all of `words`.
fn assert_says(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn nothing_to_trace_is_explained() {
    assert_says(&tracer(&["run"]), 3, &["-n NAME", "tracer ps"]);
}

#[test]
fn no_such_process() {
    require_root();
    assert_says(&tracer(&["run", "-p", "4194305"]), 3, &["4194305", "tracer ps"]);
    assert_says(&tracer(&["inspect", "4194305"]), 3, &["4194305"]);
}

#[test]
fn no_such_command() {
    require_root();
    assert_says(&tracer(&["run", "--", "/no/such/program"]), 1, &["/no/such/program"]);
}

#[test]
fn wrong_usage() {
    assert_says(&tracer(&["run", "--no-such-flag"]), 2, &["--no-such-flag"]);
    assert_says(&tracer(&["run", "-n", "x", "--sampler", "sometimes"]), 2, &["sometimes", "parentbased_always_on"]);
    assert_says(&tracer(&["run", "-n", "x", "--export", "nowhere"]), 2, &["nowhere", "file:PATH"]);
    assert_says(&tracer(&["run", "-n", "x", "--duration", "1s"]), 2, &["1s", "--duration <SECS>", "whole number"]);
    assert_says(&tracer(&["run", "-p", "ufes"]), 2, &["ufes", "number of a process", "-n"]);
    assert_says(&tracer(&["run", "-n", "a["]), 1, &["\"a[\"", "pattern"]);
}

#[test]
fn files_that_are_no_programs() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("it can be written");
        path.display().to_string()
    };
    let text = write("text", b"#!/bin/sh\n");
    assert_says(&tracer(&["inspect", &text]), 1, &[&text, "not an ELF file"]);
    assert_says(&tracer(&["inspect", "/no/such/file"]), 1, &["/no/such/file"]);
    let elf = std::fs::read(program("prost_target")).expect("it was built");
    let truncated = write("truncated", &elf[..elf.len() / 3]);
    let output = tracer(&["inspect", &truncated]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("truncated") || said.contains("damaged"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_stripped_program_is_told_apart_with_its_remedy() {
    let folder = TempDir::new().expect("a temporary folder");
    let stripped = folder.path().join("stripped");
    let status =
        Command::new("strip").arg("-o").arg(&stripped).arg(program("prost_target")).status().expect("binutils");
    assert!(status.success());
    let output = tracer(&["inspect", &stripped.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("stripped") || said.contains("symbol"), "{said}");
    assert!(said.contains("strip"), "the build flag: {said}");
}

#[test]
fn without_root() {
    require_root();
    // Where `nobody` can read it.
    let folder = TempDir::new_in("/tmp").expect("a temporary folder");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).expect("it is ours");
    let copy = folder.path().join("tracer");
    std::fs::copy(program("tracer"), &copy).expect("it can be copied");
    let output = Command::new(&copy).args(["run", "-n", "x"]).uid(65_534).gid(65_534).output().expect("it runs");
    assert_says(&output, 4, &["CAP_BPF", "setcap", "sudo"]);
    let output = Command::new(&copy).arg("doctor").uid(65_534).gid(65_534).output().expect("it runs");
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("sudo"));
}

/// Hides a folder of /sys, as on a kernel without the feature, and runs `tracer` there.
fn tracer_without(folder: &str, arguments: &str) -> Output {
    let tracer = program("tracer");
    let script = format!("mount -t tmpfs none {folder} && exec {} {arguments}", tracer.display());
    let mut unshare = Command::new("unshare");
    // Kernels without uprobe_multi are those that need perf events.
    unshare.args(["--mount", "sh", "-c", &script]).env("TRACER_PERF_UPROBES", "1").output().expect("util-linux")
}

#[test]
fn a_kernel_without_the_feature() {
    require_root();
    let output = tracer_without("/sys/kernel/btf", "run -n x");
    assert_says(&output, 4, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"]);
    let target = Target::start("prost_target");
    let output = tracer_without("/sys/bus/event_source/devices", &format!("run -p {}", target.pid()));
    assert_says(&output, 4, &["CONFIG_UPROBE_EVENTS"]);
    let output = tracer_without("/sys/kernel/btf", "doctor");
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("CONFIG_DEBUG_INFO_BTF"));
}

/// Always off: every span is sampled out, and counted.
#[test]
fn the_sampler_decides_and_every_span_is_counted() {
    require_root();
    for (sampler, kept) in [("always_off", 0.0), ("parentbased_traceidratio=0.25", 0.25), ("always_on", 1.0)] {
        let mut target = Target::start("prost_target");
        let agent = Agent::run(&["-p", &target.pid().to_string(), "--sampler", sampler]);
        target.ask("messages 500");
        let outcome = agent.stop();
        outcome.assert_complete();
        let (produced, exported) = (outcome.count("/produced"), outcome.count("/exporters/0/exported"));
        assert_eq!(produced, exported + outcome.count("/sampled_out"), "{sampler}");
        assert_eq!(exported, outcome.spans.len() as u64, "{sampler}");
        let share = exported as f64 / produced as f64;
        assert!((share - kept).abs() < 0.1, "{sampler}: {share} of {produced} kept");
    }
}

#[test]
fn an_unwritable_file() {
    assert_says(&tracer(&["run", "-n", "x", "--export", "file:/no/such/folder/spans"]), 1, &["/no/such/folder/spans"]);
}

#[test]
fn an_invalid_configuration() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, "name: [a]\nsampler: sometimes\n").expect("it can be written");
    let path = path.display().to_string();
    assert_says(&tracer(&["run", "--config", &path]), 1, &[&path, "sometimes", "line 2"]);
    std::fs::write(&path, "name: [a\n").expect("it can be written");
    assert_says(&tracer(&["run", "--config", &path]), 1, &[&path, "line"]);
    std::fs::write(&path, "nmae: a\n").expect("it can be written");
    assert_says(&tracer(&["run", "--config", &path]), 1, &[&path, "nmae"]);
}

#[test]
fn a_process_that_ends_while_it_is_attached_to() {
    require_root();
    for _ in 0..5 {
        let target = Target::start("prost_target");
        let mut agent = Agent::start(&["-p", &target.pid().to_string()]);
        assert!(target.end().success());
        let code = agent_code(&mut agent);
        assert!(matches!(code, 0 | 1 | 3), "exit code {code}");
    }
}

/// Exit code of an agent whose only target has ended.
fn agent_code(agent: &mut Agent) -> i32 {
    let pid = agent.pid();
    wait_for("the agent to notice", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.starts_with('Z').then_some(())
    });
    agent.code()
}

#[test]
fn a_collector_that_is_not_there_for_the_whole_run() {
    require_root();
    let mut target = Target::start("prost_target");
    let port = tracer_tests::redis::free_port();
    let agent = Agent::run(&["-p", &target.pid().to_string(), "--export", &format!("otlp:http://127.0.0.1:{port}")]);
    target.ask("messages 100");
    let outcome = agent.stop();
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
    let otlp = &outcome.stats["exporters"][1];
    assert_eq!(otlp["accepted"], otlp["dropped"]["exporter_gave_up"], "{otlp:#}");
    assert!(outcome.said.contains(&port.to_string()), "{}", outcome.said);
    assert!(!outcome.spans.is_empty(), "the file has them");
}

#[test]
fn not_a_recording() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("x");
    let mut file = std::fs::File::create(&path).expect("it can be written");
    file.write_all(b"hello\n").expect("it can be written");
    assert_says(&tracer(&["replay", &path.display().to_string()]), 1, &["not a recording", "tracer record"]);
}

#[test]
fn help_and_completions() {
    for arguments in [["--help"].as_slice(), &["run", "--help"], &["completions", "bash"]] {
        let output = tracer(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.len() > 200);
    }
    assert!(Path::new(&program("tracer")).exists());
}

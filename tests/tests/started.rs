//! Programs that are started in any way: by the command of a session, by the dynamic loader, from memory, from a file that has
//! another name by now, or that load what is to be traced later.

use std::process::{Command, Stdio};

use tracer_tests::started::{Stage, prost_spans};
use tracer_tests::{Agent, Target, program, require_root};

/// The file is named in the command, so nothing is missed from the first instruction on.
#[test]
fn children_of_the_command_are_traced_from_their_start() {
    require_root();
    for before in ["", "env X=1", "nice", "timeout 50", "setsid --wait", "exec"] {
        let stage = Stage::new("started_child");
        let outcome = Agent::start(&["--", "sh", "-c", &stage.rounds(before, 30)]).wait();
        outcome.assert_complete();
        assert_eq!(prost_spans(&outcome.spans), stage.calls(), "{before:?}: {}", outcome.said);
    }
}

/// The file is found when it runs: what was missed before is said.
#[test]
fn grandchildren_whose_file_nobody_has_named_are_traced() {
    require_root();
    let stage = Stage::new("started_grandchild");
    std::fs::write(stage.path("Makefile"), format!("all:\n\tcp Makefile x && {}\n", stage.steered("env nice")))
        .expect("it can be written");
    let mut agent = Agent::start(&["--", "make", "-C", &stage.path("").display().to_string()]);
    agent.wait_until("tracing started_grandchild");
    stage.ask("messages 30");
    let outcome = agent.wait();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), stage.calls(), "{}", outcome.said);
    assert!(outcome.said.contains("are not seen"), "{}", outcome.said);
}

#[test]
fn a_daemon_that_the_command_leaves_behind_is_traced_to_its_end() {
    require_root();
    let stage = Stage::new("started_daemon");
    // The outer shell ends at once, the inner one as well: the daemon is a child of init.
    let daemon = stage.steered("exec setsid").replace("2>&1", "");
    let mut agent = Agent::start(&["--", "sh", "-c", &format!("( ( {daemon} ) & ) ; true")]);
    agent.wait_until("the command has ended, but not what it has started");
    stage.ask("messages 30");
    let outcome = agent.wait();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), stage.calls(), "{}", outcome.said);
}

/// Whoever runs the same file, but was not started by the command, is left alone.
#[test]
fn strangers_with_the_program_of_the_command_are_not_traced() {
    require_root();
    let stage = Stage::new("started_own");
    let mut agent = Agent::start(&["--", "sh", "-c", &stage.steered("")]);
    agent.wait_until("tracing started_own");
    let mut stranger = Target::spawn(&mut Command::new(stage.program()));
    stranger.ask("messages 30");
    stage.ask("messages 30");
    let outcome = agent.wait();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), stage.calls(), "{}", outcome.said);
    assert!(outcome.spans.iter().all(|span| span.pid != stranger.pid()));
}

/// A build starts very many programs in which there is nothing to trace.
#[test]
fn short_programs_of_the_command_are_passed_over_in_silence() {
    require_root();
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do cp /etc/passwd /dev/null; (true); cat /dev/null | sort; done";
    let outcome = Agent::start(&["--", "sh", "-c", script]).wait();
    outcome.assert_complete();
    assert!(!outcome.said.contains("WARN"), "{}", outcome.said);
    let told = outcome.said.lines().filter(|line| line.contains("(process") || line.contains("has ended")).count();
    assert_eq!(told, 0, "{}", outcome.said);
}

/// The kernel runs the loader, which maps the program later.
#[test]
fn a_program_that_is_given_to_the_dynamic_loader() {
    require_root();
    let stage = Stage::new("started_by_loader");
    let mut agent = Agent::run(&["-n", "started_by_loader"]);
    let mut command = Command::new("/lib64/ld-linux-x86-64.so.2");
    let mut target = Target::spawn(command.args(["--inhibit-cache", "--library-path", "/lib"]).arg(stage.program()));
    agent.wait_for_probes(target.pid());
    let calls = calls(&mut target);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
    assert!(outcome.spans.iter().all(|span| span.service == "started_by_loader"));
}

/// The same for one that is there already, asked for by number and by name.
#[test]
fn a_loaded_program_that_runs_already() {
    require_root();
    let stage = Stage::new("started_loaded");
    let mut target = Target::spawn(Command::new("/lib64/ld-linux-x86-64.so.2").arg(stage.program()));
    let pid = target.pid().to_string();
    for asked in [["-n", "started_loaded"], ["-p", pid.as_str()]] {
        let agent = Agent::run(&asked);
        let calls = calls(&mut target);
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(prost_spans(&outcome.spans), calls, "{asked:?}: {}", outcome.said);
    }
}

/// A program that never had a file.
#[test]
fn a_program_in_memory() {
    require_root();
    let script = "import os, sys\n\
        fd = os.memfd_create('started_in_memory')\n\
        os.write(fd, open(sys.argv[1], 'rb').read())\n\
        os.execve(fd, ['anything'], os.environ)";
    let mut agent = Agent::run(&["-n", "started_in_memory"]);
    let mut target = Target::spawn(Command::new("python3").args(["-c", script]).arg(program("prost_target")));
    agent.wait_for_probes(target.pid());
    let calls = calls(&mut target);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
}

/// The name under which it was started is still the one that users know.
#[test]
fn programs_that_were_renamed_or_deleted_since() {
    require_root();
    for (name, gone) in
        [("started_a", "rm"), ("started_with_a_long_name", "rm"), ("started_b", "mv"), ("started_c", "replace")]
    {
        let stage = Stage::new(name);
        let mut target = Target::spawn(&mut Command::new(stage.program()));
        match gone {
            "rm" => std::fs::remove_file(stage.program()).expect("it is there"),
            "mv" => std::fs::rename(stage.program(), stage.path("old")).expect("it is there"),
            // A deploy: another file has the name now, and must not be taken for the one that runs.
            _ => {
                std::fs::copy(program("redis_target"), stage.path("new")).expect("there is room");
                std::fs::rename(stage.path("new"), stage.program()).expect("it is there");
            }
        }
        let agent = Agent::run(&["-n", name]);
        let calls = calls(&mut target);
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(prost_spans(&outcome.spans), calls, "{name} {gone}: {}", outcome.said);
    }
}

/// Users know a script by its own name, and do not mean others with the same interpreter.
#[test]
fn a_script_is_meant_by_its_name_and_its_interpreter_is_not() {
    require_root();
    let stage = Stage::new("started_script.py");
    let script = "import sys\nprint('ready', flush=True)\nsys.stdin.read()";
    std::fs::write(stage.program(), script).expect("it can be written");
    let mut agent = Agent::run(&["-n", "started_script.py"]);
    let stranger = Target::spawn(Command::new("python3").args(["-c", script]));
    let target = Target::spawn(Command::new("python3").arg("-u").arg(stage.program()));
    agent.wait_until(&format!("(process {})", target.pid()));
    let again = Target::spawn(Command::new("python3").args(["-c", script]));
    for target in [target, stranger, again] {
        assert!(target.end().success());
    }
    let outcome = agent.stop();
    outcome.assert_complete();
    let traced = outcome.said.lines().filter(|line| line.contains("tracing python3")).count();
    assert_eq!(traced, 1, "{}", outcome.said);
}

/// A Rust core in a Python process: a library that comes long after the process was attached to, or with its start.
#[test]
fn a_library_that_is_loaded_later() {
    require_root();
    let library = tracer_tests::library("tracer_test_programs").display().to_string();
    let script = "import ctypes, sys\n\
        print('ready', flush=True)\n\
        library = None\n\
        for line in sys.stdin:\n    \
            if line == 'load\\n': library = ctypes.CDLL(sys.argv[1])\n    \
            print(library.test_rounds(100) if line == 'run\\n' else 0, flush=True)\n";
    let start = |name: &str| {
        let mut command = Command::new("python3");
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        Target::spawn(command.args(["-c", script, &library]).stderr(Stdio::inherit()))
    };
    for by_number in [true, false] {
        let mut target = start("python3");
        let pid = target.pid().to_string();
        let mut agent = if by_number { Agent::run(&["-p", &pid]) } else { Agent::run(&["-n", "python3*"]) };
        target.ask("load");
        agent.wait_for_probes(target.pid());
        let mut calls = target.ask("run").as_u64().expect("a number");
        if !by_number {
            // Its probes are there before the second process loads it.
            let mut second = start("python3");
            second.ask("load");
            calls += second.ask("run").as_u64().expect("a number");
        }
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
    }
}

/// Calls that the target has made in some rounds.
fn calls(target: &mut Target) -> u64 {
    let answer = target.ask("messages 30");
    answer.as_object().expect("calls by name").values().map(|call| call["count"].as_u64().unwrap_or(0)).sum()
}

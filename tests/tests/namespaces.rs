//! PID namespaces, mount namespaces and control groups: the agent inside of one, and targets inside of one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tracer_tests::started::{Stage, prost_spans};
use tracer_tests::{Agent, Target, program, require_root};

/// Runs `tracer` with arguments in new namespaces.
fn tracer_inside(unshare: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(unshare).arg(program("tracer")).args(arguments).env("NO_COLOR", "1");
    command.output().expect("util-linux")
}

/// Process numbers in there are others than the kernel's: nobody is traced rather than a stranger.
#[test]
fn an_agent_in_a_nested_pid_namespace_refuses_with_the_remedy() {
    require_root();
    let stage = Stage::new("nested");
    let recording = stage.path("recording").display().to_string();
    let commands: [&[&str]; 4] = [
        &["run", "--export", "none", "-n", "nested"],
        &["run", "--export", "none", "--", "true"],
        &["record", "-o", &recording, "-n", "nested"],
        &["doctor"],
    ];
    let nested = ["--pid", "--fork", "--mount-proc"];
    // /proc shows the host's processes, and the agent is none of them by the number that it knows.
    let with_the_hosts_proc = ["--pid", "--fork"];
    for unshare in [nested.as_slice(), &with_the_hosts_proc] {
        for arguments in commands {
            let output = tracer_inside(unshare, arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(4), "{unshare:?} {arguments:?}: {said}");
            assert!(said.contains("namespace") && said.contains("--pid=host"), "{arguments:?}: {said}");
        }
    }
    assert!(!Path::new(&recording).exists());
}

/// The agent knows a process by the number that it has on the host.
#[test]
fn a_target_in_a_namespace_of_its_own() {
    require_root();
    let stage = Stage::new("in_namespace");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]).arg(stage.program());
    let mut target = Target::spawn(&mut command);
    let pid = child_of(target.pid()).to_string();
    for asked in [["-n", "in_namespace"], ["-p", pid.as_str()]] {
        let agent = Agent::run(&asked);
        let calls = calls(&mut target);
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!(prost_spans(&outcome.spans), calls, "{asked:?}: {}", outcome.said);
        assert!(outcome.spans.iter().all(|span| span.pid.to_string() == pid));
    }
}

#[test]
fn a_command_that_puts_its_children_into_a_namespace() {
    require_root();
    let stage = Stage::new("nested_child");
    let script = format!("exec unshare --pid --fork --mount-proc sh -c '{}'", stage.rounds("", 30));
    let outcome = Agent::start(&["--", "sh", "-c", &script]).wait();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), stage.calls(), "{}", outcome.said);
}

/// A root of its own, in which absolute links lead elsewhere than on the host, and files that the host does not have.
#[test]
fn a_target_in_a_root_of_its_own() {
    require_root();
    let stage = Stage::new("in_root");
    let script = r#"set -e
        root=$1; program=$2
        mount -t tmpfs tmpfs "$root"
        for name in bin sbin lib lib64; do ln -s "/usr/$name" "$root/$name"; done
        mkdir "$root/usr" "$root/opt" "$root/only-here"
        mount --rbind /usr "$root/usr"
        cp "$program" "$root/only-here/in_root"
        ln -s /only-here/in_root "$root/opt/in_root"
        exec chroot "$root" /opt/in_root"#;
    let root = stage.path("root");
    std::fs::create_dir(&root).expect("a folder");
    let mut agent = Agent::run(&["-n", "in_root"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&root).arg(stage.program());
    let mut target = Target::spawn(&mut command);
    agent.wait_for_probes(target.pid());
    let calls = calls(&mut target);
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), calls, "{}", outcome.said);
}

/// A control group as engines make it; dropping it removes it.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new(name: &str) -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| Path::new(root).join("cgroup.procs").exists())
            .expect("control groups of version 2 are mounted");
        let group = Self(Path::new(root).join(name));
        std::fs::create_dir(&group.0).expect("a control group");
        group
    }

    fn add(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("root may");
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Processes of a failed test may still be in it.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_container_by_the_beginning_of_its_id() {
    require_root();
    let id = format!("{:08x}{}", std::process::id(), "0123456789abcdef".repeat(4).split_at(8).1);
    let group = ControlGroup::new(&format!("docker-{id}.scope"));
    let stage = Stage::new("contained");
    let mut inside = Target::spawn(&mut Command::new(stage.program()));
    group.add(inside.pid());
    let mut outside = Target::spawn(&mut Command::new(stage.program()));
    let mut agent = Agent::run(&["--container", &id[..12]]);
    // One that comes later: the shell is in the container when it becomes the program.
    let script = format!("echo $$ > {}/cgroup.procs; exec {}", group.0.display(), stage.program().display());
    let mut later = Target::spawn(Command::new("sh").args(["-c", &script]));
    agent.wait_until(&format!("(process {})", later.pid()));
    let expected = calls(&mut inside) + calls(&mut later);
    calls(&mut outside);
    for target in [inside, later, outside] {
        assert!(target.end().success());
    }
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(prost_spans(&outcome.spans), expected, "{}", outcome.said);
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    children.trim().parse().expect("one child")
}

/// Calls that the target has made in some rounds.
fn calls(target: &mut Target) -> u64 {
    let answer = target.ask("messages 30");
    answer.as_object().expect("calls by name").values().map(|call| call["count"].as_u64().unwrap_or(0)).sum()
}

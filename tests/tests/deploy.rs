//! Files that change under the agent's probes, in all the ways in which services are deployed: what runs is never harmed, and
//! the new build is traced.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tracer_tests::service::{Service, messages};
use tracer_tests::{Agent, Outcome, program, require_root, v0_program};

/// Two builds of one program: they do the same, by other code.
fn builds() -> [PathBuf; 2] {
    [program("prost_target"), v0_program("prost_target")]
}

/// Calls that were seen of a process.
fn seen(outcome: &Outcome, pid: u32) -> u64 {
    let call = |name: &str| name.starts_with("encode") || name.starts_with("decode");
    outcome.spans.iter().filter(|span| span.pid == pid && call(&span.name)).count() as u64
}

/// What the agent says when it has attached to a process.
fn traced(pid: u32) -> String {
    format!("(process {pid}): ")
}

fn number(calls: &BTreeMap<String, (u64, u64)>) -> u64 {
    calls.values().map(|(count, _)| count).sum()
}

/// What a build does without an agent.
fn untraced(build: &Path) -> BTreeMap<String, (u64, u64)> {
    let service = Service::new(build);
    let mut target = service.start();
    let calls = messages(&mut target, 30);
    assert!(target.end().success());
    calls
}

/// Runs the first build, replaces it by the second in the moment in which it ends, and runs that; then the other way round.
fn replaced(service: &Service, script: &str) {
    let builds = builds();
    let right = untraced(&builds[1]);
    let mut agent = Agent::run(&["-n", service.name()]);
    let mut expected = Vec::new();
    for round in 0..4 {
        let mut target = service.start();
        let pid = target.pid();
        agent.wait_until(&traced(pid));
        assert_eq!(messages(&mut target, 30), right, "{script}: round {round}");
        assert!(target.end().success(), "{script}: round {round}");
        expected.push(pid);
        service.replace(script, &builds[(round + 1) % 2]);
        assert_eq!(fs::read(service.path()).unwrap(), fs::read(&builds[(round + 1) % 2]).unwrap(), "{script}");
    }
    let outcome = agent.stop();
    outcome.assert_complete();
    for pid in expected {
        assert_eq!(seen(&outcome, pid), number(&right), "{script}: process {pid}\n{}", outcome.said);
    }
}

#[test]
fn a_file_that_is_written_over_in_place_runs_as_untraced() {
    require_root();
    for script in [
        "cp $NEW $SERVICE",
        "cat $NEW > $SERVICE",
        "dd if=$NEW of=$SERVICE bs=64k conv=notrunc status=none; truncate -r $NEW $SERVICE",
        "rsync --inplace --no-whole-file $NEW $SERVICE",
        "rsync --inplace --whole-file --times $NEW $SERVICE",
    ] {
        replaced(&Service::new(&builds()[0]), script);
    }
}

#[test]
fn a_file_that_is_replaced_by_another_runs_as_untraced() {
    require_root();
    for script in [
        "install -m 755 $NEW $SERVICE",
        "cp $NEW next; mv next $SERVICE",
        "rm $SERVICE; cp $NEW $SERVICE",
        "rsync $NEW $SERVICE",
        // As dpkg does.
        "cp $NEW $SERVICE.dpkg-new; ln $SERVICE $SERVICE.dpkg-tmp; mv $SERVICE.dpkg-new $SERVICE; rm $SERVICE.dpkg-tmp",
    ] {
        replaced(&Service::new(&builds()[0]), script);
    }
}

/// A file system that shows a folder with changes that are kept elsewhere, as container runtimes do. A mount, gone with the value.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn new(file: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs tmpfs $0; cd $0; mkdir lower upper work merged; cp $1 lower/$2;
            mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged";
        let status = Command::new("bash")
            .args(["-euc", script])
            .arg(folder.path())
            .arg(file)
            .arg(Service::name_in(folder.path()))
            .status()
            .unwrap();
        assert!(status.success());
        Self(folder)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path().join("merged")).status();
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The first write to a file of a lower layer makes a copy of it in the upper one: another file with, perhaps, the same number.
#[test]
fn a_file_of_a_lower_layer_is_copied_up() {
    require_root();
    let overlay = Overlay::new(&builds()[0]);
    let folder = overlay.0.path();
    replaced(&Service::at(folder.join("merged").join(Service::name_in(folder))), "cp $NEW $SERVICE");
}

/// Fifty times in a row, and nobody waits for the agent: each build starts as soon as it is there.
#[test]
fn a_script_that_deploys_again_and_again_is_not_disturbed() {
    require_root();
    let builds = builds();
    let right = untraced(&builds[0]);
    let service = Service::new(&builds[0]);
    let mut agent = Agent::run(&["-n", service.name()]);
    for round in 0..50 {
        service.replace(if round % 3 == 0 { "cat $NEW > $SERVICE" } else { "cp $NEW $SERVICE" }, &builds[round % 2]);
        let mut target = service.start();
        assert_eq!(messages(&mut target, 30), right, "round {round}");
        assert!(target.end().success(), "round {round}");
    }
    let mut target = service.start();
    agent.wait_until(&traced(target.pid()));
    messages(&mut target, 30);
    let (pid, status) = (target.pid(), target.end());
    assert!(status.success());
    let outcome = agent.stop();
    assert_eq!((outcome.code, &outcome.stats["balanced"]), (Some(0), &true.into()), "{}", outcome.said);
    assert_eq!(seen(&outcome, pid), number(&right), "{}", outcome.said);
}

/// A process that has a file mapped as code, as it has a library; it copies what it sees there to a file.
const MAPPER: &str = "
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    code = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
print('ready', flush=True)
for line in sys.stdin:
    with open(line.strip(), 'wb') as file:
        file.write(code)
    print('done', flush=True)
";

/// Maps a service's file.
struct Mapper {
    child: Child,
    output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Mapper {
    fn start(service: &Service) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", MAPPER]).arg(service.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut mapper = Self { child, output, folder: tempfile::tempdir().unwrap() };
        assert_eq!(mapper.line(), "ready");
        mapper
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn sees(&mut self) -> Vec<u8> {
        let copy = self.folder.path().join("copy");
        writeln!(self.child.stdin.as_mut().unwrap(), "{}", copy.display()).unwrap();
        assert_eq!(self.line(), "done");
        fs::read(copy).unwrap()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Who writes to a file that running processes have mapped waits a moment, and then they see what he wrote and nothing else.
#[test]
fn a_library_that_is_written_over_while_it_is_mapped_is_as_untraced() {
    require_root();
    let service = Service::new(&builds()[0]);
    let original = fs::read(service.path()).unwrap();
    let mut mapper = Mapper::start(&service);
    let mut agent = Agent::run(&["-p", &mapper.child.id().to_string()]);
    assert_ne!(mapper.sees(), original, "there are breakpoints in it");
    let mut changed = original.clone();
    changed.reverse();
    let start = Instant::now();
    let mut file = File::options().write(true).truncate(true).open(service.path()).unwrap();
    let waited = start.elapsed();
    file.write_all(&changed).unwrap();
    drop(file);
    eprintln!("who wanted to write waited {waited:?}");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert!(mapper.sees() == changed);
    agent.wait_until("is being written to");
    mapper.end();
    agent.stop().assert_complete();
}

/// Without truncation the kernel may leave a process the old text of a page that had a breakpoint, but never the breakpoint.
#[test]
fn a_library_that_is_patched_while_it_is_mapped_has_no_breakpoints() {
    const PAGE: usize = 4096;
    require_root();
    let service = Service::new(&builds()[0]);
    let original = fs::read(service.path()).unwrap();
    let mut mapper = Mapper::start(&service);
    let agent = Agent::run(&["-p", &mapper.child.id().to_string()]);
    let probed = mapper.sees();
    assert_ne!(probed, original, "there are breakpoints in it");
    let mut changed = original.clone();
    changed.reverse();
    let mut file = File::options().write(true).open(service.path()).unwrap();
    file.write_all(&changed).unwrap();
    drop(file);
    let seen = mapper.sees();
    let mut old = 0;
    for (index, page) in seen.chunks(PAGE).enumerate() {
        let same = |other: &[u8]| other.chunks(PAGE).nth(index) == Some(page);
        if !same(&changed) {
            assert!(same(&original) && !same(&probed), "page {index}");
            old += 1;
        }
    }
    eprintln!("{old} of {} pages keep their old text", seen.len().div_ceil(PAGE));
    mapper.end();
    agent.stop().assert_complete();
}

/// Without leases (as on FUSE) the probes go with the last process: what is written after that meets none.
#[test]
fn a_file_without_a_lease_is_given_up_with_its_last_process() {
    require_root();
    let service = Service::new(&builds()[0]);
    // The kernel gives no lease of a file of another user without CAP_LEASE.
    std::os::unix::fs::chown(service.path(), Some(12_345), None).unwrap();
    fs::set_permissions(service.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let right = untraced(&builds()[0]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-lease", "--inh-caps=-lease"]).arg(program("tracer"));
    let mut agent = Agent::run_by(command, &["-n", service.name()]);
    let mut pids = Vec::new();
    for round in 0..4 {
        let mut target = service.start();
        agent.wait_until(&traced(target.pid()));
        assert_eq!(messages(&mut target, 30), right, "round {round}");
        pids.push(target.pid());
        assert!(target.end().success(), "round {round}");
        agent.wait_until("has ended");
        service.replace("cp $NEW $SERVICE", &builds()[(round + 1) % 2]);
    }
    let outcome = agent.stop();
    outcome.assert_complete();
    for pid in pids {
        assert_eq!(seen(&outcome, pid), number(&right), "process {pid}\n{}", outcome.said);
    }
}

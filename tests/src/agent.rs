//! The agent as a child process.

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::Network;
use crate::spans::{self, Span};

/// A running `tracer run`; dropping it kills it.
pub struct Agent {
    child: Child,
    errors: BufReader<ChildStderr>,
    said: String,
    folder: TempDir,
}

/// What a session left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code.
    pub code: Option<i32>,
    /// Everything on standard error.
    pub said: String,
    /// Everything on standard output.
    pub printed: String,
    /// Exported spans.
    pub spans: Vec<Span>,
    /// The file that they were exported to, as it is.
    pub exported: String,
    /// The balance (`--stats-json`), null if there is none.
    pub stats: Value,
}

impl Agent {
    /// Starts `tracer run` with a file exporter and waits until it has attached.
    pub fn run(arguments: &[&str]) -> Self {
        Self::run_by(Command::new(crate::program("tracer")), arguments)
    }

    /// The same on another host.
    pub fn run_in(network: &Network, arguments: &[&str]) -> Self {
        Self::run_by(network.command(&crate::program("tracer")), arguments)
    }

    /// The same by a command that runs the agent with the arguments that follow: as `prlimit` does, or as another user.
    pub fn run_by(command: Command, arguments: &[&str]) -> Self {
        let mut agent = Self::start_by(command, arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    /// The same with other sizes of the eBPF maps than the usual ones.
    pub fn run_with_maps(sizes: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(crate::program("tracer"));
        command.env("TRACER_MAP_SIZES", sizes);
        Self::run_by(command, arguments)
    }

    /// Starts `tracer run` with a file exporter.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(crate::program("tracer")), arguments)
    }

    /// The same by a command, such as the agent itself with other variables.
    pub fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        command.arg("run").args(["--export", &format!("file:{}", folder.path().join("spans.jsonl").display())]);
        Self::launch(&mut command, folder, arguments)
    }

    /// The same without the file exporter, for more spans than a test can hold.
    pub fn run_without_file(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut agent = Self::launch(Command::new(crate::program("tracer")).arg("run"), folder, arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    fn launch(command: &mut Command, folder: TempDir, arguments: &[&str]) -> Self {
        // The agent may be another user's.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("it is ours");
        command
            .arg("--stats-json")
            .arg(folder.path().join("stats.json"))
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdout(File::create(folder.path().join("stdout")).expect("there is room for it"))
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("tracer starts");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, errors, said: String::new(), folder }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// A figure of its memory, by the name that the kernel has for it: `VmRSS` now, `VmHWM` at its highest.
    pub fn memory_kb(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        number.unwrap_or_else(|| panic!("no {figure} in {status}"))
    }

    /// Reads standard error until a line contains `text`.
    pub fn wait_until(&mut self, text: &str) {
        self.wait_for_line(|line| line.contains(text), text);
    }

    /// What it has said so far, as far as it was waited for.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Waits until it has put probes on prost functions of a process.
    pub fn wait_for_probes(&mut self, pid: u32) {
        let of_it = format!("(process {pid}): ");
        let has_probes = |line: &str| line.contains(&of_it) && !line.contains(" 0 prost functions");
        self.wait_for_line(has_probes, &of_it);
    }

    fn wait_for_line(&mut self, is_it: impl Fn(&str) -> bool, text: &str) {
        loop {
            let mut line = String::new();
            self.errors.read_line(&mut line).expect("tracer writes UTF-8");
            assert!(!line.is_empty(), "tracer ended before it said {text:?}:\n{}", self.said);
            self.said.push_str(&line);
            if is_it(&line) {
                return;
            }
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Outcome {
        self.signal(libc::SIGINT);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Outcome {
        self.errors.read_to_string(&mut self.said).expect("tracer writes UTF-8");
        let code = self.child.wait().expect("it is our child").code();
        assert!(!self.said.contains("the sandbox refused"), "{}", self.said);
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        Outcome {
            code,
            said: std::mem::take(&mut self.said),
            printed: read("stdout"),
            spans: spans::parse(&read("spans.jsonl")),
            exported: read("spans.jsonl"),
            stats: serde_json::from_str(&read("stats.json")).unwrap_or(Value::Null),
        }
    }

    /// Stops it as a debugger would; returns once it stands still.
    pub fn stop_for_a_while(&self) {
        self.signal(libc::SIGSTOP);
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        crate::wait_for("the agent to stand still", || state().contains(") T ").then_some(()));
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Lets it have so many more bytes of address space than it has now.
    pub fn limit_memory(&self, more: u64) {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
        const PAGE: u64 = 4096;
        let limit = libc::rlimit { rlim_cur: pages * PAGE + more, rlim_max: pages * PAGE + more };
        // SAFETY: the pointer is to a live local, and nothing is asked back.
        let result =
            unsafe { libc::prlimit(self.pid().cast_signed(), libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "prlimit: {}", std::io::Error::last_os_error());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Exit code of an agent that has ended by itself; -1 after a signal.
    pub fn code(&mut self) -> i32 {
        self.child.wait().expect("it is our child").code().unwrap_or(-1)
    }

    /// Kills it without any warning.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// Fails the test unless it ended well, nothing was lost and every equation holds.
    pub fn assert_complete(&self) {
        assert_eq!(self.code, Some(0), "{}", self.said);
        assert_eq!(self.stats["balanced"], true, "{:#}\n{}", self.stats, self.said);
        assert_eq!(self.stats["lost"], serde_json::json!({}), "{}", self.said);
        for exporter in self.stats["exporters"].as_array().expect("a list of exporters") {
            assert_eq!(exporter["dropped"], serde_json::json!({}), "{exporter:#}\n{}", self.said);
        }
    }

    /// Fails the test unless it ended well and every equation holds.
    pub fn assert_balanced(&self) {
        assert_eq!(self.code, Some(0), "{}", self.said);
        assert_eq!(self.stats["balanced"], true, "{:#}\n{}", self.stats, self.said);
    }

    /// What was lost by this cause.
    pub fn lost(&self, cause: &str) -> u64 {
        self.stats["lost"][cause].as_u64().unwrap_or(0)
    }

    /// Spans of a process whose name is, or begins with, this word.
    pub fn spans_of(&self, pid: u32, name: &str) -> u64 {
        let is_it = |span: &str| span == name || span.starts_with(&format!("{name} "));
        self.spans.iter().filter(|span| span.pid == pid && is_it(&span.name)).count() as u64
    }

    /// A counter by its path in the balance.
    pub fn count(&self, path: &str) -> u64 {
        self.stats.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {:#}", self.stats))
    }
}

//! The agent as a child process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
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
        let mut agent = Self::start(arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    /// The same on another host.
    pub fn run_in(network: &Network, arguments: &[&str]) -> Self {
        let mut agent = Self::spawn(network.command(&crate::program("tracer")), arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    /// The same by a command that runs the agent with the arguments that follow, as `prlimit` does.
    pub fn run_by(command: Command, arguments: &[&str]) -> Self {
        let mut agent = Self::spawn(command, arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    /// Starts `tracer run` with a file exporter.
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(crate::program("tracer")), arguments)
    }

    /// The same without the file exporter, for more spans than a test can hold.
    pub fn run_without_file(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut agent = Self::launch(Command::new(crate::program("tracer")).arg("run"), folder, arguments);
        agent.wait_until("Ctrl-C ends");
        agent
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        command.arg("run").args(["--export", &format!("file:{}", folder.path().join("spans.jsonl").display())]);
        Self::launch(&mut command, folder, arguments)
    }

    fn launch(command: &mut Command, folder: TempDir, arguments: &[&str]) -> Self {
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

    /// Reads standard error until a line contains `text`.
    pub fn wait_until(&mut self, text: &str) {
        self.wait_for_line(|line| line.contains(text), text);
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

    /// A counter by its path in the balance.
    pub fn count(&self, path: &str) -> u64 {
        self.stats.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {:#}", self.stats))
    }
}

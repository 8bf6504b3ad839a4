//! A target process that obeys one command per line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use serde_json::Value;

/// A running target; dropping it kills it.
pub struct Target {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Target {
    /// Starts a program of tests/programs and waits until it is ready.
    pub fn start(name: &str) -> Self {
        Self::spawn(&mut Command::new(crate::program(name)))
    }

    /// Starts a command that speaks the same way.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the target starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut target = Self { child, input, output };
        target.wait_until_ready();
        target
    }

    /// Waits until it is ready, also when it has begun anew.
    pub fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command without waiting for the answer.
    pub fn send(&mut self, command: &str) {
        let input = self.input.as_mut().expect("it was not closed");
        writeln!(input, "{command}").and_then(|()| input.flush()).expect("the target listens");
    }

    /// The next answer.
    pub fn answer(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("answer {line:?}: {error}"))
    }

    /// Sends a command and waits for the answer.
    pub fn ask(&mut self, command: &str) -> Value {
        self.send(command);
        self.answer()
    }

    /// Ends it in its own way.
    pub fn end(mut self) -> ExitStatus {
        drop(self.input.take());
        self.child.wait().expect("it is our child")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the target writes UTF-8");
        assert!(!line.is_empty(), "the target ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Programs that are started by something else than the test: a shell, `make`, the dynamic loader. They are steered through a
//! named pipe, and what they answer is read from a file.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::spans::Span;

/// A folder with a copy of `prost_target` under a name that nothing else has, and its pipe.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    name: String,
    /// Held open, so that who starts the program need not wait for the other end; closing it ends the program.
    input: RefCell<Option<File>>,
}

impl Stage {
    /// Copies the program.
    pub fn new(name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let stage = Self { folder, name: name.to_owned(), input: RefCell::default() };
        stage.copy_to(&stage.program());
        let made = Command::new("mkfifo").arg(stage.path("in")).status().expect("coreutils");
        assert!(made.success());
        let input = File::options().read(true).write(true).open(stage.path("in")).expect("the pipe");
        stage.input.replace(Some(input));
        stage
    }

    /// Copies `prost_target` somewhere.
    pub fn copy_to(&self, path: &Path) {
        std::fs::copy(crate::program("prost_target"), path).expect("there is room for it");
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.path(&self.name)
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell's command that runs the program for some rounds of messages; `before` stands before its path.
    pub fn rounds(&self, before: &str, rounds: usize) -> String {
        format!("echo messages {rounds} | {before} {} > {}", self.program().display(), self.path("out").display())
    }

    /// A shell's command that runs the program and lets [`Self::ask`] steer it.
    pub fn steered(&self, before: &str) -> String {
        let (input, output) = (self.path("in"), self.path("out"));
        format!("{before} {} < {} > {}", self.program().display(), input.display(), output.display())
    }

    /// Sends a command to the steered program, which has to be started already, and the end of its input.
    pub fn ask(&self, command: &str) {
        let mut input = self.input.take().expect("once");
        writeln!(input, "{command}").expect("the program reads");
    }

    /// How many calls the program has made, by its own answer.
    pub fn calls(&self) -> u64 {
        let output = std::fs::read_to_string(self.path("out")).expect("it has answered");
        let answer = output.lines().nth(1).unwrap_or_else(|| panic!("no answer in {output:?}"));
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        answer.as_object().expect("calls by name").values().map(|call| call["count"].as_u64().unwrap_or(0)).sum()
    }
}

/// How many spans are of calls of prost.
pub fn prost_spans(spans: &[Span]) -> u64 {
    let is_call = |name: &str| ["encode ", "decode ", "merge "].iter().any(|verb| name.starts_with(verb));
    spans.iter().filter(|span| is_call(&span.name)).count() as u64
}

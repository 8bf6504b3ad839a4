//! Planted secrets: words that no output of the agent may hold, however they were given to a target.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr};

use crate::Outcome;

/// Every planted word begins so, and nothing else that a test makes has it.
const MARK: &str = "Zq7";

/// Makes words, and counts them. The same seed makes the same words.
#[derive(Debug)]
pub struct Secrets {
    state: u64,
    planted: usize,
}

impl Secrets {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, planted: 0 }
    }

    /// A number (SplitMix64).
    pub fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below another.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    /// A new word: letters and digits.
    pub fn word(&mut self) -> String {
        self.planted += 1;
        format!("{MARK}{:012x}", self.random() & 0xffff_ffff_ffff)
    }

    /// Puts a new word in the place of each `{}`.
    pub fn fill(&mut self, template: &str) -> String {
        let mut parts = template.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            text.push_str(&self.word());
            text.push_str(part);
        }
        text
    }

    /// How many words there are.
    #[must_use]
    pub fn planted(&self) -> usize {
        self.planted
    }
}

/// Fails if a planted word is in `text`, in any case.
pub fn assert_none(what: &str, text: &str) {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = lower.find(&MARK.to_ascii_lowercase()) {
        let near: String =
            String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(300)..text.len().min(at + 100)]).into_owned();
        panic!("a secret is in {what}: ...{near}...");
    }
}

impl Outcome {
    /// Fails if a planted word is in anything that the agent said or wrote.
    pub fn assert_no_secrets(&self) {
        assert_none("the log", &self.said);
        assert_none("the standard output", &self.printed);
        assert_none("the export", &self.exported);
        assert_none("the balance", &self.stats.to_string());
    }
}

/// A child whose standard error is a pipe, and what it has said there.
#[derive(Debug)]
pub struct Said {
    child: Child,
    errors: BufReader<ChildStderr>,
    text: String,
}

impl Said {
    /// Of a child that was just started.
    #[must_use]
    pub fn new(mut child: Child) -> Self {
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, errors, text: String::new() }
    }

    /// Reads until a line contains `text`.
    pub fn wait_until(&mut self, text: &str) {
        while !self.text.lines().last().is_some_and(|line| line.contains(text)) {
            let read = self.errors.read_line(&mut self.text).expect("it writes UTF-8");
            assert_ne!(read, 0, "it ended before it said {text:?}: {}", self.text);
        }
    }

    /// Waits for its end, which must be a good one; all that it said.
    #[must_use]
    pub fn end(mut self) -> String {
        self.errors.read_to_string(&mut self.text).expect("it writes UTF-8");
        assert!(self.child.wait().expect("it is our child").success(), "{}", self.text);
        std::mem::take(&mut self.text)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

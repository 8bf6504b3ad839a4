//! One total over several runs of a test runner.

use std::{
    fmt,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

/// How many tests ended how.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Runs a test runner with its output shown, and adds its results. False if it failed in any way.
    pub fn run(&mut self, command: &mut Command) -> Result<bool> {
        let shown = format!("{command:?}");
        if io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let stderr = child.stderr.take().context("standard error is a pipe")?;
        // nextest sums up on standard error, libtest on standard output.
        let on_stderr = thread::spawn(|| Self::copy(stderr, io::stderr()));
        let on_stdout = Self::copy(stdout, io::stdout())?;
        let on_stderr = on_stderr.join().expect("the copying thread does not panic")?;
        for part in [on_stdout, on_stderr] {
            self.passed += part.passed;
            self.failed += part.failed;
        }
        Ok(child.wait()?.success())
    }

    /// Number of tests that were run.
    pub fn total(&self) -> u64 {
        self.passed + self.failed
    }

    fn copy(from: impl Read, mut to: impl Write) -> io::Result<Self> {
        let mut tally = Self::default();
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            to.write_all(&line)?;
            tally.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(tally)
    }

    /// Understands the summary lines of libtest and of nextest, coloured or not.
    fn add(&mut self, line: &str) {
        let plain = without_colors(line);
        let line = plain.trim_start();
        // With space in front it is what nextest shows of a test that has failed, which its own summary counts as well.
        let Some(counts) = plain
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .or_else(|| {
                line.strip_prefix("Summary [")
                    .and_then(|rest| rest.split_once("tests run: ").or(rest.split_once("test run: ")))
            })
            .map(|(_, counts)| counts)
        else {
            return;
        };
        for count in counts.split([',', ';', '(', ')']) {
            let mut words = count.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" | "timed" | "exec" => self.failed += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn without_colors(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once('m').map_or(part, |(_, text)| text);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(line: &str) -> Tally {
        let mut tally = Tally::default();
        tally.add(line);
        tally
    }

    #[test]
    fn libtest() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        assert_eq!(tally(line), Tally { passed: 12, failed: 3 });
    }

    #[test]
    fn nextest() {
        let line = "     Summary [   1.045s] 25 tests run: 21 passed (1 slow), 2 failed, 2 timed out, 3 skipped";
        assert_eq!(tally(line), Tally { passed: 21, failed: 4 });
        assert_eq!(tally("Summary [ 0.1s] 1 test run: 1 passed, 0 skipped"), Tally { passed: 1, failed: 0 });
    }

    #[test]
    fn output_of_a_test_that_has_failed() {
        assert_eq!(tally("    test result: FAILED. 0 passed; 1 failed; 0 ignored"), Tally::default());
    }

    #[test]
    fn colors() {
        let line = "\x1b[32;1m     Summary\x1b[0m [   0.2s] \x1b[1m2\x1b[0m tests run: \x1b[1m2\x1b[0m \x1b[32;1mpassed\x1b[0m, 0 skipped";
        assert_eq!(tally(line), Tally { passed: 2, failed: 0 });
    }

    #[test]
    fn other_lines() {
        assert_eq!(tally("3 passed, but only in a sentence"), Tally::default());
    }
}

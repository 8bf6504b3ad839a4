//! What the test targets share: the messages, and the conversation with the test that steers them.
//!
//! A target prints `ready` and then obeys one command per line of standard input; each is answered with one line of JSON.
//! The end of standard input ends the target. Nothing sleeps.

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use serde_json::Value;

pub mod bench;
pub mod library;
pub mod messages;

/// Runs the conversation until standard input ends.
pub fn converse(mut obey: impl FnMut(&str, &[&str]) -> Result<Value>) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((command, arguments)) = words.split_first() else { continue };
        let answer = obey(command, arguments).with_context(|| format!("command {line:?}"))?;
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

/// A whole-number argument of a command.
pub fn number(arguments: &[&str], index: usize) -> Result<usize> {
    arguments
        .get(index)
        .with_context(|| format!("argument {index} is missing"))?
        .parse()
        .with_context(|| format!("argument {index} is not a number"))
}

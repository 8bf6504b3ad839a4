//! Running commands: quietly with their output kept for the error, or in front of the user.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

/// Lines of a failed command's output that its error shows.
const SHOWN_LINES: usize = 30;

/// Runs the command and returns its standard output; an error carries the end of what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("{shown}: {}\n{tail}", output.status);
    }
    Ok(stdout.into_owned())
}

/// Runs the command with its output shown.
pub fn visible(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Says what is being done while it is done: a spinner on a terminal, else a line before and one after.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let spinner = ProgressBar::new_spinner();
    if spinner.is_hidden() {
        eprintln!("{what} ...");
    }
    spinner.set_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let started = Instant::now();
    let result = work();
    spinner.finish_and_clear();
    let verdict = if result.is_ok() { "done" } else { "failed" };
    eprintln!("{what}: {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
    result
}

//! `tracer bug-report`: what a report of a fault should say of the machine, in one file, without secrets.
//!
//! What may be in it is listed, as everywhere: figures, words of the agent's own, names and paths of programs. Of command lines,
//! variables and the configuration only what cannot be a credential is shown; everything else is `?`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::config::DEFAULT_FILE;
use super::{doctor, ps};
use crate::output_file;

mod redacted;

/// Arguments of `tracer bug-report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write; only its owner can read it.
    #[arg(short, long, value_name = "FILE", default_value = "tracer-bug-report.txt")]
    output: PathBuf,
    /// The configuration file that is used [default: /etc/tracer/tracer.yaml, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Processes that are listed.
const MOST_PROCESSES: usize = 200;

/// Writes the file and says what is in it.
pub fn main(args: &Args) -> Result<()> {
    let config = args.config.as_deref().or_else(|| Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()));
    let sections = [
        ("version", version()),
        ("machine", machine()),
        ("doctor", doctor::checks().iter().map(|check| format!("{check}\n")).collect()),
        ("ps", processes()),
        ("configuration", config.map_or_else(|| "no file\n".to_owned(), redacted::config)),
        ("environment", redacted::environment(std::env::vars_os())),
    ];
    let mut report = String::new();
    for (name, text) in &sections {
        write!(report, "== {name}\n{}\n", printable(text))?;
    }
    output_file::write(&args.output, &report)?;
    println!("{} holds, for you alone to read:", args.output.display());
    println!("  version, kernel and distribution; what `tracer doctor` and `tracer ps` say;");
    println!(
        "  names and paths of Rust programs, their options without values; the configuration without names and URLs."
    );
    println!("Look through it before you send it.");
    Ok(())
}

fn version() -> String {
    let env = if cfg!(target_env = "musl") { "static, musl" } else { "glibc" };
    format!("tracer {} ({env})\n", env!("CARGO_PKG_VERSION"))
}

fn machine() -> String {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let first_line = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned));
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let distribution = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    let groups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1 or none" };
    let lines = [
        ("kernel", format!("{} {} {}", text(uname.release()), text(uname.version()), text(uname.machine()))),
        ("distribution", distribution.trim_matches('"').to_owned()),
        ("processors", std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string())),
        ("memory", first_line("/proc/meminfo").unwrap_or_default()),
        ("cgroups", groups.to_owned()),
        ("security modules", first_line("/sys/kernel/security/lsm").unwrap_or_else(|| "unknown".to_owned())),
        ("user", rustix::process::geteuid().as_raw().to_string()),
    ];
    lines.iter().map(|(name, text)| format!("{name}: {text}\n")).collect()
}

fn processes() -> String {
    let mut rows = ps::rows();
    rows.retain(|row| row.rust || row.unreadable);
    rows.truncate(MOST_PROCESSES);
    let lines: Vec<String> = rows.iter().map(|row| format!("{}: {}\n", row.pid, row.arguments.join(" "))).collect();
    format!("{}\ncommand lines, without values:\n{}", ps::table(rows), lines.concat())
}

/// Names of programs can hold anything, escape sequences too.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '?' } else { letter }).collect()
}

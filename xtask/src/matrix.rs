//! `cargo xtask matrix`: what is seen of a program, for each way to build it. The table in the README is its output.
//!
//! `tests/programs/inspect-sample` makes the same prost calls in every build, and the agent counts what it sees of them. More
//! than there are, or a call of the wrong kind, is an error, however the program was built.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{build_ebpf, run, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Only compare with the README, and fail if it says something else
    #[arg(long)]
    check: bool,
    /// Build only the rows whose name contains this, and print them
    #[arg(long)]
    only: Option<String>,
}

impl Args {
    /// To compare with the README.
    pub fn checking() -> Self {
        Self { check: true, only: None }
    }
}

/// A way to build the sample.
struct Build {
    name: &'static str,
    nightly: bool,
    flags: &'static str,
    profile: &'static [&'static str],
    strip: bool,
}

const RELEASE: Build = Build { name: "", nightly: false, flags: "", profile: &[], strip: false };
const FAT: &str = "lto=\"fat\"";
const ONE: &str = "codegen-units=1";
const LINES: &str = "debug=\"line-tables-only\"";
const UNPACKED: &str = "split-debuginfo=\"unpacked\"";
const PACKED: &str = "split-debuginfo=\"packed\"";

const BUILDS: [Build; 18] = [
    Build { name: "`--release`", ..RELEASE },
    Build { name: "v0 symbols (`-C symbol-mangling-version=v0`)", flags: "-C symbol-mangling-version=v0", ..RELEASE },
    Build { name: "nightly (1.97; v0 is its default)", nightly: true, ..RELEASE },
    Build { name: "line tables (`debug = \"line-tables-only\"`)", profile: &[LINES], ..RELEASE },
    Build { name: "`opt-level = 1`", profile: &["opt-level=1"], ..RELEASE },
    Build { name: "`opt-level = 2`", profile: &["opt-level=2"], ..RELEASE },
    Build { name: "`opt-level = \"s\"`", profile: &["opt-level=\"s\""], ..RELEASE },
    Build { name: "`opt-level = \"z\"`", profile: &["opt-level=\"z\""], ..RELEASE },
    Build { name: "thin LTO", profile: &["lto=\"thin\""], ..RELEASE },
    Build { name: "thin LTO, line tables", profile: &["lto=\"thin\"", LINES], ..RELEASE },
    Build { name: "fat LTO, one codegen unit", profile: &[FAT, ONE], ..RELEASE },
    Build { name: "fat LTO, one codegen unit, line tables", profile: &[FAT, ONE, LINES], ..RELEASE },
    Build {
        name: "the same, split (`split-debuginfo = \"unpacked\"`)",
        profile: &[FAT, ONE, LINES, UNPACKED],
        ..RELEASE
    },
    Build { name: "the same, packed (`split-debuginfo = \"packed\"`)", profile: &[FAT, ONE, LINES, PACKED], ..RELEASE },
    Build {
        name: "fat LTO, one codegen unit, line tables, nightly",
        nightly: true,
        profile: &[FAT, ONE, LINES],
        ..RELEASE
    },
    Build { name: "`panic = \"abort\"`", profile: &["panic=\"abort\""], ..RELEASE },
    Build { name: "static (`-C target-feature=+crt-static`)", flags: "-C target-feature=+crt-static", ..RELEASE },
    Build { name: "stripped", strip: true, ..RELEASE },
];

const TARGET: &str = "x86_64-unknown-linux-gnu";
const START: &str = "<!-- cargo xtask matrix writes this -->\n";
const END: &str = "<!-- end -->";

/// How often the sample makes each call, in each of its rounds.
const CALLS: [(&str, u64); 8] = [
    ("encode", 3),
    ("encode_to_vec", 1),
    ("encode_length_delimited", 1),
    ("encode_length_delimited_to_vec", 1),
    ("decode", 5),
    ("decode_length_delimited", 1),
    ("merge", 1),
    ("merge_length_delimited", 1),
];
/// Its messages, with the number of their rounds.
const MESSAGES: [(&str, u64); 8] = [
    ("Order", 2),
    ("Leg", 2),
    ("Ping", 2),
    ("Price", 2),
    ("Empty", 2),
    ("Envelope", 2),
    ("Event", 4),
    ("other::Order", 2),
];

/// What was seen of one build.
#[derive(Default)]
struct Seen {
    calls: u64,
    typed: u64,
    sized: u64,
    placed: u64,
}

/// `cargo xtask matrix`.
pub fn main(args: &Args) -> Result<()> {
    ensure!(workspace::is_root(), "the agent needs root");
    build_ebpf::main()?;
    run::visible(workspace::cargo("build").args(["--release", "--package", "tracer", "--bin", "tracer"]))?;
    let rounds: u64 = MESSAGES.iter().map(|(_, rounds)| rounds).sum();
    let all = rounds * CALLS.iter().map(|(_, count)| count).sum::<u64>();
    let mut table = String::from(
        "| build | calls seen | with message type | with size | with place in the source |\n|---|---|---|---|---|\n",
    );
    for build in BUILDS.iter().filter(|build| args.only.as_ref().is_none_or(|only| build.name.contains(only))) {
        let seen = run::step(build.name, || see(build)).with_context(|| format!("{}:", build.name))?;
        let share = |count: u64| if count == 0 { "-".to_owned() } else { format!("{} %", count * 100 / all) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} |",
            build.name,
            share(seen.calls),
            share(seen.typed),
            share(seen.sized),
            share(seen.placed)
        );
    }
    if args.only.is_some() {
        println!("{table}");
        return Ok(());
    }
    let path = workspace::root().join("README.md");
    let readme = fs::read_to_string(&path)?;
    let (before, rest) = readme.split_once(START).context("README.md has no place for the table")?;
    let (current, after) = rest.split_once(END).context("README.md has no end of the table")?;
    if args.check {
        ensure!(current == table, "the table in README.md is not current: run `cargo xtask matrix`\n{table}");
        return Ok(());
    }
    fs::write(&path, format!("{before}{START}{table}{END}{after}"))?;
    Ok(())
}

/// Builds the sample in this way, and runs it under the agent.
fn see(build: &Build) -> Result<Seen> {
    let program = compile(build)?;
    let folder = tempfile::tempdir()?;
    let spans = folder.path().join("spans.jsonl");
    let agent = workspace::target().join("release/tracer");
    let mut command = Command::new(agent);
    command.arg("run").arg("--export").arg(format!("file:{}", spans.display())).arg("--").arg(&program);
    run::output(&mut command)?;
    count(&fs::read_to_string(&spans)?)
}

fn compile(build: &Build) -> Result<PathBuf> {
    let folder = workspace::target().join("matrix");
    let mut command = if build.nightly {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "build"]).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        command.env_remove("RUSTC").current_dir(workspace::root());
        command
    } else {
        workspace::cargo("build")
    };
    // With a target, procedural macros are built without the flags, so once for all builds.
    command.args(["--release", "--package", "inspect-sample", "--target", TARGET, "--target-dir"]).arg(&folder);
    command.env("RUSTFLAGS", build.flags);
    command.args(["--config=profile.release.debug=false"]);
    for setting in build.profile {
        command.arg(format!("--config=profile.release.{setting}"));
    }
    run::output(&mut command)?;
    let built = folder.join(TARGET).join("release/inspect-sample");
    let program = folder.join("sample");
    fs::copy(&built, &program)?;
    if build.profile.contains(&PACKED) {
        fs::copy(built.with_extension("dwp"), program.with_extension("dwp"))?;
    }
    if build.strip {
        run::output(Command::new("strip").arg(&program))?;
    }
    Ok(program)
}

/// Counts the spans of calls, and compares them with the calls that the sample makes.
fn count(lines: &str) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut of_type: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut of_operation: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines.lines() {
        let request: Value = serde_json::from_str(line)?;
        for span in spans(&request) {
            let attribute = |name: &str| attribute(span, name);
            // The span around what a message caused has the attributes of its decode.
            let name = span["name"].as_str().unwrap_or_default();
            let Some(operation) = attribute("tracer.message.operation").filter(|_| !name.starts_with("process")) else {
                continue;
            };
            seen.calls += 1;
            seen.sized += u64::from(attribute("tracer.message.size").is_some());
            seen.placed += u64::from(attribute("code.line.number").is_some());
            *of_operation.entry(operation.clone()).or_default() += 1;
            if let Some(message) = attribute("tracer.message.type") {
                seen.typed += 1;
                let message = message.strip_prefix("inspect_sample::").unwrap_or(&message).to_owned();
                *of_type.entry((operation, message)).or_default() += 1;
            }
        }
    }
    let calls = |operation: &str| CALLS.iter().find(|(name, _)| *name == operation).map_or(0, |(_, count)| *count);
    // A decode that is inlined calls a merge that may not be.
    let made = |operation: &str| {
        calls(operation) + calls(&operation.replace("merge", "decode")) * u64::from(operation.starts_with("merge"))
    };
    let rounds: u64 = MESSAGES.iter().map(|(_, rounds)| rounds).sum();
    for (operation, count) in &of_operation {
        ensure!(*count <= made(operation) * rounds, "{count} calls of {operation} are too many");
    }
    for ((operation, message), count) in &of_type {
        // Legacy symbols give the last part of some names, which two messages have.
        let of_message: u64 = MESSAGES.iter().filter(|(name, _)| name == message).map(|(_, rounds)| *rounds).sum();
        let of_message = if message == "Order" { of_message + 2 } else { of_message };
        if *count > made(operation) * of_message {
            bail!("{count} calls of {operation} of {message} are too many");
        }
    }
    Ok(seen)
}

fn spans(request: &Value) -> impl Iterator<Item = &Value> {
    request["resourceSpans"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten())
        .flat_map(|scope| scope["spans"].as_array().into_iter().flatten())
}

/// An attribute as text.
fn attribute(span: &Value, name: &str) -> Option<String> {
    let attributes = span["attributes"].as_array()?;
    let value = &attributes.iter().find(|attribute| attribute["key"] == name)?["value"];
    let value = value.as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

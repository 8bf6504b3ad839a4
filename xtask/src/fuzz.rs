//! `cargo xtask fuzz`: runs the fuzz targets of `tracer/fuzz`, each from its corpus.
//!
//! They are built by the one toolchain there is: coverage is a pass of LLVM that every rustc has. Memory errors are not looked for,
//! as the parsers have no unsafe code; panics, overflows, hangs and too much memory are.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{run, workspace};

/// The targets, each with the length of its inputs in bytes: short ones are quick, and a few entries say all.
const TARGETS: [(&str, u32); 10] = [
    ("names", 512),
    ("lines", 1024),
    ("unwind", 512),
    ("tables", 1024),
    ("headers", 3072),
    ("packed", 256),
    ("debug_info", 2560),
    ("split", 3072),
    ("sections", 4096),
    ("file", 6400),
];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing";
/// A hang, in seconds, and too much memory, in MiB.
const LIMITS: [&str; 2] = ["-timeout=60", "-rss_limit_mb=2048"];

#[derive(clap::Args)]
pub struct Args {
    /// Only these targets
    targets: Vec<String>,
    /// Executions of each
    #[arg(long, default_value_t = 10_000_000)]
    runs: u64,
    /// Put what was found into the corpora that are kept, as few inputs as have the same coverage
    #[arg(long)]
    keep: bool,
}

/// `cargo xtask fuzz`.
pub fn main(args: &Args) -> Result<()> {
    let unknown = args.targets.iter().find(|name| TARGETS.iter().all(|(target, _)| target != name));
    ensure!(unknown.is_none(), "no such target: {}", unknown.map_or("", String::as_str));
    let source = workspace::root().join("tracer/fuzz");
    let folder = workspace::target().join("fuzz");
    let mut build = workspace::cargo("build");
    // With a target, procedural macros are built without the flags.
    build.args(["--release", "--target", TRIPLE, "--manifest-path"]).arg(source.join("Cargo.toml"));
    run::visible(build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS))?;
    let chosen = TARGETS.iter().filter(|(name, _)| args.targets.is_empty() || args.targets.iter().any(|of| of == name));
    for (name, length) in chosen {
        let (kept, found) = (source.join("corpus").join(name), folder.join("corpus").join(name));
        for folder in [&kept, &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let fuzzer = || {
            let mut fuzzer = Command::new(folder.join(TRIPLE).join("release").join(name));
            fuzzer.args(LIMITS).arg(format!("-max_len={length}")).current_dir(&folder);
            // What is new goes into the first folder.
            fuzzer
        };
        run::visible(fuzzer().args(["-reload=0", &format!("-runs={}", args.runs)]).args([&found, &kept]))?;
        if args.keep {
            run::visible(fuzzer().arg("-merge=1").args([&kept, &found]))?;
        }
    }
    Ok(())
}

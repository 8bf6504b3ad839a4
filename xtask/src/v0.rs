//! Targets with v0 symbols, which name every message type. rustc 1.95 has them as a flag, later versions by default.

use std::path::PathBuf;

use anyhow::Result;

use crate::{run, workspace};

/// Where they are.
pub fn dir() -> PathBuf {
    workspace::target().join("v0/release")
}

/// Builds some of them, beside the ordinary build: the flag is for everything in them.
pub fn build(programs: &[&str]) -> Result<()> {
    let mut build = workspace::cargo("build");
    build.args(["--release", "--package", "tracer-test-programs"]);
    build.args(programs.iter().flat_map(|program| ["--bin", program]));
    build.arg("--target-dir");
    build.arg(workspace::target().join("v0")).env("RUSTFLAGS", "-C symbol-mangling-version=v0");
    run::visible(&mut build)
}

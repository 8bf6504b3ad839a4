//! Targets that are built in other ways than the rest, each into a folder of its own: cargo would else replace one by the other.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{run, workspace};

/// A way to build a target.
#[derive(Clone, Copy)]
pub enum Variant {
    /// With v0 symbols, which name every message type. rustc 1.95 has them as a flag, later versions by default.
    V0,
    /// Built for speed: everything is inlined, and line tables say where.
    FatLto,
}

impl Variant {
    fn folder(self) -> PathBuf {
        workspace::target().join(match self {
            Self::V0 => "v0",
            Self::FatLto => "lto",
        })
    }

    /// Makes a cargo call build in this way.
    pub fn apply(self, build: &mut Command) {
        build.arg("--target-dir").arg(self.folder());
        match self {
            Self::V0 => build.env("RUSTFLAGS", "-C symbol-mangling-version=v0"),
            Self::FatLto => build.args([
                "--config=profile.release.lto=\"fat\"",
                "--config=profile.release.codegen-units=1",
                "--config=profile.release.debug=\"line-tables-only\"",
                "--config=profile.release.package.tracer-test-programs.opt-level=3",
            ]),
        };
    }

    /// Where the programs are.
    pub fn programs(self) -> PathBuf {
        self.folder().join("release")
    }

    /// Builds some of them.
    pub fn build(self, programs: &[&str]) -> Result<()> {
        let mut build = workspace::cargo("build");
        build.args(["--release", "--package", "tracer-test-programs"]);
        build.args(programs.iter().flat_map(|program| ["--bin", program]));
        self.apply(&mut build);
        run::visible(&mut build)
    }
}

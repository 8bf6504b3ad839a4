//! The order services of tests/pipeline: building them in two ways, and running all of them with their servers.

mod chain;
mod database;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

pub use self::chain::{Chain, Load, SERVICES, outcome};
use crate::variant::Variant::FatLto;
use crate::{run, setup, workspace};

/// The package of the services.
pub const PACKAGE: &str = "tracer-pipeline";

/// Which build of the same sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As users write them.
    Unmodified,
    /// With the shim.
    Shim,
    /// With spans of tracing-opentelemetry, for comparison.
    Otel,
}

impl Variant {
    /// Name of its folder.
    fn name(self) -> &'static str {
        match self {
            Self::Unmodified => "unmodified",
            Self::Shim => "shim",
            Self::Otel => "otel",
        }
    }
}

/// Where the variants are, each in a folder of its name.
pub fn folder() -> PathBuf {
    workspace::target().join("pipeline")
}

/// Where a variant's programs are.
pub fn dir(variant: Variant) -> PathBuf {
    folder().join(variant.name())
}

/// A cargo call on the package. Always of the release profile: Aeron is built once.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = workspace::cargo(subcommand);
    command.args(["--release", "--package", PACKAGE]);
    // Build scripts ask this variable for cmake.
    command.envs(setup::aeron::cmake().map(|cmake| ("CMAKE", cmake)));
    command
}

/// Builds the programs of a variant. cargo has one folder for all variants, so they are copied into one of their own.
pub fn build(variant: Variant) -> Result<()> {
    let mut build = cargo("build");
    build.arg("--bins");
    if variant != Variant::Unmodified {
        build.args(["--features", variant.name()]);
    }
    run::visible(&mut build)?;
    copy(&[&SERVICES[..], &["orders", "media_driver"]].concat(), &workspace::target().join("release"), &dir(variant))
}

/// Builds the unmodified services with fat link-time optimisation and line tables.
pub fn build_with_lto() -> Result<()> {
    let mut build = cargo("build");
    build.args(SERVICES.iter().flat_map(|service| ["--bin", service]));
    FatLto.apply(&mut build);
    run::visible(&mut build)?;
    copy(&SERVICES, &FatLto.programs(), &folder().join("lto"))
}

/// Makes of the unmodified programs what a release build without line tables is: the same code without debug info.
pub fn strip_debug_info() -> Result<()> {
    let to = folder().join("release");
    fs::create_dir_all(&to)?;
    for program in SERVICES {
        // Another file takes the place of the old one, which may be running.
        let scratch = to.join(program).with_extension("new");
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&scratch).arg(dir(Variant::Unmodified).join(program));
        run::visible(&mut strip)?;
        fs::rename(&scratch, to.join(program))?;
    }
    Ok(())
}

/// Copies programs from one folder to another.
fn copy(programs: &[&str], from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    programs.iter().try_for_each(|program| replace(&from.join(program), &to.join(program)))
}

/// Copies a program unless it is there. Another file takes the place of the old one, which may be running.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let made = |path: &Path| fs::metadata(path).and_then(|data| Ok((data.len(), data.modified()?)));
    if made(to).ok() == Some(made(from).with_context(|| format!("cargo did not build {}", from.display()))?) {
        return Ok(());
    }
    let scratch = to.with_extension("new");
    fs::copy(from, &scratch)?;
    fs::File::open(&scratch)?.set_modified(fs::metadata(from)?.modified()?)?;
    Ok(fs::rename(&scratch, to)?)
}

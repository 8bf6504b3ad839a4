//! `cargo xtask lint`: everything about the code that a machine can judge without running it.

mod arrows;
mod proto;
mod source;
mod tidy;

use anyhow::{Result, bail};

use crate::{build_ebpf, page, pipeline, run, setup, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Correct what can be corrected: format, generated code
    #[arg(long)]
    fix: bool,
}

/// `cargo xtask lint`. All checks run, so that one call shows all there is to do.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&setup::to_lint())?;
    // The agent does not compile without it.
    build_ebpf::main()?;
    let checks: [(&str, &dyn Fn() -> Result<()>); 7] = [
        ("format", &|| format(args.fix)),
        ("generated code", &|| proto::check(args.fix)),
        ("page", &|| page::check(args.fix)),
        ("tidy", &tidy::check),
        ("arrows", &arrows::check),
        ("clippy", &clippy),
        ("fuzz targets", &fuzz_targets),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match check() {
            Ok(()) => eprintln!("{name}: clean"),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("lint failed: {}", failed.join(", "))
}

fn format(fix: bool) -> Result<()> {
    let check = (!fix).then_some("--check");
    run::visible(workspace::cargo("fmt").arg("--all").args(check))?;
    run::visible(workspace::cargo("fmt").args(check).current_dir(workspace::root().join("tracer-ebpf")))
}

fn clippy() -> Result<()> {
    let deny = ["--", "-D", "warnings"];
    let rest = ["--workspace", "--exclude", pipeline::PACKAGE, "--all-targets"];
    run::visible(workspace::cargo("clippy").args(rest).args(deny))?;
    for features in ["", "--features=shim"] {
        run::visible(pipeline::cargo("clippy").args(features.split_whitespace()).arg("--all-targets").args(deny))?;
    }
    run::visible(build_ebpf::cargo("clippy")?.arg("--release").args(deny))
}

/// They are no members of the workspace, and whoever changes what they use does not build them.
fn fuzz_targets() -> Result<()> {
    for folder in ["tracer/fuzz", "shim/fuzz"] {
        let target = workspace::root().join("target/fuzz-lint");
        let mut clippy = workspace::cargo("clippy");
        clippy.arg("--bins").current_dir(workspace::root().join(folder)).env("CARGO_TARGET_DIR", target);
        run::visible(clippy.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

//! `cargo xtask test`: the unit tests, then the end-to-end tests against this machine's kernel.

mod tally;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use self::tally::Tally;
use crate::variant::Variant;
use crate::{build_ebpf, dist, matrix, pipeline, setup, vm, workspace};

/// The crate of the end-to-end tests and their targets.
const END_TO_END: &str = "tracer-tests";

/// A test that would skip fails instead, unless the kernel lacks the feature: everything else was set up.
const STRICT: (&str, &str) = ("TRACER_STRICT", "1");

#[derive(clap::Args)]
pub struct Args {
    /// The unit tests only: no root, no kernel, no servers
    #[arg(long, conflicts_with = "full")]
    unit: bool,
    /// The long tests and the other kernels too
    #[arg(long)]
    full: bool,
    /// Run only tests whose name contains one of these
    filter: Vec<String>,
}

/// `cargo xtask test`.
pub fn main(args: &Args) -> Result<()> {
    let root = workspace::is_root();
    if root && !args.unit {
        setup::ensure(&setup::to_test())?;
    }
    build_ebpf::main()?;

    let mut tally = Tally::default();
    let mut failed = Vec::new();
    // The order services are what the end-to-end tests run; they have no unit tests, and need Aeron.
    // Features of the shim that no other package asks for would be left out, and their tests with them.
    let shim = ["--features", "tracer-shim/tonic,tracer-shim/tracing-opentelemetry"];
    let others = [&["--workspace", "--exclude", END_TO_END, "--exclude", pipeline::PACKAGE][..], &shim].concat();
    let mut units = runner(&others, args);
    if root && !args.unit {
        units.env(STRICT.0, STRICT.1);
    }
    if !tally.run(&mut units)? {
        failed.push("unit tests");
    }
    // nextest leaves the examples in the documentation out.
    if has_nextest() && !tally.run(workspace::cargo("test").arg("--doc").args(&others).arg("--").args(&args.filter))? {
        failed.push("documentation tests");
    }
    if root && !args.unit {
        build_end_to_end()?;
        let mut tests = runner(&["--release", "--package", END_TO_END], args);
        tests.envs(environment()?);
        if args.full {
            tests.envs(packages()?);
        }
        if !tally.run(&mut tests)? {
            failed.push("end-to-end tests");
        }
        if args.full
            && args.filter.is_empty()
            && let Err(error) = vm::check()
        {
            eprintln!("{error:#}");
            failed.push("other kernels");
        }
        if args.full
            && args.filter.is_empty()
            && let Err(error) = matrix::main(&matrix::Args::checking())
        {
            eprintln!("{error:#}");
            failed.push("the matrix of builds");
        }
    }
    println!("\n{tally}");
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if tally.total() == 0 {
        bail!("no test has such a name: {}", args.filter.join(" "));
    }
    if !root && !args.unit {
        bail!("the end-to-end tests were not run: they need root (`--unit` asks for the unit tests alone)");
    }
    Ok(())
}

/// The agent and the programs that it is tested on.
fn build_end_to_end() -> Result<()> {
    let mut build = workspace::cargo("build");
    build.args([
        "--release",
        "--bins",
        "--package",
        "tracer",
        "--package",
        END_TO_END,
        "--package",
        "tracer-test-programs",
        "--package",
        "tracer-shim-demo",
    ]);
    crate::run::visible(&mut build)?;
    Variant::V0.build(&["prost_target", "relay_target"])?;
    Variant::FatLto.build(&["prost_target"])?;
    pipeline::build(pipeline::Variant::Unmodified)?;
    pipeline::strip_debug_info()?;
    pipeline::build_with_lto()?;
    pipeline::build(pipeline::Variant::Shim)
}

/// What the end-to-end tests are told.
fn environment() -> Result<Vec<(&'static str, std::ffi::OsString)>> {
    Ok(vec![
        (STRICT.0, STRICT.1.into()),
        ("TRACER_BIN", workspace::target().join("release/tracer").into()),
        ("TRACER_V0_PROGRAMS", Variant::V0.programs().into()),
        ("TRACER_LTO_PROGRAMS", Variant::FatLto.programs().into()),
        ("TRACER_PIPELINE", pipeline::folder().into()),
        ("TRACER_ROTEL", setup::rotel::agent().into()),
        ("PATH", workspace::path_with_tools()?),
    ])
}

/// What the tests of the packages are told.
fn packages() -> Result<[(&'static str, PathBuf); 2]> {
    setup::ensure(&setup::to_install())?;
    let made = dist::make()?;
    let deb = made.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "deb"));
    Ok([("TRACER_DEBIAN", setup::debian::root()), ("TRACER_DEB", deb.context("there is no package for Debian")?)])
}

/// cargo-nextest where it is installed: it runs each test in a process of its own and names the slow ones.
fn runner(selection: &[&str], args: &Args) -> Command {
    if has_nextest() {
        let mut command = workspace::cargo("nextest");
        command.args(["run", "--no-fail-fast", "--no-tests=pass"]).args(selection);
        command.args(args.full.then_some("--run-ignored=all"));
        command.args(&args.filter);
        return command;
    }
    let mut command = workspace::cargo("test");
    // Some tests see what others do to the same program; nextest's configuration names them.
    command.env("RUST_TEST_THREADS", "1");
    command.arg("--no-fail-fast").args(selection).arg("--");
    command.args(args.full.then_some("--include-ignored"));
    command.args(&args.filter);
    command
}

fn has_nextest() -> bool {
    workspace::find_program("cargo-nextest").is_some()
}

//! What the tasks need from outside the repository, and how it gets here.
//!
//! A [`Tool`] is looked for first, so a second run costs milliseconds. What is missing is fetched through package
//! registries alone: rustup, crates.io, PyPI and the machine's own Debian mirror.

pub mod aeron;
pub mod apt;
pub mod bpf_linker;
pub mod debian;
pub mod packages;
pub mod packaging;
pub mod rotel;
pub mod rust_src;
pub mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::run;

/// Something that a task needs.
pub trait Tool {
    /// Name and version, as the user knows it.
    fn name(&self) -> String;
    /// What the project does with it.
    fn purpose(&self) -> &'static str;
    /// Where it is, if it is there.
    fn find(&self) -> Option<PathBuf>;
    /// What to do by hand where [`Tool::install`] cannot.
    fn remedy(&self) -> String;
    /// Fetches it.
    fn install(&self) -> Result<()>;
}

#[derive(clap::Args)]
pub struct Args {
    /// Say what is missing, fetch nothing
    #[arg(long)]
    check: bool,
}

/// `cargo xtask setup`.
pub fn main(args: &Args) -> Result<()> {
    let tools = all();
    for tool in &tools {
        match tool.find() {
            Some(path) => println!("{:<20} {}", tool.name(), path.display()),
            None => println!("{:<20} missing: {}", tool.name(), tool.purpose()),
        }
    }
    if args.check {
        let missing: Vec<_> = tools.iter().filter(|tool| tool.find().is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!(to_do(missing.iter().map(|tool| (tool.as_ref(), None))));
    }
    ensure(&tools)
}

/// Everything that any task needs.
pub fn all() -> Vec<Box<dyn Tool>> {
    let mut tools = to_build();
    tools.extend(to_test());
    tools.push(Box::new(toolchain::RUSTFMT));
    tools.push(Box::new(toolchain::CLIPPY));
    tools.push(Box::new(packages::BPFTRACE));
    tools.push(Box::new(packages::QEMU));
    tools.extend(to_package());
    tools.extend(to_install());
    tools
}

/// What building the eBPF programs needs.
pub fn to_build() -> Vec<Box<dyn Tool>> {
    vec![Box::new(rust_src::RustSrc), Box::new(bpf_linker::BpfLinker)]
}

/// What the end-to-end tests need: servers, a collector, and the order services.
pub fn to_test() -> Vec<Box<dyn Tool>> {
    let mut tools = to_demo();
    tools.push(Box::new(packages::PROTOC));
    tools.push(Box::new(packages::PYTHON_PROTOBUF));
    tools.push(Box::new(packages::Postgres));
    tools.push(Box::new(packages::PSYCOPG));
    tools.push(Box::new(packages::TMUX));
    tools.push(Box::new(packages::RSYNC));
    tools.push(Box::new(packages::XZ));
    tools.push(Box::new(packages::IPROUTE));
    tools.push(Box::new(packages::SETCAP));
    tools.push(Box::new(packages::OPENSSL));
    tools.push(Box::new(packages::IPTABLES));
    tools.push(Box::new(packages::BTRFS));
    tools.push(Box::new(packages::BINDFS));
    tools.push(Box::new(packages::CHROMIUM));
    tools.push(Box::new(packages::CHROMEDRIVER));
    tools.push(Box::new(rotel::Rotel));
    tools
}

/// What judging the code needs: all of it is compiled.
pub fn to_lint() -> Vec<Box<dyn Tool>> {
    let mut tools: Vec<Box<dyn Tool>> = vec![Box::new(toolchain::RUSTFMT), Box::new(toolchain::CLIPPY)];
    tools.extend(aeron::tools());
    tools
}

/// What the order services need to be built and to run.
pub fn to_demo() -> Vec<Box<dyn Tool>> {
    let mut tools = aeron::tools();
    tools.extend(databases());
    tools
}

/// The servers that services talk to.
pub fn databases() -> Vec<Box<dyn Tool>> {
    vec![Box::new(packages::REDIS), Box::new(packages::MARIADB), Box::new(packages::MARIADB_CLIENT)]
}

/// What the benchmark needs beside a build.
pub fn to_bench() -> Vec<Box<dyn Tool>> {
    let mut tools = to_demo();
    tools.push(Box::new(packages::BPFTRACE));
    tools.push(Box::new(rotel::Rotel));
    tools
}

/// What making packages needs.
pub fn to_package() -> Vec<Box<dyn Tool>> {
    packaging::tools()
}

/// What installing them needs.
pub fn to_install() -> Vec<Box<dyn Tool>> {
    vec![Box::new(debian::Debian)]
}

/// What booting another kernel needs.
pub fn to_boot() -> Vec<Box<dyn Tool>> {
    vec![Box::new(packages::QEMU), Box::new(packages::REDIS)]
}

/// Fetches what is missing; one error lists everything that could not be had, with its remedy.
pub fn ensure(tools: &[Box<dyn Tool>]) -> Result<()> {
    let mut failed = Vec::new();
    for tool in tools.iter().filter(|tool| tool.find().is_none()) {
        let what = format!("install {} ({})", tool.name(), tool.purpose());
        let installed = run::step(&what, || {
            tool.install()?;
            match tool.find() {
                Some(_) => Ok(()),
                None => bail!("installed, but it is not where it should be"),
            }
        });
        if let Err(error) = installed {
            failed.push((tool.as_ref(), Some(error)));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(to_do(failed))
}

fn to_do<'a>(missing: impl IntoIterator<Item = (&'a dyn Tool, Option<anyhow::Error>)>) -> String {
    let mut text = String::from("these are missing; install them and run the same command again:");
    for (tool, error) in missing {
        text += &format!("\n  {}: {}", tool.name(), tool.remedy());
        if let Some(error) = error {
            text += &format!("\n    tried, and failed: {error:#}").replace('\n', "\n    ");
        }
    }
    text
}

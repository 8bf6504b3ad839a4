//! `cargo xtask vm`: the end-to-end check on other kernels.
//!
//! Each kernel of Debian boots in QEMU with an initramfs that holds the agent, a target, redis-server and `vm-init`,
//! which runs the check and prints one verdict line. No verdict, a panic or a hang is a failure.

mod initramfs;
mod kernel;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{initramfs::Initramfs, qemu::Outcome};
use crate::{build_ebpf, run, setup, workspace};

/// Before bpf_loop and attach cookies; before uprobe_multi; with it, before the nop5 rewrite; with both.
///
/// `cargo xtask vm 7` boots Debian's newest. It is not in the list yet: there the first bytes of a process that is traced from its first
/// instruction are counted as unseen (`socket_bytes_unseen`), and the cause is not known.
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "6.18"];

/// The target programs of the check.
const TARGETS: [&str; 3] = ["order_target", "shim_target", "storm_target"];

/// Seconds for one kernel. It takes ten; on a machine that has other work, emulation has taken ten times as long.
const DEADLINE: u64 = 300;

/// Lines of a failed boot that are shown.
const SHOWN_LINES: usize = 40;

#[derive(clap::Args)]
pub struct Args {
    /// Versions to boot, such as 7.1
    #[arg(default_values = KERNELS)]
    kernels: Vec<String>,
    /// Run this program instead of the end-to-end check; it passes when it exits with 0
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Keep the initramfs
    #[arg(long)]
    keep: bool,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = DEADLINE, value_name = "SECS")]
    deadline: u64,
}

/// `cargo xtask vm`.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&setup::to_boot())?;
    let dir = workspace::root().join("target/vm");
    fs::create_dir_all(&dir)?;
    let archive = dir.join("initramfs.cpio");
    pack(args.program.as_deref(), &archive)?;
    let mut failed = Vec::new();
    let mut table = Vec::new();
    for version in &args.kernels {
        let log = dir.join(format!("{version}.log"));
        // Of an earlier boot: what is shown has to be of this one.
        fs::write(&log, "")?;
        let started = Instant::now();
        let outcome = boot(version, &archive, &log, Duration::from_secs(args.deadline))
            .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let seconds = started.elapsed().as_secs_f32();
        table.push(format!("{version:<8} {seconds:>6.1} s  {outcome}"));
        if outcome != Outcome::Passed {
            failed.push(version.as_str());
            show_end(&log)?;
        }
    }
    if !args.keep {
        fs::remove_file(&archive)?;
    }
    println!("\n{}", table.join("\n"));
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on kernel {}", failed.join(", "))
}

/// The end-to-end check on the default kernels, for `cargo xtask test --full`.
pub fn check() -> Result<()> {
    main(&Args { kernels: KERNELS.map(String::from).into(), program: None, keep: false, deadline: DEADLINE })
}

fn boot(version: &str, archive: &Path, log: &Path, deadline: Duration) -> Result<Outcome> {
    let image = match kernel::cached(version)? {
        Some(image) => image,
        None => run::step(&format!("fetch a Debian kernel {version}"), || kernel::fetch(version))?,
    };
    run::step(&format!("boot {}", image.display()), || qemu::boot(&image, archive, log, deadline))
}

/// The end of a console's log: what went on before the failure.
fn show_end(log: &Path) -> Result<()> {
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    eprintln!("the end of {}:\n  {}", log.display(), end.join("\n  "));
    Ok(())
}

/// Builds what runs in the machine and packs it with the libraries that it is linked with.
fn pack(program: Option<&Path>, archive: &Path) -> Result<()> {
    let release = workspace::target().join("release");
    let mut build = workspace::cargo("build");
    build.args(["--release", "--package", "tracer-tests", "--bin", "vm-init"]);
    if program.is_none() {
        build_ebpf::main()?;
        build.args(["--package", "tracer", "--package", "tracer-test-programs", "--bin", "tracer"]);
        build.args(TARGETS.into_iter().flat_map(|target| ["--bin", target]));
    }
    run::visible(&mut build)?;
    let mut initramfs = Initramfs::default();
    initramfs.program("init", &release.join("vm-init"))?;
    match program {
        Some(program) => initramfs.program("program", program)?,
        None => {
            initramfs.program("tracer", &release.join("tracer"))?;
            for target in TARGETS {
                initramfs.program(target, &release.join(target))?;
            }
            let redis = workspace::find_program("redis-server").context("redis-server was just set up")?;
            initramfs.program("redis-server", &redis)?;
        }
    }
    initramfs.write(archive)
}

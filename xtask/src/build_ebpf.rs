//! `cargo xtask build-ebpf`: from `tracer-ebpf/` to `target/ebpf/tracer-ebpf`, which the agent embeds, and to
//! `target/ebpf/tracer-ebpf-old-kernel`, the same for kernels that lack what makes the first one quick.
//!
//! The eBPF machine is no target with a standard library, so `core` is built with it. That is an unstable option of
//! cargo, and `RUSTC_BOOTSTRAP` lets the pinned stable compiler take it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{run, setup, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Debug information becomes BTF, which the kernel wants for maps and for reading its own types.
const RUSTFLAGS: [&str; 4] = ["-C", "debuginfo=2", "-C", "link-arg=--btf"];

/// Fetches what the build needs, builds, and replaces the object only if it changed: cargo then leaves the agent alone.
pub fn main() -> Result<()> {
    setup::ensure(&setup::to_build())?;
    let object = workspace::ebpf_object();
    build(&[], &object)?;
    build(&["--features", "old-kernel"], &object.with_file_name("tracer-ebpf-old-kernel"))
}

fn build(features: &[&str], object: &Path) -> Result<()> {
    run::visible(cargo("build")?.arg("--release").args(features).args(quiet()))?;
    let built = build_dir().join(TARGET).join("release/tracer-ebpf");
    if replace(&built, object)? {
        eprintln!("{}: {} bytes", object.display(), fs::metadata(object)?.len());
    }
    Ok(())
}

/// A cargo subcommand on the eBPF programs, with the compiler set up for their machine.
pub fn cargo(subcommand: &str) -> Result<Command> {
    let linker = workspace::find_program("bpf-linker").context("bpf-linker is not installed: `cargo xtask setup`")?;
    let mut cargo = workspace::cargo(subcommand);
    cargo.current_dir(workspace::root().join("tracer-ebpf"));
    cargo.args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"]).arg(build_dir());
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    // This variable wins over every other source of flags: those of the user are for another machine.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    if let Some(library) = setup::rust_src::outside_sysroot() {
        // cargo's own way to a library outside the toolchain, so that the user's toolchain stays as it is.
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    Ok(cargo)
}

fn build_dir() -> std::path::PathBuf {
    workspace::root().join("target/ebpf/build")
}

/// Progress is for people; in a log only the errors count.
fn quiet() -> &'static [&'static str] {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) { &[] } else { &["--quiet"] }
}

/// Makes `to` equal to `from`; true if it was not.
fn replace(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cargo built no {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    // Written beside it and renamed, so that a build of the agent never reads half an object.
    let part = to.with_extension("part");
    fs::write(&part, new)?;
    fs::rename(&part, to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::fs;

    use super::replace;

    #[test]
    fn an_equal_object_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "a").unwrap();
        assert!(replace(&from, &to).unwrap());
        let written = fs::metadata(&to).unwrap().modified().unwrap();
        assert!(!replace(&from, &to).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), written);
        fs::write(&from, "b").unwrap();
        assert!(replace(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"b");
    }
}

//! The source of the standard library: `core` has no build for the eBPF machine, so cargo builds it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::{Tool, apt::Suite, toolchain};
use crate::workspace;

/// Debian releases that may hold the source of the compiler in use, nearest first.
const SUITES: [&str; 3] = ["trixie-backports", "testing", "unstable"];

/// rust-src of the compiler in use.
pub struct RustSrc;

impl Tool for RustSrc {
    fn name(&self) -> String {
        format!("rust-src {}", toolchain::version().unwrap_or_default())
    }

    fn purpose(&self) -> &'static str {
        "core is built from source for the eBPF machine"
    }

    fn find(&self) -> Option<PathBuf> {
        in_sysroot().or_else(unpacked)
    }

    fn remedy(&self) -> String {
        format!(
            "`rustup component add rust-src`, or unpack Debian's rust-src of {}",
            toolchain::version().unwrap_or_default()
        )
    }

    fn install(&self) -> Result<()> {
        let Err(by_rustup) = rustup_add() else {
            return Ok(());
        };
        from_debian().with_context(|| format!("rustup cannot add it either ({by_rustup:#})"))
    }
}

/// Where cargo has to look when the source is not in the toolchain itself.
pub fn outside_sysroot() -> Option<PathBuf> {
    if in_sysroot().is_some() { None } else { unpacked() }
}

fn in_sysroot() -> Option<PathBuf> {
    let library = toolchain::sysroot().ok()?.join("lib/rustlib/src/rust/library");
    library.join("Cargo.lock").exists().then_some(library)
}

fn unpacked() -> Option<PathBuf> {
    let library = unpack_dir(&toolchain::version().ok()?).join("library");
    library.join("Cargo.lock").exists().then_some(library)
}

fn unpack_dir(version: &str) -> PathBuf {
    workspace::tools().join(format!("rust-src-{version}"))
}

fn rustup_add() -> Result<()> {
    toolchain::add("rust-src")?;
    if in_sysroot().is_none() {
        bail!("rustup added it to another toolchain");
    }
    Ok(())
}

fn from_debian() -> Result<()> {
    let wanted = toolchain::version()?;
    for suite in SUITES {
        let suite = Suite::open(suite)?;
        let versions = suite.versions("rust-src")?;
        let Some(version) = versions.iter().find(|version| version.starts_with(&format!("{wanted}+"))) else {
            continue;
        };
        fs::create_dir_all(workspace::tools())?;
        let scratch = tempfile::tempdir_in(workspace::tools())?;
        suite.unpack(&format!("rust-src={version}"), scratch.path())?;
        let source = scratch.path().join(format!("usr/src/rustc-{wanted}"));
        let dir = unpack_dir(&wanted);
        fs::create_dir_all(&dir)?;
        // Last, and in one piece: an interrupted set-up starts again.
        fs::rename(source.join("library"), dir.join("library"))
            .with_context(|| format!("{suite} has another layout"))?;
        return Ok(());
    }
    bail!("no Debian suite of {SUITES:?} has rust-src {wanted}")
}

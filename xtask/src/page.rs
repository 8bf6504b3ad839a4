//! `cargo xtask page`: builds the script of the browser view from `web/`, with npm, into the folder that the agent embeds.
//!
//! What is built is committed, so that building the agent needs no node. `cargo xtask lint` checks that it belongs to its sources: by a hash of
//! them that is kept beside it, and where npm is installed by building it again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{run, workspace};

/// Beside what is built.
const HASH: &str = "sources.hash";

/// Builds the page anew.
pub fn main() -> Result<()> {
    if workspace::find_program("npm").is_none() {
        bail!("npm builds the page, and is not here: install node 20 or later");
    }
    build(&built())
}

/// Whether the page is what its sources say.
pub fn check(fix: bool) -> Result<()> {
    let has_npm = workspace::find_program("npm").is_some();
    if fix && has_npm {
        return main();
    }
    let known = fs::read_to_string(built().join(HASH)).unwrap_or_default();
    if known.trim() != hash()? {
        bail!("the page is older than web/: run `cargo xtask page`");
    }
    if !has_npm {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    build(scratch.path())?;
    for entry in fs::read_dir(scratch.path())? {
        let fresh = entry?.path();
        let committed = built().join(fresh.file_name().context("a built file has a name")?);
        if fs::read(&fresh)? != fs::read(&committed).unwrap_or_default() {
            bail!("{} is not what `cargo xtask page` makes", committed.display());
        }
    }
    Ok(())
}

fn build(into: &Path) -> Result<()> {
    // No script of a package is run: the bundler's program is a package of its own.
    run::output(npm().args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))?;
    run::output(npm().args(["run", "build", "--"]).arg(into))?;
    fs::write(into.join(HASH), hash()? + "\n")?;
    Ok(())
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(sources());
    npm
}

/// A hash of all that the page is made from.
fn hash() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "."]).current_dir(sources());
    let listed = run::output(&mut git)?;
    let mut files: Vec<&str> = listed.lines().collect();
    files.sort_unstable();
    // Deleted and not yet committed.
    files.retain(|file| sources().join(file).exists());
    let mut git = Command::new("git");
    let hashes = run::output(git.arg("hash-object").args(&files).current_dir(sources()))?;
    let table: String = files.iter().zip(hashes.lines()).map(|(file, hash)| format!("{hash} {file}\n")).collect();
    let scratch = tempfile::NamedTempFile::new()?;
    fs::write(scratch.path(), table)?;
    Ok(run::output(Command::new("git").arg("hash-object").arg(scratch.path()))?.trim().to_owned())
}

fn sources() -> PathBuf {
    workspace::root().join("web")
}

/// What the agent embeds.
fn built() -> PathBuf {
    workspace::root().join("tracer/src/web/page")
}

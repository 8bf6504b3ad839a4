//! The compiler in use, and the parts of it that a minimal installation lacks.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::Tool;
use crate::{run, workspace};

/// A component that rustup can add.
pub struct Component {
    name: &'static str,
    program: &'static str,
    purpose: &'static str,
}

/// For `cargo fmt`.
pub const RUSTFMT: Component = Component { name: "rustfmt", program: "cargo-fmt", purpose: "checks the format" };

/// For `cargo clippy`.
pub const CLIPPY: Component = Component { name: "clippy", program: "cargo-clippy", purpose: "checks the code" };

impl Tool for Component {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn purpose(&self) -> &'static str {
        self.purpose
    }

    fn find(&self) -> Option<PathBuf> {
        // Not on PATH: rustup puts a proxy there whether the component is installed or not.
        let program = sysroot().ok()?.join("bin").join(self.program);
        program.is_file().then_some(program)
    }

    fn remedy(&self) -> String {
        format!("`rustup component add {}`", self.name)
    }

    fn install(&self) -> Result<()> {
        add(self.name)
    }
}

/// Lets rustup add a component to the toolchain of this workspace.
pub fn add(component: &str) -> Result<()> {
    run::output(Command::new("rustup").args(["component", "add", component]).current_dir(workspace::root()))?;
    Ok(())
}

/// The folder of the compiler in use.
pub fn sysroot() -> Result<PathBuf> {
    let sysroot = run::output(rustc().args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// Such as `1.95.0`.
pub fn version() -> Result<String> {
    let line = run::output(rustc().arg("--version"))?;
    Ok(line.split_whitespace().nth(1).context("`rustc --version` printed no version")?.to_owned())
}

fn rustc() -> Command {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(workspace::root());
    rustc
}

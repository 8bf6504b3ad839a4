//! What `cargo xtask dist` needs: a target without a C library of the host's, a C compiler for it, and makers of packages.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{Tool, packages::Program, toolchain};
use crate::{run, workspace};

/// A static binary runs on every distribution.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// All of it.
pub fn tools() -> Vec<Box<dyn Tool>> {
    vec![Box::new(MuslTarget), Box::new(MUSL_GCC), Box::new(CARGO_DEB), Box::new(CARGO_GENERATE_RPM)]
}

/// Some crates have C in them.
const MUSL_GCC: Program =
    Program { program: "musl-gcc", package: "musl-tools", purpose: "compiles what is in C for the static binary" };

const CARGO_DEB: CargoTool = CargoTool { name: "cargo-deb", version: "3.8.0", purpose: "makes the package for Debian" };

const CARGO_GENERATE_RPM: CargoTool =
    CargoTool { name: "cargo-generate-rpm", version: "0.21.1", purpose: "makes the package for Fedora and RHEL" };

/// The standard library for the static binary.
struct MuslTarget;

impl Tool for MuslTarget {
    fn name(&self) -> String {
        format!("rust-std for {TARGET}")
    }

    fn purpose(&self) -> &'static str {
        "the binary in the packages is static"
    }

    fn find(&self) -> Option<PathBuf> {
        let library = toolchain::sysroot().ok()?.join("lib/rustlib").join(TARGET).join("lib");
        library.is_dir().then_some(library)
    }

    fn remedy(&self) -> String {
        format!("`rustup target add {TARGET}`")
    }

    fn install(&self) -> Result<()> {
        run::output(Command::new("rustup").args(["target", "add", TARGET]).current_dir(workspace::root()))?;
        Ok(())
    }
}

/// A program from crates.io.
struct CargoTool {
    name: &'static str,
    version: &'static str,
    purpose: &'static str,
}

impl Tool for CargoTool {
    fn name(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn purpose(&self) -> &'static str {
        self.purpose
    }

    fn find(&self) -> Option<PathBuf> {
        let path = workspace::find_program(self.name)?;
        let version = run::output(Command::new(&path).arg("--version")).ok()?;
        version.split_whitespace().any(|word| word == self.version).then_some(path)
    }

    fn remedy(&self) -> String {
        format!("`cargo install {} --version {} --locked`", self.name, self.version)
    }

    fn install(&self) -> Result<()> {
        let mut install = workspace::cargo("install");
        install.args([self.name, "--version", self.version, "--locked", "--force", "--root"]).arg(workspace::tools());
        // Flags that are meant for the workspace would make this build fail or differ.
        install.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        run::output(&mut install)?;
        Ok(())
    }
}

//! bpf-linker turns LLVM bitcode into one eBPF object with BTF.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::Tool;
use crate::{run, workspace};

/// The last version that uses rustc's own LLVM; later ones want one installed beside it.
const VERSION: &str = "0.10.3";

/// bpf-linker from crates.io.
pub struct BpfLinker;

impl Tool for BpfLinker {
    fn name(&self) -> String {
        format!("bpf-linker {VERSION}")
    }

    fn purpose(&self) -> &'static str {
        "links the eBPF programs; 1 to 2 minutes, once"
    }

    fn find(&self) -> Option<PathBuf> {
        let path = workspace::find_program("bpf-linker")?;
        let version = run::output(Command::new(&path).arg("--version")).ok()?;
        (version.trim() == self.name()).then_some(path)
    }

    fn remedy(&self) -> String {
        format!("`cargo install bpf-linker --version {VERSION} --locked`")
    }

    fn install(&self) -> Result<()> {
        let mut install = workspace::cargo("install");
        install.args(["bpf-linker", "--version", VERSION, "--locked", "--force", "--root"]).arg(workspace::tools());
        // Flags that are meant for the workspace would make this build fail or differ.
        install.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        run::output(&mut install)?;
        Ok(())
    }
}

//! A fresh Debian in a folder, for the test that installs the package.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Tool, apt, packages};
use crate::{run, workspace};

/// The oldest release that the package is for.
const RELEASE: &str = "bookworm";

/// The smallest system that can install packages.
pub struct Debian;

impl Tool for Debian {
    fn name(&self) -> String {
        format!("Debian {RELEASE}")
    }

    fn purpose(&self) -> &'static str {
        "the system that the package is installed in"
    }

    fn find(&self) -> Option<PathBuf> {
        Some(root()).filter(|root| root.join("etc/debian_version").is_file())
    }

    fn remedy(&self) -> String {
        format!("as root `debootstrap --variant=minbase {RELEASE} {}`", root().display())
    }

    fn install(&self) -> Result<()> {
        packages::install(&["debootstrap"])?;
        let part = root().with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", RELEASE]).arg(&part).arg(apt::archive_uri()?);
        run::output(debootstrap.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;
        // Last, and in one piece: an interrupted set-up starts again.
        fs::rename(part, root())?;
        Ok(())
    }
}

/// Its root folder.
pub fn root() -> PathBuf {
    workspace::tools().join("debian")
}

//! rotel, an OTLP collector that somebody else wrote: the tests send it spans and compare what it says it got.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Tool, packages};
use crate::{run, workspace};

/// The version whose options the tests know.
const VERSION: &str = "0.0.1a15";

/// The distribution's Python: the collector is linked with its library, which other Pythons may not have.
const PYTHON: &str = "/usr/bin/python3";

/// rotel from PyPI.
pub struct Rotel;

/// The collector's executable.
pub fn agent() -> PathBuf {
    dir().join("rotel/rotel-agent")
}

impl Tool for Rotel {
    fn name(&self) -> String {
        format!("rotel {VERSION}")
    }

    fn purpose(&self) -> &'static str {
        "a collector for the export tests"
    }

    fn find(&self) -> Option<PathBuf> {
        let agent = agent();
        let ran = run::output(Command::new(&agent).arg("version"));
        ran.is_ok().then_some(agent)
    }

    fn remedy(&self) -> String {
        format!("`{PYTHON} -m pip install --target {} rotel=={VERSION}`, and the shared libpython", dir().display())
    }

    fn install(&self) -> Result<()> {
        let python = || Command::new(PYTHON);
        if run::output(python().args(["-m", "pip", "--version"])).is_err() {
            packages::install(&["python3-pip"])?;
        }
        let wheel = format!("rotel=={VERSION}");
        let mut pip = python();
        pip.args(["-m", "pip", "install", "--no-deps", "--upgrade", "--only-binary", ":all:", "--target"]);
        run::output(pip.arg(dir()).arg(wheel))?;
        if self.find().is_none() {
            let version = run::output(python().args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))?;
            let library = format!("libpython{}", version.trim());
            packages::install(&[&library]).context("the collector does not run without it")?;
        }
        Ok(())
    }
}

fn dir() -> PathBuf {
    workspace::tools().join("rotel")
}

//! Debian packages of another release than the machine's own, without touching the machine's configuration.
//!
//! A [`Suite`] is a private apt: its own source list, state and cache below `target/tools/apt`. It takes the address of
//! the mirror from the machine's configuration and checks signatures like any apt. Nothing is installed: packages are
//! downloaded and unpacked, which needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{run, workspace};

/// The keys of all Debian releases, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One release of Debian, such as `trixie-backports`.
pub struct Suite {
    name: String,
    dir: PathBuf,
}

impl Suite {
    /// Fetches the suite's list of packages.
    pub fn open(name: &str) -> Result<Self> {
        let suite = Self { name: name.to_owned(), dir: workspace::tools().join("apt").join(name) };
        fs::create_dir_all(suite.dir.join("state/lists/partial"))?;
        fs::create_dir_all(suite.dir.join("cache/archives/partial"))?;
        // Empty: what is installed on the machine has no say in what can be downloaded.
        fs::write(suite.dir.join("status"), "")?;
        fs::write(suite.dir.join("sources.list"), source_line(&archive_uri()?, name))?;
        run::output(suite.apt("apt-get").arg("update")).with_context(|| format!("no package list of Debian {name}"))?;
        Ok(suite)
    }

    /// The versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = run::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(table.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect())
    }

    /// The names of all packages that start so.
    pub fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = run::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package (`name` or `name=version`) and unpacks it into a folder.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let download = tempfile::tempdir_in(&self.dir)?;
        run::output(self.apt("apt-get").args(["download", package]).current_dir(&download))?;
        let deb = fs::read_dir(&download)?.next().context("apt-get downloaded nothing")??.path();
        run::output(Command::new("dpkg").arg("-x").args([deb.as_path(), into]))?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, file) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.dir.join(file).display()));
        }
        command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
        // Component metadata and translations are half of the download and of no use here.
        command.args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "-o",
            "Acquire::Languages=none",
        ]);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Debian {}", self.name)
    }
}

fn source_line(uri: &str, suite: &str) -> String {
    // Without the file, apt falls back to the keys that the machine trusts anyway.
    let signed_by = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    format!("deb {signed_by}{uri} {suite} main\n")
}

/// The address of the Debian archive that this machine uses. apt itself reads the machine's configuration, so the
/// classic and the deb822 form, mirrors and proxies are all understood.
pub fn archive_uri() -> Result<String> {
    if workspace::find_program("apt-get").is_none() {
        bail!("there is no apt-get on this machine");
    }
    let ask = || {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]);
        run::output(&mut command)
    };
    if let Some(uri) = debian_uri(&ask()?) {
        return Ok(uri);
    }
    // A fresh container has no lists yet, and with them no origins; only root can fetch them.
    run::output(Command::new("apt-get").arg("update")).context("this machine has no package lists")?;
    debian_uri(&ask()?).context("this machine's apt has no source of Debian itself")
}

fn debian_uri(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::debian_uri;

    #[test]
    fn the_archive_is_neither_security_nor_a_third_party() {
        let targets = "Example|Debian|http://example/a/\nDebian|Debian-Security|http://mirror/debian-security/\n\
                       Debian|Debian|http://mirror/debian/\n";
        assert_eq!(debian_uri(targets).as_deref(), Some("http://mirror/debian/"));
        assert_eq!(debian_uri("$(ORIGIN)|$(LABEL)|http://mirror/debian/"), None);
    }
}

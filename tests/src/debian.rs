//! A fresh Debian, in which a test installs the package: everything that is changed lies in a layer of its own, and can be listed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Mount;

/// What keeps the package manager's own accounts.
const ACCOUNTS: [&str; 3] = ["var/lib/dpkg", "var/log/dpkg.log", "var/cache/debconf"];

/// A Debian; dropping it unmounts it.
#[derive(Debug)]
pub struct Debian {
    below: PathBuf,
    root: Mount,
}

impl Debian {
    /// A layer over the one that `cargo xtask test --full` makes.
    pub fn fresh() -> Self {
        let below = PathBuf::from(std::env::var_os("TRACER_DEBIAN").expect("`cargo xtask test --full` sets it"));
        let root = Mount::layer_over(&below);
        // Read-only where it can be: what is removed in here by mistake is the host's.
        root.mount_within("proc", &["-t", "proc", "proc"]);
        root.mount_within("sys", &["-t", "sysfs", "-o", "ro", "sysfs"]);
        Self { below, root }
    }

    /// A path in it, as the host has it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path(inside.trim_start_matches('/'))
    }

    /// A command that runs a program in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.root.path("")).arg(program);
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }

    /// Runs a program in it, which must end well; what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        ended_well(self.command(program).args(arguments))
    }

    /// Files that are not as they were at first, and new folders, without the package manager's own accounts.
    pub fn changed(&self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        self.collect(Path::new(""), &mut changed);
        changed
    }

    fn collect(&self, folder: &Path, into: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(self.root.changes().join(folder)).expect("a folder") {
            let entry = entry.expect("it is there");
            let path = folder.join(entry.file_name());
            if ACCOUNTS.iter().any(|accounts| path.starts_with(accounts)) {
                continue;
            }
            let is_folder = entry.file_type().expect("it is there").is_dir();
            if is_folder {
                self.collect(&path, into);
            }
            if !is_folder || !self.below.join(&path).is_dir() {
                into.insert(path);
            }
        }
    }
}

/// Runs a command, which must end well; what it printed.
pub fn ended_well(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout
}

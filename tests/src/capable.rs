//! The agent as a user other than root, whose file gives it capabilities.

use std::fs::{Permissions, copy, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// `nobody`.
pub const USER: u32 = 65_534;

/// What `setcap` of the README gives.
pub const FOUR: [&str; 4] = ["cap_bpf", "cap_perfmon", "cap_sys_ptrace", "cap_dac_read_search"];

/// A copy of the agent where every user can run it.
pub struct Capable {
    folder: TempDir,
}

impl Capable {
    /// Its file has these capabilities.
    pub fn with(capabilities: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let copied = Self { folder };
        copy(crate::program("tracer"), copied.path()).expect("there is room for it");
        if !capabilities.is_empty() {
            let set = format!("{}=ep", capabilities.join(","));
            let status = Command::new("setcap").arg(set).arg(copied.path()).status();
            assert!(status.expect("`cargo xtask test` installs setcap").success());
        }
        copied
    }

    /// The program.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("tracer")
    }

    /// A command that runs it as `nobody`.
    pub fn command(&self) -> Command {
        as_nobody(&self.path())
    }
}

/// A command that runs a program as `nobody`, in no other group.
pub fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(USER).gid(USER).env("HOME", "/nonexistent").env("NO_COLOR", "1");
    command
}

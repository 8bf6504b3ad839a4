//! File systems for a test: mounted in a temporary folder, and gone with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    /// btrfs on a file, with a subvolume: its path is [`Self::path`]`("sub")`.
    pub fn btrfs() -> Self {
        let mount = Self { folder: folder() };
        let image = mount.folder.path().join("image");
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(200 << 20).expect("a sparse file");
        run(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(mount.point()));
        run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(mount.path("sub")));
        mount
    }

    /// overlayfs, as container engines use it: what is below is on this file system, what is above on another one.
    pub fn overlay(lower: impl FnOnce(&Path)) -> Self {
        let mount = Self { folder: folder() };
        let below = mount.folder.path().join("lower");
        std::fs::create_dir(&below).expect("a folder");
        lower(&below);
        mount.lay_over(&below)
    }

    /// A folder, and above it what the test changes ([`Self::changes`]).
    pub fn layer_over(below: &Path) -> Self {
        Self { folder: folder() }.lay_over(below)
    }

    fn lay_over(self, below: &Path) -> Self {
        let above = self.folder.path().join("above");
        std::fs::create_dir(&above).expect("a folder");
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&above));
        for name in ["upper", "work"] {
            std::fs::create_dir(above.join(name)).expect("a folder");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            below.display(),
            above.join("upper").display(),
            above.join("work").display()
        );
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(self.point()));
        self
    }

    /// Mounts something on a folder of it, by these arguments of `mount`; it goes with this one.
    pub fn mount_within(&self, name: &str, arguments: &[&str]) {
        run(Command::new("mount").args(arguments).arg(self.path(name)));
    }

    /// The layer of an overlay that has what was changed.
    pub fn changes(&self) -> PathBuf {
        self.folder.path().join("above/upper")
    }

    /// A folder of this file system, mounted a second time.
    pub fn bind(source: &Path) -> Self {
        let mount = Self { folder: folder() };
        run(Command::new("mount").arg("--bind").arg(source).arg(mount.point()));
        mount
    }

    /// A folder by way of FUSE. `user` mounts it, for himself only: root may not enter.
    pub fn fuse(source: &Path, user: u32) -> Self {
        let mount = Self { folder: folder() };
        for path in [source, &mount.point()] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).expect("root may");
        }
        // /dev/fuse may be for root only, so the user mounts with capabilities.
        let number = user.to_string();
        run(Command::new("setpriv")
            .args(["--reuid", &number, "--regid", &number, "--clear-groups"])
            .args(["--inh-caps", "+sys_admin,+dac_override", "--ambient-caps", "+sys_admin,+dac_override"])
            .args(["bindfs", "--no-allow-other"])
            .arg(source)
            .arg(mount.point()));
        mount
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.point().join(name)
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for name in ["mnt", "above"] {
            let path = self.folder.path().join(name);
            if path.exists() {
                // What is still open keeps it until it is closed. An error means that it was not mounted.
                let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(path).status();
            }
        }
    }
}

/// A folder that everybody may enter, with a place to mount on.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).expect("it is ours");
    std::fs::create_dir(folder.path().join("mnt")).expect("a folder");
    folder
}

fn run(command: &mut Command) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

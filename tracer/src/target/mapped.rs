//! The files that a process runs: found by what is mapped, and opened through the mapping, whatever became of their names.
//!
//! `/proc/PID/map_files/START-END` leads to the mapped file itself, also if it was renamed, deleted, or never had a name
//! (memfd), and from any mount namespace. Where the kernel does not let us follow it (that takes CAP_SYS_ADMIN or
//! CAP_CHECKPOINT_RESTORE; threads whose process has lost its main one have no such folder), the path is looked up in the file system of the process, and the inode must be the mapped one.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use procfs::process::{MMPermissions, MMapPath, MemoryMap};
use rustix::fs::makedev;

use super::Process;
use super::started::without_deleted;
use crate::files;

/// Executable mappings of one process that are looked at; hostile processes can have very many.
const MAX_MAPPED_FILES: usize = 1024;

/// A file that a process has mapped as code, or that processes will run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Where the agent can open it, also when the process is in another mount namespace.
    pub path: PathBuf,
    /// As the process sees it.
    pub shown: PathBuf,
    /// Tells files apart ([`files::identity`]); the kernel's own records call them otherwise.
    pub key: (u64, u64),
}

impl MappedFile {
    /// A file that no process has mapped yet.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let key = files::identity(&files::locate(&path)?)?;
        Ok(Self { shown: path.clone(), path, key })
    }

    /// Finds the file again without opening it.
    ///
    /// # Errors
    /// When it is gone, or another one has taken its place.
    pub fn locate(&self) -> io::Result<OwnedFd> {
        let located = files::locate(&self.path)?;
        match files::identity(&located) {
            Ok(key) if key != self.key => {
                Err(io::Error::new(io::ErrorKind::NotFound, "another file has taken its place"))
            }
            // A FUSE file system may not even tell the number; then it cannot be read either.
            _ => Ok(located),
        }
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// As [`Self::locate`], and when it may not be read.
    pub fn open(&self) -> io::Result<File> {
        files::readable(&self.locate()?)
    }

    /// Why the file cannot be read, for people; none if it can.
    pub fn unreadable(&self) -> Option<String> {
        let located = files::locate(&self.path).ok()?;
        let error = files::readable(&located).err()?;
        if error.kind() == io::ErrorKind::PermissionDenied && files::is_on_fuse(&located) {
            return Some(
                "it is on a FUSE file system that lets in nobody but its owner, not even root; mount it with `-o allow_root` \
                 or `-o allow_other`"
                    .to_owned(),
            );
        }
        Some(error.to_string())
    }
}

impl Process {
    /// The file that the kernel was asked to run; for a program that was given to the dynamic loader, the loader.
    pub fn executable(&self) -> Option<MappedFile> {
        let path = self.file("exe");
        let located = files::locate(&path).ok()?;
        let key = files::identity(&located).ok().or_else(|| self.mapped_key())?;
        Some(MappedFile { path, shown: self.exe.clone(), key })
    }

    /// Device and inode of the executable by its mapping, if the file system does not tell.
    fn mapped_key(&self) -> Option<(u64, u64)> {
        let maps = self.proc.maps().ok()?;
        let map = maps.into_iter().find(|map| shown(map).is_some_and(|path| path == self.exe))?;
        Some(mapped_as(&map))
    }

    /// Every file that it has mapped as code, the program first.
    pub fn mapped_files(&self) -> Vec<MappedFile> {
        let Some(executable) = self.executable() else { return Vec::new() };
        let mut files = vec![executable];
        let Ok(maps) = self.proc.maps() else { return files };
        let mut seen = HashSet::new();
        for map in maps.iter().filter(|map| map.inode != 0 && map.perms.contains(MMPermissions::EXECUTE)) {
            let Some(shown) = shown(map) else { continue };
            if files.len() >= MAX_MAPPED_FILES || !seen.insert(mapped_as(map)) {
                continue;
            }
            let Some((path, key)) = self.mapped_file(map, &shown) else { continue };
            if files.iter().all(|file| file.key != key) {
                files.push(MappedFile { path, shown, key });
            }
        }
        // The dynamic loader was asked to run a program: that is the one.
        if let Some(program) = &self.loaded
            && let Some(index) = files.iter().position(|file| self.is_named(program, file))
        {
            files.swap(0, index);
        }
        files
    }

    /// Where the file of a mapping can be opened, and its device and inode.
    fn mapped_file(&self, map: &MemoryMap, shown: &Path) -> Option<(PathBuf, (u64, u64))> {
        let mapping = self.file("map_files").join(format!("{:x}-{:x}", map.address.0, map.address.1));
        if let Ok(located) = files::locate(&mapping) {
            let key = files::identity(&located).unwrap_or_else(|_| mapped_as(map));
            return Some((mapping, key));
        }
        let path = self.file("root").join(shown.strip_prefix("/").ok()?);
        let key = files::identity(&files::locate(&path).ok()?).ok()?;
        // The devices of btrfs and overlayfs have other numbers for `stat` than for the kernel.
        (key.1 == map.inode).then_some((path, key))
    }

    /// Whether a path that the process was given leads to the file.
    fn is_named(&self, path: &Path, file: &MappedFile) -> bool {
        let root = self.file("root");
        let inside = |path: &Path| path.strip_prefix("/").ok().map(|inside| root.join(inside));
        let found = inside(path).and_then(|path| files::identity(&files::locate(&path).ok()?).ok());
        found.map_or_else(|| file.shown == path, |found| found == file.key)
    }
}

/// Device and inode as `/proc/PID/maps` has them.
fn mapped_as(map: &MemoryMap) -> (u64, u64) {
    (makedev(map.dev.0.cast_unsigned(), map.dev.1.cast_unsigned()), map.inode)
}

/// The path of a mapping, as the process sees it.
fn shown(map: &MemoryMap) -> Option<PathBuf> {
    match &map.pathname {
        MMapPath::Path(path) => Some(without_deleted(path.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::MappedFile;
    use crate::target::Process;

    #[test]
    fn this_process_is_found_with_its_files() {
        let me = Process::read(std::process::id()).expect("myself");
        assert!(me.id.start_time > 0);
        let files = me.mapped_files();
        assert_eq!(files.first().map(|file| &file.shown), Some(&me.exe));
        assert!(files.iter().any(|file| file.shown.to_string_lossy().contains("libc.so")));
        assert!(files.iter().all(|file| file.open().is_ok()));
        assert!(Process::is_alive(me.id));
    }

    #[test]
    fn a_file_that_was_replaced_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        std::fs::write(&path, "one").expect("written");
        let file = MappedFile::at(&path).expect("a file");
        assert!(file.open().is_ok());
        std::fs::write(folder.path().join("new"), "two").expect("written");
        std::fs::rename(folder.path().join("new"), &path).expect("renamed");
        assert!(file.open().is_err());
    }
}

//! One process, as /proc shows it at one time. It may be gone at any moment: every read can fail.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath};

use crate::trace::span::ProcessId;

/// Executable mappings of one process that are looked at; hostile processes can have very many.
const MAX_MAPPED_FILES: usize = 1024;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is none, or no longer.
    #[error("no process has the number {0}: `tracer ps` lists those that can be traced")]
    NotFound(u32),
    /// It may not be looked at.
    #[error("process {pid} cannot be looked at: CAP_SYS_PTRACE is needed, which root has")]
    Permission {
        /// The process.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: ProcError,
    },
    /// Something else.
    #[error("cannot read /proc/{pid}")]
    Proc {
        /// The process.
        pid: u32,
        /// What went wrong.
        #[source]
        source: ProcError,
    },
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Who it is.
    pub id: ProcessId,
    /// Its name as the kernel has it: at most 15 bytes.
    pub comm: String,
    /// Path of the executable as the process sees it; ` (deleted)` is taken off.
    pub exe: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    proc: procfs::process::Process,
}

/// A file that a process has mapped as code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Where the agent can open it, also when the process is in another mount namespace.
    pub path: PathBuf,
    /// As the process sees it.
    pub shown: PathBuf,
    /// Device and inode.
    pub key: (u64, u64),
}

impl MappedFile {
    /// A file that no process has mapped yet.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let metadata = std::fs::metadata(&path)?;
        Ok(Self { shown: path.clone(), path, key: (metadata.dev(), metadata.ino()) })
    }
}

impl Process {
    /// Reads a process. Kernel threads are not found: they have no executable.
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        let failed = |source| match source {
            ProcError::NotFound(_) => ProcessError::NotFound(pid),
            ProcError::PermissionDenied(_) => ProcessError::Permission { pid, source },
            source => ProcessError::Proc { pid, source },
        };
        let number = i32::try_from(pid).map_err(|_| ProcessError::NotFound(pid))?;
        let proc = procfs::process::Process::new(number).map_err(failed)?;
        let stat = proc.stat().map_err(failed)?;
        if matches!(stat.state, 'Z' | 'X') {
            return Err(ProcessError::NotFound(pid));
        }
        let exe = without_deleted(proc.exe().map_err(failed)?);
        let arguments = proc.cmdline().map_err(failed)?;
        Ok(Self { id: ProcessId { pid, start_time: stat.starttime }, comm: stat.comm, exe, arguments, proc })
    }

    /// All processes that can be read now.
    pub fn all() -> Vec<Self> {
        let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
        processes
            .filter_map(Result::ok)
            .filter_map(|process| Self::read(u32::try_from(process.pid).ok()?).ok())
            .collect()
    }

    /// Name by which users know it: the executable's file name.
    pub fn name(&self) -> String {
        self.exe.file_name().map_or_else(|| self.comm.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// A variable of the environment that the process was started with.
    pub fn environment(&self) -> HashMap<OsString, OsString> {
        self.proc.environ().unwrap_or_default()
    }

    /// Path of its control group, in which container runtimes put the container's id.
    pub fn control_group(&self) -> Option<String> {
        let groups = self.proc.cgroups().ok()?;
        groups.into_iter().map(|group| group.pathname).max_by_key(String::len)
    }

    /// The executable.
    pub fn executable(&self) -> Option<MappedFile> {
        let path = PathBuf::from(format!("/proc/{}/exe", self.id.pid));
        let metadata = std::fs::metadata(&path).ok()?;
        Some(MappedFile { path, shown: self.exe.clone(), key: (metadata.dev(), metadata.ino()) })
    }

    /// Every file that it has mapped as code, the executable first.
    pub fn mapped_files(&self) -> Vec<MappedFile> {
        let mut files: Vec<MappedFile> = self.executable().into_iter().collect();
        let Ok(maps) = self.proc.maps() else { return files };
        for map in maps {
            let MMapPath::Path(shown) = map.pathname else { continue };
            if files.len() >= MAX_MAPPED_FILES || !map.perms.contains(MMPermissions::EXECUTE) {
                continue;
            }
            let path = self.visible(&shown);
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let key = (metadata.dev(), metadata.ino());
            if metadata.ino() == map.inode && metadata.is_file() && files.iter().all(|file| file.key != key) {
                files.push(MappedFile { path, shown, key });
            }
        }
        files
    }

    /// Where it has a variable of a file: the address at which the `offset` of the file is mapped for it to write.
    ///
    /// The mappings say it for every kind of program, position independent or not, wherever its segments lie. A page at the end of a
    /// segment is in the next one's mapping too, so the one that counts is the one that the kernel takes for a probe's semaphore.
    pub fn variable(&self, file: &MappedFile, offset: u64) -> Option<u64> {
        let wanted = |perms: MMPermissions| {
            perms.contains(MMPermissions::WRITE | MMPermissions::PRIVATE) && !perms.contains(MMPermissions::SHARED)
        };
        self.proc.maps().ok()?.into_iter().find_map(|map| {
            let into = offset.checked_sub(map.offset)?;
            let address = map.address.0.checked_add(into)?;
            (map.inode == file.key.1 && wanted(map.perms) && address < map.address.1).then_some(address)
        })
    }

    /// Address and length of the mapping by which it publishes its context (OTEP 4719).
    pub(super) fn published_context(&self) -> Option<(u64, u64)> {
        let maps = self.proc.maps().ok()?;
        maps.into_iter().find_map(|map| {
            let named = match &map.pathname {
                MMapPath::Path(path) => path.to_str() == Some("/memfd:OTEL_CTX (deleted)"),
                MMapPath::Other(name) => matches!(name.as_str(), "anon_shmem:OTEL_CTX" | "anon:OTEL_CTX"),
                _ => false,
            };
            named.then_some((map.address.0, map.address.1.saturating_sub(map.address.0)))
        })
    }

    /// Where the sampling page of its shim can be opened; one of at least `len` bytes.
    pub(super) fn sampling_page(&self, len: u64) -> Option<PathBuf> {
        let maps = self.proc.maps().ok()?;
        maps.into_iter().find_map(|map| {
            let (start, end) = map.address;
            let is_page = matches!(&map.pathname, MMapPath::Path(path) if path.to_str() == Some("/memfd:tracer_sampling (deleted)"));
            (is_page && end.saturating_sub(start) >= len)
                .then(|| PathBuf::from(format!("/proc/{}/map_files/{start:x}-{end:x}", self.id.pid)))
        })
    }

    /// A path of the process, as the agent can open it.
    fn visible(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.id.pid));
        match path.strip_prefix("/") {
            Ok(relative) => root.join(relative),
            Err(_) => path.to_owned(),
        }
    }

    /// Whether it is still there, and still the same.
    pub fn is_alive(id: ProcessId) -> bool {
        Self::read(id.pid).is_ok_and(|process| process.id == id)
    }
}

fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(stripped) => PathBuf::from(stripped),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Process, ProcessError};

    #[test]
    fn this_process_is_found_with_its_files() {
        let me = Process::read(std::process::id()).expect("myself");
        assert!(me.id.start_time > 0);
        let files = me.mapped_files();
        assert_eq!(files.first().map(|file| &file.shown), Some(&me.exe));
        assert!(files.iter().any(|file| file.shown.to_string_lossy().contains("libc.so")));
        assert!(Process::is_alive(me.id));
    }

    #[test]
    fn no_process_is_an_error_that_says_so() {
        let error = Process::read(u32::MAX).expect_err("there is none");
        assert!(matches!(error, ProcessError::NotFound(u32::MAX)));
    }
}

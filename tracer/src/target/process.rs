//! One process, as /proc shows it at one time. It may be gone at any moment: every read can fail.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath};

use super::MappedFile;
use super::started::{called, file_name, given_to_loader, script, without_deleted};
use crate::model::ProcessId;

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
    /// The program that it loads, as the process sees it, if the executable is the dynamic loader.
    pub(super) loaded: Option<PathBuf>,
    /// Its folder in /proc; that of one of its threads if the main one has ended.
    folder: PathBuf,
    pub(super) proc: procfs::process::Process,
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
        let mut folder = PathBuf::from(format!("/proc/{pid}"));
        let mut proc = procfs::process::Process::new(number).map_err(failed)?;
        let stat = proc.stat().map_err(failed)?;
        if has_ended(&stat) {
            return Err(ProcessError::NotFound(pid));
        }
        // The main thread has ended and others run: what they share is only seen through one of them.
        if stat.state == 'Z' {
            (folder, proc) = living_thread(&folder).ok_or(ProcessError::NotFound(pid))?;
        }
        let exe = without_deleted(proc.exe().map_err(failed)?);
        let arguments = proc.cmdline().map_err(failed)?;
        let loaded = given_to_loader(&exe, &arguments).map(|program| match proc.cwd() {
            Ok(folder) => folder.join(program),
            Err(_) => program,
        });
        let id = ProcessId { pid, start_time: stat.starttime };
        Ok(Self { id, comm: stat.comm, exe, arguments, loaded, folder, proc })
    }

    /// All processes that can be read now.
    pub fn all() -> Vec<Self> {
        let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
        processes
            .filter_map(Result::ok)
            .filter_map(|process| Self::read(u32::try_from(process.pid).ok()?).ok())
            .collect()
    }

    /// Name by which users know it: the file name of the program.
    pub fn name(&self) -> String {
        file_name(self.program()).unwrap_or_else(|| self.comm.clone())
    }

    /// The program as the process sees it: the executable, or what the dynamic loader was asked to run.
    pub fn program(&self) -> &Path {
        self.loaded.as_deref().unwrap_or(&self.exe)
    }

    /// Whether the executable is the program, so that whoever runs this file runs this program.
    pub fn is_executable_of_its_own(&self) -> bool {
        self.loaded.is_none() && script(&self.exe, &self.arguments).is_none()
    }

    /// All names under which users may know it, the best first: of its program, of the command that it was started by, and of the script
    /// that it runs.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.name(), self.comm.clone()];
        names.extend(called(&self.comm, &self.arguments));
        names.extend(script(&self.exe, &self.arguments));
        names
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

    /// Whether its main thread runs; others can go on without it.
    pub fn has_main_thread(&self) -> bool {
        self.folder.parent() == Some(Path::new("/proc"))
    }

    /// Its file in /proc of that name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether it is still there, and still the same.
    pub fn is_alive(id: ProcessId) -> bool {
        let Ok(number) = i32::try_from(id.pid) else { return false };
        let stat = procfs::process::Process::new(number).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.starttime == id.start_time && !has_ended(&stat))
    }
}

/// A thread of a process that can be read.
fn living_thread(process: &Path) -> Option<(PathBuf, procfs::process::Process)> {
    std::fs::read_dir(process.join("task")).ok()?.filter_map(Result::ok).find_map(|entry| {
        let thread = procfs::process::Process::new_with_root(entry.path()).ok()?;
        thread.exe().ok()?;
        Some((entry.path(), thread))
    })
}

/// Whether all its threads have ended. Its main thread alone is a zombie for as long as others run. One that has given up its memory
/// is about to end, and none of its files can be read any more.
fn has_ended(stat: &procfs::process::Stat) -> bool {
    (matches!(stat.state, 'Z' | 'X') || stat.vsize == 0) && stat.num_threads <= 1
}

#[cfg(test)]
mod tests {
    use super::{Process, ProcessError};

    #[test]
    fn no_process_is_an_error_that_says_so() {
        let error = Process::read(u32::MAX).expect_err("there is none");
        assert!(matches!(error, ProcessError::NotFound(u32::MAX)));
    }
}

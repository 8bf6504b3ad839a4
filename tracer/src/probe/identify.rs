//! What the eBPF programs call a file: the inode and device number that they read from the kernel's own structures.
//!
//! On btrfs and overlayfs these differ from what `stat` says. So the agent opens the file and has a program read them, which the
//! kernel runs in the calling thread.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use tracer_common::map::Executable;

use super::programs::program;
use super::{LoadError, Programs};

/// Never attached.
pub(super) const IDENTIFY: &str = "identify";

impl Programs {
    /// What the programs will call the file that is open as `file`.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn identify(&mut self, file: BorrowedFd<'_>) -> Result<Executable, LoadError> {
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = file.as_raw_fd() as u64;
        let program: &mut RawTracePoint = program(&mut self.ebpf, IDENTIFY)?;
        program.test_run(options).map_err(|source| LoadError::Program { name: IDENTIFY, source })?;
        self.identified.get(&0, 0).map_err(|source| LoadError::Map { name: "IDENTIFIED", source })
    }
}

//! What a session gives up before it begins, and `--no-sandbox`.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::export::{Options, ThreadStart};
use crate::privilege::{self, ADMIN, Confinement, EXTRA, MissingCapabilities, TRACE};
use crate::probe::{descriptors, uprobes_need_admin};

/// Fails unless this process may trace; the error names what is missing.
///
/// # Errors
/// When capabilities are missing.
pub fn require_trace() -> Result<(), MissingCapabilities> {
    privilege::require(&TRACE)?;
    if !privilege::missing([&ADMIN]).is_empty() && uprobes_need_admin() {
        return privilege::require([&ADMIN]);
    }
    Ok(())
}

/// The rights of a session.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// `None` with `--no-sandbox`.
    exporters: Option<Confinement>,
}

impl Sandbox {
    /// Gives up what no session needs. Before it come the start of the command, which keeps its rights, and the opening of the
    /// files that are written to, for which more rights may be needed; after it come all other threads. Exporters may write to
    /// the files in `writable` folders still.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(off: bool, writable: Vec<PathBuf>) -> Result<Self> {
        if off {
            tracing::warn!("--no-sandbox: the agent keeps all rights that it was started with");
            return Ok(Self { exporters: None });
        }
        // The right to do so goes next.
        descriptors::raise_locked_memory();
        let kept = privilege::give_up(TRACE.iter().chain(&EXTRA), uprobes_need_admin)
            .context("cannot give up capabilities; `--no-sandbox` goes without")?;
        tracing::debug!("kept of all capabilities: {kept}");
        Ok(Self { exporters: Some(Confinement { writable }) })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.exporters.is_some()
    }

    /// Exporters of these options begin with giving up what is left.
    pub fn confine(&self, options: Options) -> Options {
        match self.exporters.clone() {
            Some(confinement) => Options { thread_start: ThreadStart::new(move || confinement.enter()), ..options },
            None => options,
        }
    }

    /// For what else talks to the network.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn runtime(&self) -> Result<Runtime> {
        let confinement = self.exporters.clone();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().on_thread_start(move || {
            if let Some(confinement) = &confinement {
                confinement.enter();
            }
        });
        builder.build().context("cannot start a thread")
    }
}

/// Tells which system calls the filter has refused, when there are others than before: it must never be a riddle why something
/// does not work.
pub fn report_refusals() {
    static TOLD: Mutex<usize> = Mutex::new(0);
    let (numbers, times) = privilege::refused();
    let Ok(mut told) = TOLD.lock() else { return };
    if numbers.len() > std::mem::replace(&mut *told, numbers.len()) {
        tracing::error!(
            "the sandbox refused system calls ({times}, of the numbers {numbers:?}): please report this; `--no-sandbox` goes without"
        );
    }
}

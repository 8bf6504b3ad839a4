//! What the agent itself finds out about the sockets of targets: what the tracepoints do not tell.

use std::collections::HashMap;

use tracer_common::record::{self, FLAG_SERVER};

use super::encrypted::Encrypted;
use super::{Agent, Sink, chain, monotonic_ns};
use crate::inspect::Limit;
use crate::probe::SocketProbe;
use crate::target::Descriptors;

/// Of Unix sockets. The kernel does not tell when one connects, begins to send, or ends.
pub const AF_UNIX: u16 = 1;
/// How often the sockets of connections are asked for.
const SWEEP_EVERY_NS: u64 = 100_000_000;
/// Sweeping takes at most one part in so many of the time.
const SWEEP_SHARE: u64 = 100;

/// The sockets of targets, as far as they are not the programs' business.
#[derive(Debug, Default)]
pub struct Sockets {
    next_sweep_ns: u64,
    /// What targets had open when they became such, by process number.
    before: HashMap<u32, Descriptors>,
    /// Connections whose bytes mean nothing to anybody else.
    pub(super) encrypted: Encrypted,
}

impl Sockets {
    /// The connection is of a Unix socket that the process did not have when it became a target.
    pub fn is_new_unix(&self, open: &record::Connection) -> bool {
        open.family == AF_UNIX
            && open.head.flags & FLAG_SERVER == 0
            && self.before.get(&open.head.pid).is_some_and(|before| !before.sockets.contains(&open.inode))
    }

    /// A process is no target any more.
    pub fn forget(&mut self, pid: u32) {
        self.before.remove(&pid);
        self.encrypted.forget(pid);
    }
}

impl<S: Sink> Agent<S> {
    /// A process is about to become a target.
    pub(super) fn note_descriptors(&mut self, pid: u32) {
        let descriptors = Descriptors::read(pid);
        let uring = descriptors.uring;
        self.sockets.before.insert(pid, Descriptors { uring: false, ..descriptors });
        if uring {
            self.uring(pid);
        }
    }

    /// A target uses io_uring: says once what that means.
    pub(super) fn uring(&mut self, pid: u32) {
        if let Some(descriptors) = self.sockets.before.get_mut(&pid)
            && !std::mem::replace(&mut descriptors.uring, true)
            && self.options.sockets != SocketProbe::Off
        {
            self.limited[Limit::Uring as usize] += 1;
            tracing::warn!("process {pid}: {}", Limit::Uring.text());
        }
    }

    /// A connection is followed: of a Unix socket, the beginnings of its sends are to be seen from now on.
    pub(super) fn watch_sends(&mut self, open: &record::Connection) {
        if open.family == AF_UNIX
            && let Err(error) = self.programs.watch_sends()
        {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// Looks for connections whose sockets are gone, every now and then.
    pub(super) fn sweep_connections(&mut self) {
        let start_ns = monotonic_ns();
        if start_ns < self.sockets.next_sweep_ns {
            return;
        }
        if let Err(error) = self.programs.sweep_connections() {
            tracing::debug!("{}", chain(&error));
        }
        let end_ns = monotonic_ns();
        self.sockets.next_sweep_ns = end_ns + SWEEP_EVERY_NS.max(SWEEP_SHARE * (end_ns - start_ns));
    }
}

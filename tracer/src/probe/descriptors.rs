//! How many descriptors the agent may have, and how much memory the kernel may lock for it. Each link is one, each perf event another, and shells and systemd give a process
//! 1,024 unless it asks for more.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept free of probes: for exporters, for `/proc`, and for the file of a process that comes.
const RESERVE: usize = 128;

/// Raises the soft limit to the hard one. The command of `tracer run` was started before, with the limits that the agent had.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!("the limit of descriptors stays at {current:?}: {error}");
    }
}

/// Raises the limit of locked memory, on which kernels before 5.11 count maps and programs; it takes CAP_SYS_RESOURCE. Later kernels
/// do not ask, so a refusal does not matter there, and where it does the loading says so.
pub fn raise_locked_memory() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!("the limit of locked memory stays: {error}");
    }
}

/// Descriptors that probes may still use.
pub fn available() -> usize {
    let limit =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit.saturating_sub(open).saturating_sub(RESERVE)
}

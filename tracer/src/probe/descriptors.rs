//! How many descriptors the agent may have. Each link is one, each perf event another, and shells and systemd give a process
//! 1,024 unless it asks for more.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limits before they were raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Descriptors that are kept free of probes: for exporters, for `/proc`, and for the file of a process that comes.
const RESERVE: usize = 128;

/// Raises the soft limit to the hard one.
pub fn raise_limit() {
    let before = *BEFORE.get_or_init(|| getrlimit(Resource::Nofile));
    let Rlimit { maximum, .. } = before;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!("the limit of descriptors stays at {:?}: {error}", before.current);
    }
}

/// Gives a child the limits that the agent had: what it runs is to run as without the agent.
pub fn restore_limit(child: u32) {
    let child = i32::try_from(child).ok().and_then(Pid::from_raw);
    if let (Some(before), Some(child)) = (BEFORE.get(), child)
        && let Err(error) = prlimit(Some(child), Resource::Nofile, *before)
    {
        tracing::warn!("process {} has the agent's limit of descriptors: {error}", child.as_raw_nonzero());
    }
}

/// Descriptors that probes may still use.
pub fn available() -> usize {
    let limit =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit.saturating_sub(open).saturating_sub(RESERVE)
}

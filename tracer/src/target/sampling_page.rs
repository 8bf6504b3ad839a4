//! The page of a shim's process that says which traces begin there ([`tracer_shim::sampling`]): written here, read there.
//!
//! The page is the target's memory, but it is made to be written to by the agent; nothing else of a target ever is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use tracer_shim::sampling::{MAGIC, MAX_RULES, PAGE_LEN, name_hash, threshold_of};

use super::Process;

/// Which share of the traces that begin in a process is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Of what no rule names, from 0 to 1.
    pub ratio: f64,
    /// By the first span's name; of a message that is its Rust type, `my_crate::pb::Order`.
    pub rules: Vec<(String, f64)>,
}

/// Why a process was not told.
#[derive(Debug, thiserror::Error)]
pub enum SamplingError {
    /// It has no shim, or has not made a span yet.
    #[error("process {0} has no sampling page: it is without the shim, or has not sent a message yet")]
    NoPage(u32),
    /// Too many rules.
    #[error("{0} rules are too many: a process takes {MAX_RULES}")]
    TooMany(usize),
    /// The page could not be written.
    #[error("cannot write the sampling page of process {pid}")]
    Io {
        /// The process.
        pid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Tells a process, while it runs.
///
/// # Errors
/// When it has no page, or the page cannot be written.
pub fn set_sampling(process: &Process, sampling: &Sampling) -> Result<(), SamplingError> {
    let pid = process.id.pid;
    if sampling.rules.len() > MAX_RULES {
        return Err(SamplingError::TooMany(sampling.rules.len()));
    }
    let path = process.sampling_page(PAGE_LEN as u64).ok_or(SamplingError::NoPage(pid))?;
    let failed = |source| SamplingError::Io { pid, source };
    let page = File::options().read(true).write(true).open(path).map_err(failed)?;
    let mut word = [0; 8];
    page.read_exact_at(&mut word, 0).map_err(failed)?;
    if u64::from_le_bytes(word) != MAGIC {
        return Err(SamplingError::NoPage(pid));
    }
    page.read_exact_at(&mut word, 8).map_err(failed)?;
    // Odd while it changes, also if whoever wrote before died in the middle.
    let odd = u64::from_le_bytes(word) | 1;
    let mut values = vec![threshold_of(sampling.ratio), sampling.rules.len() as u64];
    values.extend(sampling.rules.iter().flat_map(|(name, ratio)| [name_hash(name), threshold_of(*ratio)]));
    let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
    page.write_all_at(&odd.to_le_bytes(), 8)
        .and_then(|()| page.write_all_at(&bytes, 16))
        .and_then(|()| page.write_all_at(&odd.wrapping_add(1).to_le_bytes(), 8))
        .map_err(failed)
}

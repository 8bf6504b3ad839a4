//! The page of a shim's process that says which traces begin there ([`tracer_shim::sampling`]): written here, read there.
//!
//! The page is the target's memory, but it is made to be written to by the agent; nothing else of a target ever is.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

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

/// Whether this is memory that a program has made with `memfd_create`, as the shim does, and not a file of a file system: it was
/// found by its name, and a target can map a file of that name which others may not write to.
fn is_memory_file(page: &File) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    // What is not made to be sealed is born sealed against it: files of a tmpfs.
    let sealable = rustix::fs::fcntl_get_seals(page).is_ok_and(|seals| !seals.contains(rustix::fs::SealFlags::SEAL));
    let metadata = page.metadata()?;
    let nameless = metadata.is_file() && metadata.nlink() == 0;
    Ok(nameless && sealable && rustix::fs::fstatfs(page)?.f_type as i64 == TMPFS)
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
    if !is_memory_file(&page).map_err(failed)? {
        return Err(SamplingError::NoPage(pid));
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::{self, File};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::is_memory_file;

    #[test]
    fn only_what_memfd_create_made_is_written_to() {
        let open =
            |path: &std::path::Path| File::options().read(true).write(true).create(true).truncate(true).open(path);
        let page = File::from(memfd_create("tracer_sampling", MemfdFlags::ALLOW_SEALING).unwrap());
        assert!(is_memory_file(&page).unwrap());
        for folder in ["/dev/shm", "/tmp"] {
            let folder = tempfile::tempdir_in(folder).unwrap();
            let path = folder.path().join("memfd:tracer_sampling");
            let file = open(&path).unwrap();
            assert!(!is_memory_file(&file).unwrap(), "{}", path.display());
            fs::remove_file(&path).unwrap();
            assert!(!is_memory_file(&file).unwrap(), "deleted: {}", path.display());
        }
    }
}

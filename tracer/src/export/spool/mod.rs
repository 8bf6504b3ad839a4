//! Requests that a collector did not take, on disk until it does.
//!
//! Each request is a file of its own ([`segment`]): it is there or it is gone, so what is left after a crash needs no
//! position of a reader and no index that could contradict the files. That is the whole state.
//!
//! What survives: everything written survives the death of the agent in any way (`kill -9`, out of memory), because the
//! kernel has it. There is no fsync, which would make other programs of the host wait for their own: after a power failure
//! the last seconds (those the kernel had not written, about 30 s) are missing or torn, and what is torn is counted.
//!
//! Crates were looked at: yaque keeps the reader's position apart from its segments, has to guess it after a kill, and
//! panics on a foreign file; queue-file is one file, so one damage is at the cost of all, and dropping the oldest at a size
//! is not its business; okaywal says of itself that it is not for production; segment-buffer writes its own encoding of
//! typed items, and is a few months old.

mod segment;

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::otlp::encode::Request;
use super::{Cause, Tally};

/// What a file takes on disk is a multiple of this on the usual file systems.
const BLOCK_BYTES: u64 = 4_096;
const LOCK: &str = "lock";

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The system refuses it.
    #[error("cannot use {} as a spool; give --spool a folder in which this user can make files", .path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could change what is in it, or send it elsewhere.
    #[error("cannot use {} as a spool: {why}; give --spool a folder that is this user's alone (chmod 0700)", .path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Another agent has it.
    #[error("another agent uses the spool {}; give each its own --spool", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A request on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    number: u64,
    spans: u64,
    bytes: u64,
    /// How often it failed where others were taken.
    pub(super) outrun: u8,
}

/// Why a request cannot be read back.
#[derive(Debug)]
pub(super) enum Unread {
    /// It will never be read.
    Damaged(String),
    /// The system refuses it now.
    Refused(io::Error),
}

/// The requests for one collector on disk, the oldest first.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Held as long as the spool is used; the kernel lets it go when the agent dies.
    _lock: File,
    limit: u64,
    /// Bytes on disk, of requests that are taken as well.
    used: u64,
    next: u64,
    segments: VecDeque<Segment>,
    /// Spans found at the start.
    found: u64,
}

impl Spool {
    /// Opens the spool of a collector below `directory`, with what is left in it. `collector` is its endpoint: what is for
    /// one collector is never sent to another.
    ///
    /// # Errors
    /// When the folder cannot be made, is not this user's alone, or another agent has it.
    pub fn open(directory: &Path, collector: &str, limit: u64) -> Result<Self, SpoolError> {
        // With a slash at its end, a link would be followed.
        let directory: PathBuf = directory.components().collect();
        private_folder(&directory)?;
        let folder = directory.join(folder_name(collector));
        private_folder(&folder)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Folder { path, source }
        };
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let lock = options.open(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse { path: folder }),
            Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        let mut spool = Self { folder, _lock: lock, limit, used: 0, next: 0, segments: VecDeque::new(), found: 0 };
        spool.list().map_err(failed(&spool.folder))?;
        Ok(spool)
    }

    fn list(&mut self) -> io::Result<()> {
        let mut foreign = 0;
        for entry in self.folder.read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            match segment::parse_name(&entry.file_name()) {
                Some((number, spans)) if metadata.is_file() => {
                    // A larger one is none of ours and goes when it is read; its length may be any number.
                    let bytes = on_disk(metadata.len().min(segment::MAX_FILE_BYTES));
                    self.segments.push_back(Segment { number, spans, bytes, outrun: 0 });
                    self.used += bytes;
                    self.found += spans;
                }
                _ => foreign += u64::from(entry.file_name() != LOCK),
            }
        }
        self.segments.make_contiguous().sort_unstable_by_key(|segment| segment.number);
        self.next = self.segments.back().map_or(0, |last| last.number + 1);
        if foreign > 0 {
            tracing::warn!("{foreign} files in {} are not of this spool and are left alone", self.folder.display());
        }
        Ok(())
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Counts the spans that an earlier life left, and drops what is too much.
    pub(super) fn recover(&mut self, tally: &Tally) -> u64 {
        let found = std::mem::take(&mut self.found);
        tally.recovered(found);
        self.make_room(0, tally);
        found
    }

    /// Whether nothing waits; a taken request does not.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Writes a request, and drops the oldest while there is no room. It is taken then; where it cannot be written, the cause
    /// is for the caller to count.
    pub(super) fn write(&mut self, request: &Request, tally: &Tally) -> Result<Segment, Cause> {
        let content = segment::encode(request);
        let bytes = on_disk(content.len() as u64);
        if !self.make_room(bytes, tally) {
            return Err(Cause::SpoolFull);
        }
        let segment = Segment { number: self.next, spans: request.spans, bytes, outrun: 0 };
        self.next += 1;
        let path = self.path(&segment);
        if let Err(error) = create(&path).and_then(|mut file| file.write_all(&content)) {
            // What is there of it would be counted again as torn. An error means that it was not even created.
            let _ = std::fs::remove_file(&path);
            tally.failed(format!("cannot write to the spool {}: {error}", self.folder.display()));
            return Err(Cause::SpoolWriteFailed);
        }
        self.used += bytes;
        tally.spooled(request.spans);
        Ok(segment)
    }

    /// Takes the request at this place of the order; it stays on disk until it is removed.
    pub(super) fn take(&mut self, index: usize) -> Option<Segment> {
        self.segments.remove(index)
    }

    /// Puts a taken request back to its place.
    pub(super) fn put_back(&mut self, segment: Segment) {
        let place = self.segments.partition_point(|other| other.number < segment.number);
        self.segments.insert(place, segment);
    }

    /// Reads a request.
    pub(super) fn read(&self, segment: &Segment) -> Result<Request, Unread> {
        let path = self.path(segment);
        // Without the name of the file, so that many of them are told once.
        let folder = self.folder.display();
        let damaged =
            |why: &dyn std::fmt::Display| Unread::Damaged(format!("a request in the spool {folder} is lost: {why}"));
        let mut options = OpenOptions::new();
        let file = match options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => {
                return Err(damaged(&error));
            }
            Err(error) => return Err(Unread::Refused(error)),
        };
        let mut content = Vec::new();
        file.take(segment::MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(Unread::Refused)?;
        if content.len() as u64 > segment::MAX_FILE_BYTES {
            return Err(damaged(&segment::Damage::Changed));
        }
        segment::decode(&content, segment.spans).map_err(|why| damaged(&why))
    }

    /// Removes a taken request; its fate is counted next.
    pub(super) fn remove(&mut self, segment: Segment, tally: &Tally) {
        self.used -= segment.bytes;
        tally.unspooled(segment.spans);
        match std::fs::remove_file(self.path(&segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tally.failed(format!("cannot remove from the spool {}: {error}", self.folder.display()));
            }
            _ => {}
        }
    }

    /// Drops the oldest until so many bytes fit.
    fn make_room(&mut self, bytes: u64, tally: &Tally) -> bool {
        while self.used + bytes > self.limit {
            let Some(oldest) = self.segments.pop_front() else { return false };
            self.remove(oldest, tally);
            tally.dropped(Cause::SpoolFull, oldest.spans);
        }
        true
    }

    fn path(&self, segment: &Segment) -> PathBuf {
        self.folder.join(segment::name(segment.number, segment.spans))
    }
}

impl Segment {
    /// Spans in it.
    pub(super) fn spans(&self) -> u64 {
        self.spans
    }
}

/// Where what is left for other collectors waits, as one agent sees it that uses `own` folders.
pub fn left_for_others(directory: &Path, own: &[PathBuf]) -> Vec<PathBuf> {
    let has_segments = |folder: &Path| {
        let mut files = folder.read_dir().into_iter().flatten().flatten();
        files.any(|file| segment::parse_name(&file.file_name()).is_some())
    };
    let folders = directory.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder| !own.contains(folder) && has_segments(folder)).collect()
}

/// Makes a file that only this user can read; one that is there, or a link, is not touched.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Makes a folder, or looks whether one that is there is this user's alone.
fn private_folder(path: &Path) -> Result<(), SpoolError> {
    let failed = |source| SpoolError::Folder { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = path.symlink_metadata().map_err(failed)?;
    let why = if !metadata.is_dir() {
        "it is a symbolic link"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if metadata.mode() & 0o022 != 0 {
        "other users can write to it"
    } else {
        return Ok(());
    };
    Err(SpoolError::NotOurs { path: path.to_owned(), why })
}

/// Host and port for people, and what tells it from others there. The endpoint itself may hold a token.
fn folder_name(collector: &str) -> String {
    let host = collector.split_once("://").map_or(collector, |(_, rest)| rest);
    let authority = host.split('/').next().unwrap_or(host).rsplit('@').next().unwrap_or(host);
    let readable = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    let host: String = authority.chars().take(64).map(readable).collect();
    format!("{host}-{:08x}", crc32fast::hash(collector.as_bytes()))
}

fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES)
}

#[cfg(test)]
mod tests;

//! The two ring buffers of records, read as one.
//!
//! Records of processes (exec, fork, exit) have a ring of their own, so that bulk data never makes one of them lost. What the
//! agent knows of processes decides what all other records mean, so the order between the rings matters: a process's records
//! must come after its exec and before its exit. Each lifecycle record therefore says how many bytes had been written to the
//! other ring by then, its *position*, and the rule is:
//!
//! **A lifecycle record comes exactly where it would stand if there were one ring**: after all records of the other ring that
//! begin before its position, and before all others. No clock is compared, and nothing waits for a time.
//!
//! It holds because of the order in which the rings are looked at. A record that was written after a lifecycle record is only
//! seen after it, so the lifecycle ring is looked at once more between seeing a record and handing it out. A record that another
//! processor is still writing hides those behind it in its ring, so then the agent waits for it: the programs that write to the
//! lifecycle ring are not preempted, and done within a microsecond.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, RingBuf};
use bytemuck::bytes_of;
use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tracer_common::record::Lifecycle;

/// What the kernel puts before each record of a ring buffer.
const RECORD_HEADER: u64 = 8;

/// What the programs have to say, in order.
pub struct Events {
    lifecycle: RingBuf<MapData>,
    others: RingBuf<MapData>,
    lifecycle_positions: Positions,
    others_positions: Positions,
    merge: Merge,
}

impl Events {
    /// # Errors
    /// When the kernel does not let the positions of a ring be read.
    pub(super) fn new(lifecycle: RingBuf<MapData>, others: RingBuf<MapData>) -> io::Result<Self> {
        let (lifecycle_positions, others_positions) = (Positions::of(&lifecycle)?, Positions::of(&others)?);
        Ok(Self { lifecycle, others, lifecycle_positions, others_positions, merge: Merge::default() })
    }

    /// The end of what has been written by now.
    pub fn end(&self) -> Mark {
        Mark { lifecycle: self.lifecycle_positions.written(), others: self.others_positions.written() }
    }

    /// Whether all that had been written then has been handed out.
    pub fn has_passed(&self, mark: Mark) -> bool {
        let pending = self.merge.pending.is_some_and(|record| record.position <= mark.others);
        self.merge.position >= mark.others && self.lifecycle_positions.read() >= mark.lifecycle && !pending
    }

    /// Waits until the programs wake the agent, but no longer than `timeout`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&self, timeout: &Timespec) -> io::Result<()> {
        let mut events = [PollFd::new(&self.lifecycle, PollFlags::IN), PollFd::new(&self.others, PollFlags::IN)];
        match rustix::event::poll(&mut events, Some(timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next record; it leaves its ring buffer when it is dropped.
    pub fn next_record(&mut self) -> Option<Record<'_>> {
        let other = self.others.next();
        if self.merge.wants_lifecycle() {
            let next = || Some(bytemuck::try_pod_read_unaligned(&self.lifecycle.next()?).ok());
            self.merge.pending = first(next, || self.lifecycle_positions.is_empty());
        }
        if let Some(due) = self.merge.due() {
            // Dropping it would take it out of the ring; the next look finds it again.
            std::mem::forget(other);
            return Some(Record::Lifecycle(due));
        }
        let other = other?;
        self.merge.passed(other.len());
        Some(Record::Other(other))
    }
}

/// A place in both rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    lifecycle: u64,
    others: u64,
}

/// How far a ring buffer has been written and read: the kernel maps both for its reader, each at the start of a page.
struct Positions(MmapRaw);

impl Positions {
    fn of(ring: &impl AsFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let map = MmapOptions::new().len(2 * page).map_raw_read_only(ring.as_fd().as_raw_fd())?;
        Ok(Self(map))
    }

    /// Bytes that have been read, in all.
    fn read(&self) -> u64 {
        self.at(0)
    }

    /// Bytes that have been written, in all; the last of them may still be in the making.
    fn written(&self) -> u64 {
        self.at(rustix::param::page_size())
    }

    /// Whether all that was written has been read.
    fn is_empty(&self) -> bool {
        self.read() == self.written()
    }

    fn at(&self, offset: usize) -> u64 {
        // SAFETY: both offsets are starts of one of the two mapped pages, so eight aligned bytes are there as long as `self` is.
        // The kernel writes them as one word, and nothing in this process does but aya through a mapping of its own.
        let position = unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset).cast()) };
        position.load(Ordering::Acquire)
    }
}

/// One record of either ring.
pub enum Record<'a> {
    /// Of a process.
    Lifecycle(Lifecycle),
    /// Anything else.
    Other(RingBufItem<'a>),
}

impl Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lifecycle(record) => bytes_of(record),
            Self::Other(record) => record,
        }
    }
}

/// Where a lifecycle record belongs among the others.
#[derive(Debug, Default)]
struct Merge {
    /// Taken from its ring, and not due yet.
    pending: Option<Lifecycle>,
    /// Bytes of the other ring that have been handed out.
    position: u64,
}

impl Merge {
    fn wants_lifecycle(&self) -> bool {
        self.pending.is_none()
    }

    fn due(&mut self) -> Option<Lifecycle> {
        self.pending.take_if(|record| record.position <= self.position)
    }

    /// A record of the other ring is handed out.
    fn passed(&mut self, len: usize) {
        self.position += (len as u64 + RECORD_HEADER).next_multiple_of(8);
    }
}

/// The first record of a ring, `None` when it is empty. Where its head is being written, what stands behind cannot be seen either:
/// then this waits. What is no record is passed over.
fn first<T>(mut next: impl FnMut() -> Option<Option<T>>, is_empty: impl Fn() -> bool) -> Option<T> {
    loop {
        match next() {
            Some(Some(record)) => return Some(record),
            Some(None) => {}
            None if is_empty() => return None,
            None => std::thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lifecycle, Merge, first};

    #[test]
    fn a_record_that_is_being_written_is_waited_for() {
        // The ring has three records. Its head is busy at two looks, and the second is none of ours.
        let mut looks = [None, None, Some(None), Some(Some(3))].into_iter();
        assert_eq!(first(|| looks.next().flatten(), || false), Some(3));
        assert_eq!(first(|| None::<Option<u8>>, || true), None);
    }

    fn at(position: u64) -> Lifecycle {
        Lifecycle { position, ..Lifecycle::default() }
    }

    #[test]
    fn a_lifecycle_record_comes_after_what_was_written_before_it_and_before_the_rest() {
        let mut merge = Merge { pending: Some(at(24)), position: 0 };
        assert_eq!(merge.due(), None);
        // With the ring's own header and padding: 16 bytes each.
        merge.passed(5);
        assert_eq!(merge.due(), None);
        merge.passed(8);
        assert_eq!(merge.due(), Some(at(24)));
        assert!(merge.wants_lifecycle());
    }

    #[test]
    fn without_other_records_it_comes_at_once() {
        let mut merge = Merge { pending: Some(at(0)), position: 0 };
        assert_eq!(merge.due(), Some(at(0)));
    }
}

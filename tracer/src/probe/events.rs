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
//! seen after it, so the lifecycle ring is looked at once more between seeing a record and handing it out.

use std::io;
use std::ops::Deref;

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, RingBuf};
use bytemuck::bytes_of;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tracer_common::record::Lifecycle;

/// What the kernel puts before each record of a ring buffer.
const RECORD_HEADER: u64 = 8;

/// What the programs have to say, in order.
pub struct Events {
    lifecycle: RingBuf<MapData>,
    others: RingBuf<MapData>,
    merge: Merge,
}

impl Events {
    pub(super) fn new(lifecycle: RingBuf<MapData>, others: RingBuf<MapData>) -> Self {
        Self { lifecycle, others, merge: Merge::default() }
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
            self.merge.pending =
                self.lifecycle.next().and_then(|record| bytemuck::try_pod_read_unaligned(&record).ok());
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

#[cfg(test)]
mod tests {
    use super::{Lifecycle, Merge};

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

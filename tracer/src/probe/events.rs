//! The ring buffer of records.

use std::io;
use std::ops::Deref;

use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// What the programs have to say, in order.
pub struct Events(pub(super) RingBuf<MapData>);

impl Events {
    /// Waits until the programs wake the agent, but no longer than `timeout`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&self, timeout: &Timespec) -> io::Result<()> {
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::event::poll(&mut events, Some(timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next record; it leaves the ring buffer when it is dropped.
    pub fn next_record(&mut self) -> Option<impl Deref<Target = [u8]> + '_> {
        self.0.next()
    }
}

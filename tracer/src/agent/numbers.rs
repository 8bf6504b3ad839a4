//! Numbers of probed functions: each is an index into the kernel's table, and what a record names its function by.
//!
//! A number is used again, but only when no record can carry it any more: nothing is attached with it, the processes that
//! may have had a call open have ended, and what was in the ring buffer then has been read.

use std::collections::HashSet;
use std::sync::Arc;

/// The numbers that are free, in use and neither.
#[derive(Debug)]
pub struct Numbers {
    /// Entries of the kernel's table.
    room: u32,
    next: u32,
    free: Vec<u32>,
    retired: Vec<Retired>,
}

#[derive(Debug)]
struct Retired {
    numbers: Vec<u32>,
    /// Shared with the attached file for as long as something is attached.
    presence: Arc<()>,
    /// Processes that mapped the file and have not ended.
    processes: HashSet<u32>,
    /// Times that the ring buffer was empty since.
    drained: u32,
}

/// A record that was being written when the ring buffer was found empty comes before the second time.
const ENOUGH: u32 = 2;

impl Numbers {
    /// All are free.
    pub fn new(room: u32) -> Self {
        Self { room, next: 0, free: Vec::new(), retired: Vec::new() }
    }

    /// How many functions can be probed at once.
    pub fn room(&self) -> u32 {
        self.room
    }

    /// A number that nobody uses.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let number = self.next;
            (number < self.room).then(|| {
                self.next += 1;
                number
            })
        })
    }

    /// These were used for a file that these processes had mapped.
    pub fn retire(&mut self, numbers: Vec<u32>, presence: Arc<()>, processes: HashSet<u32>) {
        if !numbers.is_empty() {
            self.retired.push(Retired { numbers, presence, processes, drained: 0 });
        }
    }

    /// A process has ended, and its last record was read.
    pub fn ended(&mut self, pid: u32) {
        for retired in &mut self.retired {
            retired.processes.remove(&pid);
        }
    }

    /// Everything that was in the ring buffer has been read.
    pub fn drained(&mut self) {
        let free = &mut self.free;
        self.retired.retain_mut(|retired| {
            if Arc::strong_count(&retired.presence) > 1 || !retired.processes.is_empty() {
                return true;
            }
            retired.drained += 1;
            if retired.drained < ENOUGH {
                return true;
            }
            free.append(&mut retired.numbers);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_when_no_record_can_carry_it() {
        let mut numbers = Numbers::new(3);
        assert_eq!([numbers.take(), numbers.take()], [Some(0), Some(1)]);
        let attached = Arc::new(());
        numbers.retire(vec![0, 1], Arc::clone(&attached), HashSet::from([7]));
        let unused = |numbers: &mut Numbers| {
            numbers.drained();
            numbers.drained();
            numbers.drained();
            numbers.free.is_empty()
        };
        assert!(unused(&mut numbers), "it is attached");
        drop(attached);
        assert!(unused(&mut numbers), "process 7 may be in a call");
        numbers.ended(7);
        numbers.drained();
        assert!(numbers.free.is_empty(), "a record may have been on its way");
        numbers.drained();
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut numbers = Numbers::new(3);
        assert_eq!((0..8).filter_map(|_| numbers.take()).count(), 3);
    }
}

//! Things that end unless something happens: only those are looked at whose time may be over.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries by the time at which each is to be looked at. What has happened since is only asked when that time comes.
#[derive(Debug)]
pub struct Deadlines<K>(BinaryHeap<Reverse<(u64, K)>>);

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord> Deadlines<K> {
    /// The entry is to be looked at after `at_ns`.
    pub fn push(&mut self, at_ns: u64, entry: K) {
        self.0.push(Reverse((at_ns, entry)));
    }

    /// Takes an entry whose time is over at `now_ns`.
    pub fn due(&mut self, now_ns: u64) -> Option<K> {
        let is_due = self.0.peek().is_some_and(|Reverse((at_ns, _))| *at_ns < now_ns);
        if is_due { self.pop().map(|(_, entry)| entry) } else { None }
    }

    /// Takes the entry whose time is over first.
    pub fn pop(&mut self) -> Option<(u64, K)> {
        self.0.pop().map(|Reverse(first)| first)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

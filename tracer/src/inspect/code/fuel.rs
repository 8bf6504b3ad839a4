//! A bound on the work that a file can cause, whatever its headers say.

use std::cell::Cell;

/// Steps that are left.
#[derive(Debug)]
pub(in crate::inspect) struct Fuel(Cell<u64>);

impl Fuel {
    pub(in crate::inspect) fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// Takes steps; none if there are not so many left, and then none are left at all.
    pub(in crate::inspect) fn spend(&self, steps: usize) -> Option<()> {
        let left = self.0.get().checked_sub(steps as u64);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
    }
}

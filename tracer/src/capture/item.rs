//! What the correlator is fed with.

use crate::model::{ProbeInfo, ProcessInfo};

/// One step of a capture, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// From here on this process number means this process.
    Process(ProcessInfo),
    /// From here on this probe index means this function.
    Probe(ProbeInfo),
    /// A record of the eBPF programs.
    Record(&'a [u8]),
}

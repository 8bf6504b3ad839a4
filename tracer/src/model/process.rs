//! Processes: which one, and what is told of it.

use serde::{Deserialize, Serialize};

/// A process: number and start time (clock ticks since boot, as in /proc/PID/stat), so that a reused number differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process number in the agent's pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
}

/// A traced process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Who it is.
    pub id: ProcessId,
    /// `service.name`.
    pub service: String,
    /// The other resource attributes, by their names in the semantic conventions.
    pub attributes: Vec<(String, ResourceValue)>,
}

/// Value of a resource attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResourceValue {
    /// Integer.
    Int(i64),
    /// Text.
    Str(String),
    /// Texts.
    List(Vec<String>),
}

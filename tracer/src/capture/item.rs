//! What the correlator is fed with.

use serde::{Deserialize, Serialize};

use crate::inspect::CallPlace;
use crate::trace::span::ProcessId;

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

/// A probed prost function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// Index in the records.
    pub index: u32,
    /// Name of the method: `encode`.
    pub operation: String,
    /// The message type, if known.
    pub message_type: Option<String>,
    /// Where an inlined call is in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallPlace>,
}

//! The vocabulary that all layers share: ids, processes, probes and spans. It uses none of them.

mod hash;
mod ids;
mod probe;
mod process;
mod span;

pub use hash::{HashMap, HashSet};
pub use ids::{FLAG_RANDOM, FLAG_SAMPLED, SpanContext, SpanId, TraceId};
pub use probe::{CallOf, CallPlace, Operation, ProbeInfo};
pub use process::{ProcessId, ProcessInfo, ResourceValue};
pub use span::{Attribute, Link, Resource, Span, SpanEvent, SpanKind, Status, Text, Value};

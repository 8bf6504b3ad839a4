//! A flow: what a task or thread does after it has decoded a message.
//!
//! The message's handling is a `process` span; it ends with the flow's last activity, so it is made when the flow ends: at
//! the next decode, after a time without activity, or with the process. A message after which nothing happened has a
//! `decode` span only.

use crate::model::SpanContext;
use crate::trace::parents::grpc_calls::Asked;
use crate::trace::parents::position::Place;

/// Nanoseconds without activity after which a flow is over.
pub const IDLE_NS: u64 = 2_000_000_000;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Process number.
    pub pid: u32,
    /// The worker.
    pub worker: Worker,
}

/// A tokio task where one is known, else a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worker {
    /// Task id.
    Task(u64),
    /// Thread number.
    Thread(u32),
}

/// The handling of one decoded message.
#[derive(Clone, Debug)]
pub struct Flow<D> {
    /// Place of the `process` span.
    pub place: Place,
    /// The decode that began the flow.
    pub decode: D,
    /// End of the last activity.
    pub last_ns: u64,
    /// Its gRPC calls.
    pub asked: Asked,
    /// Spans below the `process` span, the decode not counted.
    pub children: u64,
}

impl<D> Flow<D> {
    /// Something happened in the flow.
    pub fn touch(&mut self, end_ns: u64) {
        self.children += 1;
        self.extend(end_ns);
    }

    /// Something that began in the flow has ended.
    pub fn extend(&mut self, end_ns: u64) {
        self.last_ns = self.last_ns.max(end_ns);
    }

    /// Parent of what happens in the flow.
    pub fn context(&self) -> &SpanContext {
        &self.place.context
    }
}

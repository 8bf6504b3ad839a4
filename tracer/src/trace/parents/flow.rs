//! A flow: what a task or thread does after it has decoded a message.
//!
//! The message's handling is a `process` span; it ends with the flow's last activity, so it is made when the flow ends: at
//! the next decode, after a time without activity, or with the process. A message after which nothing happened has a
//! `decode` span only.
//!
//! What a flow spawns goes on in it: the new task has a flow of its own with the same parent, and without a span.

use crate::model::SpanContext;
use crate::trace::parents::grpc_calls::Asked;
use crate::trace::parents::position::Place;

/// Nanoseconds without activity after which a flow is over.
pub const IDLE_NS: u64 = 2_000_000_000;

/// The same for a flow that waits for the answer to a gRPC call. One that is refused has none, and its flow ends so late.
pub const ASKED_NS: u64 = 10_000_000_000;

/// Nanoseconds after which a spawned task is no longer taken to work for the message whose handler has spawned it: it may be one
/// that a handler has begun for everybody, and that never ends.
pub const SPAWNED_NS: u64 = 10_000_000_000;

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

/// What a flow began with.
#[derive(Clone, Debug)]
pub enum Begun<D> {
    /// This decode.
    Decode(D),
    /// The spawn of the task, in another flow.
    Spawn,
}

/// The handling of one decoded message.
#[derive(Clone, Debug)]
pub struct Flow<D> {
    /// Place of the `process` span; of a spawned task, that of the flow in which it was spawned.
    pub place: Place,
    /// What began it.
    pub begun: Begun<D>,
    /// End of the last activity.
    pub last_ns: u64,
    /// No activity is later than this.
    pub latest_ns: u64,
    /// Its gRPC calls.
    pub asked: Asked,
    /// Spans below the `process` span, the decode not counted.
    pub children: u64,
}

impl<D> Flow<D> {
    /// The flow of a message that was decoded at `at_ns`.
    pub fn of_message(place: Place, decode: D, at_ns: u64) -> Self {
        let (begun, asked) = (Begun::Decode(decode), Asked::default());
        Self { place, begun, last_ns: at_ns, latest_ns: u64::MAX, asked, children: 0 }
    }

    /// The flow of a task that was spawned at `at_ns` below `parent`.
    pub fn of_spawned(parent: SpanContext, at_ns: u64) -> Self {
        let place = Place { context: parent, parent: None, parent_remote: false };
        let latest_ns = at_ns.saturating_add(SPAWNED_NS - IDLE_NS);
        Self { place, begun: Begun::Spawn, last_ns: at_ns, latest_ns, asked: Asked::default(), children: 0 }
    }

    /// When it is over, if nothing more happens.
    pub fn until_ns(&self) -> u64 {
        self.last_ns.saturating_add(if self.asked.is_waiting() { ASKED_NS } else { IDLE_NS })
    }

    /// Whether it is that of a spawned task.
    pub fn is_spawned(&self) -> bool {
        matches!(self.begun, Begun::Spawn)
    }

    /// Something happened in the flow.
    pub fn touch(&mut self, end_ns: u64) {
        self.children += 1;
        self.extend(end_ns);
    }

    /// Something that began in the flow has ended.
    pub fn extend(&mut self, end_ns: u64) {
        self.last_ns = self.last_ns.max(end_ns).min(self.latest_ns);
    }

    /// Parent of what happens in the flow.
    pub fn context(&self) -> &SpanContext {
        &self.place.context
    }
}

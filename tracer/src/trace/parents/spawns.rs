//! What the handler of a message spawns belongs to that message: each new task goes on in the flow that has spawned it.
//!
//! A task that is found to work for others (the driver of a connection, begun by whoever needed it first) is in no flow.

use tracer_common::record::TaskSpawn;

use crate::trace::correlator::{Correlator, flow_key};
use crate::trace::parents::flow::{Flow, FlowKey, Worker};

impl Correlator {
    /// A task is spawned.
    pub(in crate::trace) fn task_spawn(&mut self, record: &TaskSpawn) {
        self.counts.task_spawns += 1;
        if record.child == 0 {
            self.counts.task_spawns_unknown += 1;
            return;
        }
        let (head, key) = (&record.head, flow_key(&record.head));
        let Some(parent) = self.ambient(head, key) else { return };
        self.counts.tasks_in_flows += 1;
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.touch(head.end_ns);
        }
        let child = FlowKey { pid: head.pid, worker: Worker::Task(record.child) };
        self.begin_flow(child, Flow::of_spawned(parent, head.end_ns));
    }

    /// A task has done something that another one has asked for.
    pub(in crate::trace) fn works_for_others(&mut self, key: FlowKey) {
        if self.flows.get(&key).is_some_and(Flow::is_spawned) {
            self.end_flow(key);
        }
    }
}

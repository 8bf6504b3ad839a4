//! All flows of all processes.
//!
//! The end of a process, or a flow's idleness, is found without a look at the flows of others: they are kept by process, and
//! each has one entry in a queue of [`Deadlines`].

use crate::model::HashMap;

use crate::trace::memory::Ages;
use crate::trace::parents::deadlines::Deadlines;
use crate::trace::parents::flow::{Flow, FlowKey, IDLE_NS, Worker};

/// Flows by their workers.
#[derive(Debug)]
pub struct Flows<D> {
    processes: HashMap<u32, HashMap<Worker, Slot<D>>>,
    deadlines: Deadlines<(u64, FlowKey)>,
    len: usize,
    /// How many of them are those of spawned tasks.
    spawned: usize,
    /// Names slots: a later one of the same worker is not that of an old entry in the queue.
    slots: u64,
    /// How often a flow was looked at to see whether it is over.
    #[cfg(test)]
    pub looks: u64,
}

/// A place in the queue, and the flow that it is for, unless that has ended.
#[derive(Debug)]
struct Slot<D> {
    number: u64,
    flow: Option<Flow<D>>,
}

impl<D> Default for Flows<D> {
    fn default() -> Self {
        Self {
            processes: HashMap::default(),
            deadlines: Deadlines::default(),
            len: 0,
            spawned: 0,
            slots: 0,
            #[cfg(test)]
            looks: 0,
        }
    }
}

impl<D> Flows<D> {
    /// Flows that have not ended.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Those of them that have begun with a message.
    pub fn messages(&self) -> usize {
        self.len - self.spawned
    }

    /// The flow of a worker.
    pub fn get(&self, key: &FlowKey) -> Option<&Flow<D>> {
        self.processes.get(&key.pid)?.get(&key.worker)?.flow.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow<D>> {
        self.processes.get_mut(&key.pid)?.get_mut(&key.worker)?.flow.as_mut()
    }

    /// Whether a worker has one.
    pub fn contains_key(&self, key: &FlowKey) -> bool {
        self.get(key).is_some()
    }

    /// Begins a flow; the worker must have none.
    pub fn insert(&mut self, key: FlowKey, flow: Flow<D>) {
        let until_ns = flow.until_ns();
        let (slots, deadlines) = (&mut self.slots, &mut self.deadlines);
        let slot = self.processes.entry(key.pid).or_default().entry(key.worker).or_insert_with(|| {
            *slots += 1;
            deadlines.push(until_ns, (*slots, key));
            Slot { number: *slots, flow: None }
        });
        self.len += 1;
        self.spawned += usize::from(flow.is_spawned());
        if let Some(flow) = slot.flow.replace(flow) {
            self.gone(&flow);
        }
    }

    /// Ends a flow.
    pub fn remove(&mut self, key: &FlowKey) -> Option<Flow<D>> {
        let flow = self.processes.get_mut(&key.pid)?.get_mut(&key.worker)?.flow.take()?;
        self.gone(&flow);
        Some(flow)
    }

    /// Ends the flows of a process.
    pub fn remove_process(&mut self, pid: u32) -> Vec<Flow<D>> {
        let slots = self.processes.remove(&pid).unwrap_or_default();
        let flows: Vec<Flow<D>> = slots.into_values().filter_map(|slot| slot.flow).collect();
        flows.iter().for_each(|flow| self.gone(flow));
        flows
    }

    /// Ends all flows.
    pub fn remove_all(&mut self) -> Vec<Flow<D>> {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        pids.into_iter().flat_map(|pid| self.remove_process(pid)).collect()
    }

    /// Ends a flow in which nothing has happened for long enough.
    pub fn remove_idle(&mut self, now_ns: u64) -> Option<Flow<D>> {
        while let Some(entry) = self.deadlines.due(now_ns) {
            if let Some(flow) = self.look(entry, |until_ns| until_ns < now_ns) {
                return Some(flow);
            }
        }
        None
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.deadlines.len() * Self::BYTES
    }

    /// A place in the queue and one by process, for which the map has room to spare.
    const BYTES: usize = size_of::<(u64, (u64, FlowKey))>() + 2 * size_of::<(Worker, Slot<D>)>();

    /// When each was used last.
    pub fn ages(&self, ages: &mut Ages) {
        for slot in self.processes.values().flat_map(HashMap::values) {
            ages.add(slot.flow.as_ref().map_or(0, |flow| flow.last_ns), Self::BYTES);
        }
    }

    /// Ends a flow in which nothing has happened since `before_ns`.
    pub fn remove_unused(&mut self, before_ns: u64) -> Option<Flow<D>> {
        self.remove_idle(before_ns.saturating_add(IDLE_NS))
    }

    /// Ends the flow that has been without activity for the longest time.
    pub fn remove_oldest(&mut self) -> Option<Flow<D>> {
        // Each entry comes at most twice: where it was put, and where it belongs.
        let mut newest_ns = 0;
        while let Some((at_ns, entry)) = self.deadlines.pop() {
            newest_ns = newest_ns.max(at_ns);
            if let Some(flow) = self.look(entry, |until_ns| until_ns <= newest_ns) {
                return Some(flow);
            }
        }
        None
    }

    /// Looks at a flow whose entry has come: it is ended, or goes back to where it belongs.
    fn look(&mut self, (number, key): (u64, FlowKey), is_over: impl Fn(u64) -> bool) -> Option<Flow<D>> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let workers = self.processes.get_mut(&key.pid)?;
        let slot = workers.get(&key.worker).filter(|slot| slot.number == number)?;
        let until_ns = slot.flow.as_ref().map(Flow::until_ns);
        if let Some(until_ns) = until_ns.filter(|until_ns| !is_over(*until_ns)) {
            self.deadlines.push(until_ns, (number, key));
            return None;
        }
        let flow = workers.remove(&key.worker).and_then(|slot| slot.flow);
        if workers.is_empty() {
            self.processes.remove(&key.pid);
        }
        flow.inspect(|flow| self.gone(flow))
    }

    fn gone(&mut self, flow: &Flow<D>) {
        self.len -= 1;
        self.spawned -= usize::from(flow.is_spawned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpanContext, SpanId, TraceId};
    use crate::trace::parents::flow::{ASKED_NS, Begun, SPAWNED_NS};
    use crate::trace::parents::position::Place;

    const MS: u64 = 1_000_000;

    fn key(pid: u32, task: u64) -> FlowKey {
        FlowKey { pid, worker: Worker::Task(task) }
    }

    fn flow(at_ns: u64) -> Flow<u64> {
        let context = SpanContext {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([1; 8]),
            flags: 1,
            remote: false,
            trace_state: "".into(),
        };
        Flow::of_message(Place { context, parent: None, parent_remote: false }, at_ns, at_ns)
    }

    fn began_ns(flow: &Flow<u64>) -> u64 {
        match flow.begun {
            Begun::Decode(at_ns) => at_ns,
            Begun::Spawn => u64::MAX,
        }
    }

    #[test]
    fn a_flow_ends_when_nothing_has_happened_for_long() {
        let mut flows = Flows::default();
        flows.insert(key(1, 1), flow(0));
        flows.insert(key(1, 2), flow(MS));
        flows.get_mut(&key(1, 1)).expect("it is there").touch(2 * MS);
        let mut ended = |now_ns| std::iter::from_fn(|| flows.remove_idle(now_ns)).map(|flow| began_ns(&flow)).collect();
        let none: Vec<u64> = ended(IDLE_NS + MS);
        assert!(none.is_empty());
        let first: Vec<u64> = ended(IDLE_NS + 2 * MS);
        assert_eq!(first, [MS]);
        let second: Vec<u64> = ended(IDLE_NS + 3 * MS);
        assert_eq!(second, [0]);
        assert_eq!((flows.len(), flows.deadlines.len(), flows.processes.len()), (0, 0, 0));
    }

    #[test]
    fn a_flow_that_waits_for_an_answer_may_wait_longer() {
        let mut flows = Flows::default();
        flows.insert(key(1, 1), flow(0));
        flows.get_mut(&key(1, 1)).expect("it is there").asked.ask();
        assert!(flows.remove_idle(IDLE_NS + 1).is_none());
        assert!(flows.get_mut(&key(1, 1)).expect("it is there").asked.answers(2, Some(1)));
        flows.get_mut(&key(1, 1)).expect("it is there").touch(ASKED_NS - MS);
        assert!(flows.remove_idle(ASKED_NS + 1).is_none());
        assert!(flows.remove_idle(ASKED_NS - MS + IDLE_NS + 1).is_some(), "it has its answer");
        flows.insert(key(1, 1), flow(0));
        flows.get_mut(&key(1, 1)).expect("it is there").asked.ask();
        assert!(flows.remove_idle(ASKED_NS + 1).is_some());
    }

    /// However much it does: it may be one that never ends.
    #[test]
    fn a_spawned_task_is_in_its_flow_for_a_while() {
        let mut flows: Flows<u64> = Flows::default();
        let parent = flow(0).context().clone();
        flows.insert(key(1, 1), Flow::of_spawned(parent, 0));
        for at_ns in (0..SPAWNED_NS).step_by(MS as usize * 500) {
            assert!(flows.remove_idle(at_ns).is_none());
            flows.get_mut(&key(1, 1)).expect("it is there").touch(at_ns);
        }
        assert!(flows.remove_idle(SPAWNED_NS + 1).is_some_and(|flow| flow.is_spawned()));
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn the_oldest_goes_first_and_a_process_takes_only_its_own() {
        let mut flows = Flows::default();
        for task in 0..10 {
            flows.insert(key(1, task), flow(task * MS));
            flows.insert(key(2, task), flow(100 * MS));
        }
        flows.get_mut(&key(1, 0)).expect("it is there").touch(50 * MS);
        assert_eq!(flows.remove_oldest().map(|flow| began_ns(&flow)), Some(MS));
        assert_eq!(flows.remove_process(1).len(), 9);
        assert_eq!(flows.remove_process(3).len(), 0);
        assert_eq!(flows.len(), 10);
        assert_eq!(flows.remove_all().len(), 10);
        assert!(flows.remove_oldest().is_none());
        assert_eq!(flows.deadlines.len(), 0);
    }

    /// A worker that begins flow after flow has one entry in the queue, and so has a worker of a later process of its number.
    #[test]
    fn the_queue_is_as_long_as_there_are_workers() {
        let mut flows = Flows::default();
        for round in 0..1_000 {
            flows.remove(&key(1, 1));
            flows.insert(key(1, 1), flow(round));
        }
        assert_eq!(flows.deadlines.len(), 1);
        flows.remove_process(1);
        flows.insert(key(1, 1), flow(MS));
        assert!(flows.remove_idle(IDLE_NS + MS).is_none());
        assert_eq!((flows.len(), flows.deadlines.len()), (1, 1), "the old entry is gone");
    }
}

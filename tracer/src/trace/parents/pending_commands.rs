//! Commands of a worker to whom a message was handed through memory, before the encode that says which message it was.
//!
//! Such a worker takes a message, asks databases, and encodes what comes of it. Its first commands have no parent until
//! that encode is seen to share a part with a decoded message ([`crate::trace::parents::content`]): they wait for it and get the same parent.
//! This holds only for code that works in this order. So a process has to show it: its workers spend their idle time (they
//! wait for the next message) after an encode, and hardly any between a command and what follows. A command that began
//! before the message was decoded is not of it.

use crate::model::HashMap;

use crate::model::SpanContext;
use crate::protocol::command::Command;
use crate::protocol::redis;
use crate::trace::correlator::Correlator;
use crate::trace::database::connection::Asker;
use crate::trace::memory::Ages;
use crate::trace::parents::flow::FlowKey;

/// Idle time after an encode, in nanoseconds, without which nothing is believed.
const ENOUGH_NS: u64 = 1_000_000;
/// How much of one pause counts, in nanoseconds: many pauses say more than a long one.
const PAUSE_NS: u64 = 10_000_000;
/// How many times the idle time elsewhere it must be.
const TRUST: u64 = 8;
/// How long commands wait for the encode, in nanoseconds.
const PATIENCE_NS: u64 = 250_000_000;
/// Workers without activity for so long, in nanoseconds, make room for others.
const FORGET_NS: u64 = 10_000_000_000;
const MAX_WORKERS: usize = 1 << 14;
/// Commands of one worker that wait.
const MAX_WAITING: usize = 1 << 10;
/// About how many bytes one takes, with its text.
const WAITING_BYTES: usize = size_of::<Waiting>() + 256;

/// A command that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Its connection.
    pub connection: u64,
    /// The command.
    pub command: Lead,
}

/// A command of any protocol.
#[derive(Debug)]
pub enum Lead {
    /// Of Redis.
    Redis(redis::Command<Asker>),
    /// Of a database.
    Database(Command<Asker>),
}

impl Lead {
    /// Start and end.
    pub(in crate::trace) fn times(&self) -> (u64, u64) {
        match self {
            Self::Redis(command) => (command.start_ns, command.end_ns),
            Self::Database(command) => (command.start_ns, command.end_ns),
        }
    }
}

#[derive(Debug, Default)]
struct Worker {
    /// End of its last activity.
    last_ns: u64,
    /// That was an encode.
    encoded: bool,
    waiting: Vec<Waiting>,
}

/// Where the workers of a process are idle, in nanoseconds.
#[derive(Debug, Default)]
struct Habit {
    after_encode: u64,
    elsewhere: u64,
}

/// Workers outside of any flow that encode what others have decoded.
#[derive(Debug, Default)]
pub struct Leads {
    workers: HashMap<FlowKey, Worker>,
    habits: HashMap<u32, Habit>,
    waiting: usize,
}

impl Leads {
    /// Commands that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.waiting * WAITING_BYTES + self.workers.len() * 2 * size_of::<(FlowKey, Worker)>()
    }

    /// When the workers with commands that wait were active last.
    pub fn ages(&self, ages: &mut Ages) {
        for worker in self.workers.values().filter(|worker| !worker.waiting.is_empty()) {
            ages.add(worker.last_ns, worker.waiting.len() * WAITING_BYTES);
        }
    }

    /// A worker did something; says whether its commands before an encode belong to it. Nothing is believed of others.
    fn active(&mut self, key: FlowKey, (start_ns, end_ns): (u64, u64), encode: bool) -> bool {
        let Some(worker) = self.workers.get_mut(&key) else { return false };
        let habit = self.habits.entry(key.pid).or_default();
        let idle = start_ns.saturating_sub(worker.last_ns).min(PAUSE_NS);
        *(if worker.encoded { &mut habit.after_encode } else { &mut habit.elsewhere }) += idle;
        (worker.last_ns, worker.encoded) = (worker.last_ns.max(end_ns), encode);
        habit.after_encode >= ENOUGH_NS && habit.after_encode >= habit.elsewhere * TRUST
    }

    /// A worker has encoded a part of a message that another one decoded.
    fn learn(&mut self, key: FlowKey, now_ns: u64) {
        if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(&key) {
            let old = |worker: &Worker| worker.last_ns.saturating_add(FORGET_NS) < now_ns;
            self.workers.retain(|_, worker| !worker.waiting.is_empty() || !old(worker));
            if self.workers.len() >= MAX_WORKERS {
                return;
            }
        }
        self.workers.entry(key).or_insert_with(|| Worker { last_ns: now_ns, encoded: true, waiting: Vec::new() });
    }

    /// Gives the command back if too many wait.
    fn wait(&mut self, key: FlowKey, waiting: Waiting) -> Option<Waiting> {
        match self.workers.get_mut(&key) {
            Some(worker) if worker.waiting.len() < MAX_WAITING => {
                worker.waiting.push(waiting);
                self.waiting += 1;
                None
            }
            _ => Some(waiting),
        }
    }

    /// The commands that wait for a worker's encode.
    fn take(&mut self, key: FlowKey) -> Vec<Waiting> {
        let taken = self.workers.get_mut(&key).map(|worker| std::mem::take(&mut worker.waiting)).unwrap_or_default();
        self.waiting -= taken.len();
        taken
    }

    fn take_where(&mut self, mut which: impl FnMut(&FlowKey, &[Waiting]) -> bool) -> Vec<Waiting> {
        if self.waiting == 0 {
            return Vec::new();
        }
        let keys: Vec<FlowKey> = self
            .workers
            .iter()
            .filter(|(key, worker)| !worker.waiting.is_empty() && which(key, &worker.waiting))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter().flat_map(|key| self.take(key)).collect()
    }
}

impl Correlator {
    /// Keeps a command for the encode to come, or gives it back.
    pub(in crate::trace) fn lead(&mut self, key: FlowKey, parented: bool, waiting: Waiting) -> Option<Waiting> {
        let believed = self.leads.active(key, waiting.command.times(), false);
        if parented || !believed || self.flows.contains_key(&key) {
            return Some(waiting);
        }
        self.leads.wait(key, waiting)
    }

    /// A worker outside of any flow has encoded; `source` is the message that it worked on, and when that was decoded.
    pub(in crate::trace) fn led(&mut self, key: FlowKey, times: (u64, u64), source: Option<(&SpanContext, u64)>) {
        if source.is_some() {
            self.leads.learn(key, times.1);
        }
        self.leads.active(key, times, true);
        for Waiting { connection, command } in self.leads.take(key) {
            let parent = source.filter(|(_, decoded_ns)| *decoded_ns <= command.times().0);
            self.counts.lead_parents += u64::from(parent.is_some());
            self.release(connection, command, parent.map(|(context, _)| context));
        }
    }

    /// Lets go of what has waited long enough.
    pub(in crate::trace) fn expire_leads(&mut self, now_ns: u64) {
        let late = |waiting: &[Waiting]| {
            waiting.iter().any(|waiting| waiting.command.times().1.saturating_add(PATIENCE_NS) < now_ns)
        };
        let late = self.leads.take_where(|_, waiting| late(waiting));
        self.release_all(late);
    }

    /// Lets go of the commands of workers that were not active since `before_ns`, and forgets these; returns how many.
    pub(in crate::trace) fn evict_leads(&mut self, before_ns: u64) -> u64 {
        let unused: Vec<FlowKey> =
            self.leads.workers.iter().filter(|(_, worker)| worker.last_ns < before_ns).map(|(key, _)| *key).collect();
        let mut evicted = 0;
        for key in unused {
            let waiting = self.leads.take(key);
            self.leads.workers.remove(&key);
            evicted += waiting.len() as u64;
            self.release_all(waiting);
        }
        evicted
    }

    /// A worker begins a flow: what it did before was not for this message.
    pub(in crate::trace) fn end_lead(&mut self, key: FlowKey) {
        let waiting = self.leads.take(key);
        self.release_all(waiting);
    }

    /// A connection ends, and its commands need it.
    pub(in crate::trace) fn end_leads_of_connection(&mut self, number: u64) {
        if self.leads.waiting > 0 {
            let of = |waiting: &[Waiting]| waiting.iter().any(|waiting| waiting.connection == number);
            let ended = self.leads.take_where(|_, waiting| of(waiting));
            self.release_all(ended);
        }
    }

    /// A process has ended.
    pub(in crate::trace) fn end_leads_of_process(&mut self, pid: u32) {
        let ended = self.leads.take_where(|key, _| key.pid == pid);
        self.release_all(ended);
        self.leads.workers.retain(|key, _| key.pid != pid);
        self.leads.habits.remove(&pid);
    }

    /// No more events will come.
    pub(in crate::trace) fn end_leads(&mut self) {
        let all = self.leads.take_where(|_, _| true);
        self.release_all(all);
    }

    fn release_all(&mut self, waiting: Vec<Waiting>) {
        for Waiting { connection, command } in waiting {
            self.release(connection, command, None);
        }
    }

    fn release(&mut self, number: u64, command: Lead, parent: Option<&SpanContext>) {
        // Commands let go of their connection before it ends.
        let Some(connection) = self.connections.remove(&number) else { return };
        self.command(&connection, command, parent.cloned());
        self.connections.insert(number, connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::parents::flow::Worker as Who;

    const MS: u64 = 1_000_000;
    const KEY: FlowKey = FlowKey { pid: 1, worker: Who::Thread(2) };

    /// What is believed after a worker's rounds of a command and an encode, with pauses before the one, the other or both.
    fn believed(rounds: u64, before_command: bool, before_encode: bool) -> bool {
        let mut leads = Leads::default();
        leads.learn(KEY, 0);
        let mut now = 0;
        let mut believed = false;
        for _ in 0..rounds {
            for (encode, pause) in [(false, before_command), (true, before_encode)] {
                now += if pause { 3 * MS } else { MS / 100 };
                believed = leads.active(KEY, (now, now), encode);
            }
        }
        believed
    }

    #[test]
    fn a_worker_that_pauses_after_its_encodes_is_believed() {
        assert!(believed(1, true, false));
        assert!(!believed(20, false, true), "it encodes first");
        assert!(!believed(20, true, true), "nobody knows");
        assert!(!believed(20, false, false), "it never pauses");
    }

    #[test]
    fn only_those_who_encode_what_others_have_decoded_are_waited_for() {
        let mut leads = Leads::default();
        assert!(!leads.active(KEY, (1, 2), false) && leads.workers.is_empty() && leads.habits.is_empty());
        leads.learn(KEY, 0);
        assert!(leads.workers.contains_key(&KEY));
    }

    #[test]
    fn old_workers_make_room() {
        let mut leads = Leads::default();
        for thread in 0..MAX_WORKERS as u32 {
            leads.learn(FlowKey { pid: 1, worker: Who::Thread(thread) }, 1);
        }
        let another = FlowKey { pid: 2, worker: Who::Thread(0) };
        leads.learn(another, FORGET_NS);
        assert!(!leads.workers.contains_key(&another), "all are new");
        leads.learn(another, FORGET_NS + 2);
        assert!(leads.workers.contains_key(&another) && leads.workers.len() == 1);
    }
}

//! One bound for the memory of all state together. Each store has limits of its own, which keep one target from taking what the
//! others need; their sum is more than an agent may take of a production host.
//!
//! Each store knows about how many bytes it holds, without looking at all of it. When the sum passes the budget, what was used
//! least recently goes, of whatever kind, until a tenth of the budget is free again. What goes is what would go anyhow in time:
//! a flow ends, a command is given out without what its server did, a message is not recognised by its bytes later. Only of
//! connections something is lost: the commands that wait for their replies, which are counted as they are when bytes are lost.
//!
//! What a connection takes by itself stays for as long as it is open, and so do the figures of [`crate::trace::Durations`]: both count, and
//! cannot go.

use crate::trace::correlator::Correlator;

/// Room that is made at a time: this part of the budget.
const ROOM: usize = 10;
/// Where not enough could be given up, it is tried again when this part of the budget has come on top.
const GROWTH: usize = 20;

/// When state was used last, and how many bytes it takes.
#[derive(Debug, Default)]
pub struct Ages(Vec<(u64, usize)>);

impl Ages {
    /// There is something of so many bytes.
    pub fn add(&mut self, used_ns: u64, bytes: usize) {
        self.0.push((used_ns, bytes));
    }

    /// What was used before this time takes `bytes` or more, if all together does.
    fn cut(mut self, bytes: usize) -> u64 {
        self.0.sort_unstable_by_key(|(used_ns, _)| *used_ns);
        let mut sum = 0;
        let last = self.0.iter().find(|(_, one)| {
            sum += one;
            sum >= bytes
        });
        last.map_or(u64::MAX, |(used_ns, _)| used_ns.saturating_add(1))
    }
}

/// The budget, and what of it is used.
#[derive(Debug)]
pub(super) struct Memory {
    budget: usize,
    /// Held by others than the correlator.
    elsewhere: usize,
    /// State beyond this is looked through.
    limit: usize,
    /// What connections hold beside themselves.
    pub connections: usize,
}

impl Memory {
    pub fn new(budget: usize) -> Self {
        Self { budget, elsewhere: 0, limit: budget, connections: 0 }
    }
}

impl Correlator {
    /// Spans that wait for exporters hold so many bytes of the budget.
    pub fn is_held_elsewhere(&mut self, bytes: usize) {
        self.memory.elsewhere = bytes;
    }

    /// About how many bytes all state takes.
    pub fn bytes(&self) -> usize {
        self.connections.len() * crate::trace::database::connection::BYTES
            + self.memory.connections
            + self.flows.bytes()
            + self.leads.bytes()
            + self.packs.bytes()
            + self.grpc_calls.bytes()
            + self.payloads.bytes()
            + self.contents.bytes()
            + self.encodes.bytes()
            + self.servers.bytes()
            + self.durations.bytes()
    }

    /// Gives up the oldest state if there is too much.
    pub(super) fn keep_within_budget(&mut self) {
        let used = self.bytes() + self.memory.elsewhere;
        let budget = self.memory.budget;
        if used <= budget {
            self.memory.limit = budget;
        }
        if used <= self.memory.limit {
            return;
        }
        let excess = used.saturating_sub(budget - budget / ROOM);
        let mut ages = Ages::default();
        self.ages(&mut ages);
        self.evict(ages.cut(excess));
        // What is left may be more than the budget, and nothing can be done about it: it is not looked through for every record.
        let left = self.bytes() + self.memory.elsewhere;
        self.memory.limit = budget.max(left + budget / GROWTH);
    }

    fn ages(&self, ages: &mut Ages) {
        for connection in self.connections.values() {
            connection.age(ages);
        }
        self.flows.ages(ages);
        self.leads.ages(ages);
        self.packs.ages(ages);
        self.grpc_calls.ages(ages);
        self.payloads.ages(ages);
        self.contents.ages(ages);
        self.encodes.ages(ages);
        self.servers.ages(ages);
    }

    /// Gives up what was not used since `before_ns`, and counts it.
    fn evict(&mut self, before_ns: u64) {
        let mut evicted = self.evict_connections(before_ns);
        self.counts.connections_evicted += evicted;
        while let Some(flow) = self.flows.remove_unused(before_ns) {
            self.counts.flows_evicted += 1;
            evicted += 1;
            self.process_spans(flow);
        }
        let leads = self.evict_leads(before_ns);
        self.counts.leads_evicted += leads;
        let packs = self.packs.evict(before_ns);
        self.counts.packs_dropped += packs;
        evicted += self.grpc_calls.evict(before_ns);
        let encodes = self.encodes.evict(before_ns);
        self.counts.encodes_evicted += encodes;
        let mut done = Vec::new();
        evicted += self.servers.evict(before_ns, &mut done);
        self.counts.held_evicted += done.len() as u64;
        evicted += done.len() as u64;
        for done in done {
            self.served(done);
        }
        evicted += leads + packs + encodes + self.payloads.evict(before_ns) + self.contents.evict(before_ns);
        self.counts.state_evicted += evicted;
    }
}

#[cfg(test)]
mod tests {
    use super::Ages;

    #[test]
    fn what_was_used_least_recently_goes_until_enough_is_gone() {
        let ages = || Ages(vec![(30, 10), (10, 10), (20, 5), (40, 100)]);
        assert_eq!(ages().cut(1), 11);
        assert_eq!(ages().cut(10), 11);
        assert_eq!(ages().cut(11), 21);
        assert_eq!(ages().cut(25), 31);
        assert_eq!(ages().cut(126), u64::MAX, "all of it is not enough");
    }
}

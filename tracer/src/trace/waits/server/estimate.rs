//! Servers that cannot be attached to: what the clients of this host alone can tell.
//!
//! A server with one thread sends its replies in the order in which it executed the commands. So, of the commands that
//! overlap, each had the thread from the reply before it, or from its own start, to its own reply. Clients do not read their
//! replies in that order, though: if of two commands the earlier one was answered a little after the other, it is its
//! client that was late. What cannot be told: which of several commands was the long one if the server read them together, as it
//! then sends their replies together. Clients of other hosts are not seen: a wait for them is taken for service. All of this
//! is marked as an estimate.

use crate::model::HashMap;
use std::collections::VecDeque;

use super::split::{Interval, Split};
use super::timeline::{Holder, Slot};
use crate::trace::memory::Ages;

/// Commands that are remembered.
const MAX_COMMANDS: usize = 1 << 14;
/// A client is late by this part of a command's duration at most.
const LATE: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct Answered {
    start_ns: u64,
    /// When its reply was sent, as far as that can be told.
    end_ns: u64,
    /// Number of the command.
    number: u64,
}

/// The commands of this host to one server, by their replies.
#[derive(Debug)]
pub struct Line<W> {
    answered: VecDeque<Answered>,
    /// Who sent which command.
    who: HashMap<u64, W>,
    /// The shortest command so far: what the network takes at least.
    floor_ns: Option<u64>,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { answered: VecDeque::new(), who: HashMap::default(), floor_ns: None }
    }
}

impl<W> Line<W> {
    /// A command was answered. Those that wait by design do not have the thread and are not given.
    pub fn add(&mut self, start_ns: u64, end_ns: u64, number: u64, who: W) {
        let duration = end_ns.saturating_sub(start_ns);
        self.floor_ns = Some(self.floor_ns.map_or(duration, |floor| floor.min(duration)));
        let late = end_ns.saturating_sub(duration / LATE);
        let first = self.answered.partition_point(|other| other.end_ns < late);
        let mut meanwhile = self.answered.range(first..).take_while(|other| other.end_ns < end_ns);
        let floor_ns = self.floor_ns.unwrap_or(0);
        let end_ns = meanwhile
            .find(|other| other.start_ns > start_ns)
            .map_or(end_ns, |other| other.end_ns.saturating_sub(floor_ns).max(start_ns));
        let at = self.answered.partition_point(|other| other.end_ns <= end_ns);
        self.answered.insert(at, Answered { start_ns, end_ns, number });
        self.who.insert(number, who);
        if self.answered.len() > MAX_COMMANDS
            && let Some(oldest) = self.answered.pop_front()
        {
            self.who.remove(&oldest.number);
        }
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.answered.len() * Self::BYTES
    }

    const BYTES: usize = size_of::<Answered>() + 2 * size_of::<(u64, W)>();

    /// When each command was answered.
    pub fn ages(&self, ages: &mut Ages) {
        self.answered.iter().for_each(|answered| ages.add(answered.end_ns, Self::BYTES));
    }

    /// Forgets the commands that were answered before `before_ns`; returns how many.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let mut evicted = 0;
        while let Some(oldest) = self.answered.pop_front_if(|answered| answered.end_ns < before_ns) {
            self.who.remove(&oldest.number);
            evicted += 1;
        }
        self.answered.shrink_to_fit();
        self.who.shrink_to_fit();
        evicted
    }

    /// Who had the thread, as far as that can be told, with the number of the command for that of the turn.
    pub fn slots(&self, within: Interval) -> Vec<Slot> {
        let first = self.answered.partition_point(|command| command.end_ns <= within.start_ns);
        let mut before = first.checked_sub(1).and_then(|index| self.answered.get(index)).map_or(0, |one| one.end_ns);
        let mut slots = Vec::new();
        for command in self.answered.range(first..) {
            if command.end_ns > within.end_ns {
                break;
            }
            let start_ns = command.start_ns.max(before);
            before = command.end_ns;
            slots.push(Slot { start_ns, end_ns: command.end_ns, holder: Holder::Turn(command.number) });
        }
        slots
    }

    /// The parts of a command that was added: what others had the thread for, what the network takes at least, the rest.
    pub fn split(&self, start_ns: u64, end_ns: u64, number: u64) -> (Split, Interval) {
        let duration = end_ns.saturating_sub(start_ns);
        let end_ns = end_ns.max(start_ns);
        let earliest = end_ns.saturating_sub(duration / LATE).saturating_sub(self.floor_ns.unwrap_or(0));
        let first = self.answered.partition_point(|other| other.end_ns < earliest);
        let own = self.answered.range(first..).take_while(|own| own.end_ns <= end_ns).find(|own| own.number == number);
        let sent_ns = own.map_or(end_ns, |own| own.end_ns.max(start_ns));
        let within = Interval { start_ns, end_ns: sent_ns };
        let queue_ns = self
            .slots(within)
            .into_iter()
            .filter(|slot| slot.holder != Holder::Turn(number))
            .map(|slot| slot.end_ns.min(sent_ns).saturating_sub(slot.start_ns.max(start_ns)))
            .sum::<u64>()
            .min(duration);
        let network_ns = self.floor_ns.unwrap_or(0).saturating_add(end_ns - sent_ns).min(duration - queue_ns);
        (Split { network_ns, queue_ns, service_ns: duration - queue_ns - network_ns }, within)
    }

    /// Who sent a command that is remembered.
    pub fn who(&self, number: u64) -> Option<&W> {
        self.who.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use crate::trace::server::split::Split;

    #[test]
    fn a_command_waits_for_the_reply_before_its_own() {
        let mut line = Line::default();
        line.add(0, 10, 0, ());
        line.add(100, 600, 1, ());
        line.add(150, 630, 2, ());
        assert_eq!(line.split(150, 630, 2).0, Split { network_ns: 10, queue_ns: 450, service_ns: 20 });
        assert_eq!(line.split(100, 600, 1).0, Split { network_ns: 10, queue_ns: 0, service_ns: 490 });
    }

    #[test]
    fn a_client_that_is_late_to_read_its_reply_has_not_waited() {
        let mut line = Line::default();
        line.add(0, 10, 0, ());
        line.add(200, 1000, 2, ());
        line.add(100, 1020, 1, ());
        assert_eq!(line.split(100, 1020, 1).0, Split { network_ns: 10 + 30, queue_ns: 0, service_ns: 880 });
        assert_eq!(line.split(200, 1000, 2).0, Split { network_ns: 10, queue_ns: 790, service_ns: 0 });
    }

    proptest::proptest! {
        #[test]
        fn the_parts_add_up(commands in proptest::collection::vec((0u64..1000, 0u64..1000), 1..50)) {
            let mut line = Line::default();
            for (number, &(start, length)) in commands.iter().enumerate() {
                line.add(start, start + length, number as u64, ());
            }
            for (number, &(start, length)) in commands.iter().enumerate() {
                let parts = line.split(start, start + length, number as u64).0;
                proptest::prop_assert_eq!(parts.network_ns + parts.queue_ns + parts.service_ns, length);
            }
        }
    }
}

//! Losses are said when they begin, not only in the balance at the end: one line for each cause.

use std::collections::BTreeSet;

use super::Balance;

/// The causes that have been said.
#[derive(Debug, Default)]
pub struct SaidLosses(BTreeSet<String>);

impl SaidLosses {
    /// Says what is lost, of each cause once.
    pub fn tell(&mut self, balance: &Balance) {
        for loss in self.news(balance) {
            tracing::warn!("{loss}");
        }
    }

    /// One line for each cause that is new: what is lost, and what helps.
    fn news(&mut self, balance: &Balance) -> Vec<String> {
        let dropped = balance.exporters.iter().flat_map(|exporter| {
            exporter.dropped.iter().map(|(cause, number)| (format!("{} of {}", cause, exporter.name), *number))
        });
        let causes = balance.losses().into_iter().chain(dropped).filter(|(_, number)| *number > 0);
        causes
            .filter(|(cause, _)| self.0.insert(cause.clone()))
            .map(|(cause, number)| match remedy(&cause) {
                Some(remedy) => format!("losing {cause} ({number} so far): {remedy}"),
                None => format!("losing {cause} ({number} so far)"),
            })
            .collect()
    }
}

/// What a user can do about a cause.
pub fn remedy(cause: &str) -> Option<&'static str> {
    match cause {
        "lifecycle_ring_full" => Some("more processes start than the agent can look at; it compares all of them now"),
        cause if cause.ends_with("_ring_full") => Some("records come faster than they are taken; raise --ring-size"),
        cause if cause.ends_with("_map_full") => Some("a table of the eBPF programs is full; trace fewer processes"),
        "state_evicted" => Some("the memory budget is used up, and the oldest state goes; raise --memory-budget"),
        cause if cause.starts_with("memory_full") => {
            Some("the exporter is too slow, and half of the memory budget is used up; raise --memory-budget")
        }
        cause if cause.starts_with("queue_full") => Some("the exporter is too slow; raise --max-queue-size"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::SaidLosses;
    use crate::agent::{Balance, KernelCounts};
    use crate::trace::Counts;

    fn balance(sockets_ring_full: u64) -> Balance {
        let kernel = KernelCounts(BTreeMap::from([("sockets_ring_full", sockets_ring_full)]));
        Balance { kernel, counts: Counts::default(), exporters: Vec::new() }
    }

    #[test]
    fn a_cause_is_said_once() {
        let mut said = SaidLosses::default();
        assert!(said.news(&balance(0)).is_empty());
        let first = said.news(&balance(3));
        assert!(first.len() == 1 && first[0].contains("sockets_ring_full (3 so far)"), "{first:?}");
        assert!(said.news(&balance(4)).is_empty());
    }
}

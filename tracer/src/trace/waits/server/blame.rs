//! Who had the thread while a command waited.

use super::split::Interval;
use super::timeline::{Holder, Own, Slot};

/// Shorter waits blame nobody: any two commands that meet cost each other some microseconds.
pub const MIN_WAIT_NS: u64 = 100_000;
/// Blockers that are named; the rest is summed.
pub const MAX_BLOCKERS: usize = 5;
/// Groups that are told apart before the largest are chosen.
const MAX_GROUPS: usize = 256;

/// One blocker, or several of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker<K> {
    /// What they have in common.
    pub who: K,
    /// Nanoseconds of the wait for which they had the thread.
    pub ns: u64,
    /// Turns.
    pub turns: u64,
    /// The turn that had the thread for longest, with its time.
    pub longest: Option<(u64, u64)>,
}

/// What explains a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame<K> {
    /// The largest first.
    pub blockers: Vec<Blocker<K>>,
    /// The server's own work, by kind, the largest first.
    pub own: Vec<(Own, u64)>,
    /// Nanoseconds of blockers that are not named.
    pub rest_ns: u64,
}

impl<K> Default for Blame<K> {
    fn default() -> Self {
        Self { blockers: Vec::new(), own: Vec::new(), rest_ns: 0 }
    }
}

impl<K> Blame<K> {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.blockers.is_empty() && self.own.is_empty()
    }
}

/// Adds up the slots within the waits. `who` says which group a turn is in; `None` for the waiting command's own connection,
/// which counts as `same`.
pub fn blame<K: PartialEq>(
    waits: &[Interval],
    slots: impl Fn(Interval) -> Vec<Slot>,
    mut who: impl FnMut(u64) -> Option<K>,
    same: Option<Own>,
) -> Blame<K> {
    let mut result = Blame::default();
    if waits.iter().map(|wait| wait.len_ns()).sum::<u64>() < MIN_WAIT_NS {
        return result;
    }
    for &wait in waits {
        for slot in slots(wait) {
            let ns = slot.end_ns.min(wait.end_ns).saturating_sub(slot.start_ns.max(wait.start_ns));
            let own = match slot.holder {
                _ if ns == 0 => continue,
                // The command was there, and still the server slept: it was woken late.
                Holder::Idle => Some(Own::Wakeup),
                Holder::Own(own) => Some(own),
                Holder::Turn(turn) => match who(turn) {
                    Some(who) => {
                        add(&mut result, who, turn, ns);
                        None
                    }
                    None => same,
                },
            };
            let Some(own) = own else { continue };
            match result.own.iter_mut().find(|(kind, _)| *kind == own) {
                Some((_, sum)) => *sum += ns,
                None => result.own.push((own, ns)),
            }
        }
    }
    let total: u64 = result.blockers.iter().map(|blocker| blocker.ns).sum::<u64>()
        + result.own.iter().map(|(_, ns)| ns).sum::<u64>();
    if total < MIN_WAIT_NS {
        return Blame::default();
    }
    result.blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.ns));
    result.own.sort_by_key(|&(own, ns)| (std::cmp::Reverse(ns), own));
    let unnamed = result.blockers.split_off(result.blockers.len().min(MAX_BLOCKERS));
    result.rest_ns += unnamed.iter().map(|blocker| blocker.ns).sum::<u64>();
    result
}

fn add<K: PartialEq>(result: &mut Blame<K>, who: K, turn: u64, ns: u64) {
    let room = result.blockers.len() < MAX_GROUPS;
    match result.blockers.iter_mut().find(|blocker| blocker.who == who) {
        Some(blocker) => {
            blocker.ns += ns;
            match &mut blocker.longest {
                Some((longest, sum)) if *longest == turn => *sum += ns,
                Some((_, longest)) if *longest >= ns => blocker.turns += 1,
                longest => {
                    *longest = Some((turn, ns));
                    blocker.turns += 1;
                }
            }
        }
        None if room => {
            result.blockers.push(Blocker { who, ns, turns: 1, longest: Some((turn, ns)) });
        }
        None => result.rest_ns += ns,
    }
}

#[cfg(test)]
mod tests {
    use super::super::split::Interval;
    use super::super::timeline::{Holder, Own, Slot};
    use super::{MAX_BLOCKERS, blame};

    const MS: u64 = 1_000_000;

    fn slot(start_ms: u64, end_ms: u64, holder: Holder) -> Slot {
        Slot { start_ns: start_ms * MS, end_ns: end_ms * MS, holder }
    }

    fn wait(start_ms: u64, end_ms: u64) -> Interval {
        Interval { start_ns: start_ms * MS, end_ns: end_ms * MS }
    }

    #[test]
    fn the_longest_first_and_own_work_apart() {
        let slots = vec![
            slot(0, 2, Holder::Idle),
            slot(2, 3, Holder::Turn(0)),
            slot(3, 10, Holder::Turn(1)),
            slot(10, 11, Holder::Own(Own::Fork)),
            slot(11, 12, Holder::Turn(2)),
        ];
        let found = blame(&[wait(1, 11)], |_| slots.clone(), |turn| (turn != 0).then_some(turn), None);
        assert_eq!(found.blockers.iter().map(|blocker| (blocker.who, blocker.ns)).collect::<Vec<_>>(), [(1, 7 * MS)]);
        assert_eq!(found.own, [(Own::Fork, MS), (Own::Wakeup, MS)]);
    }

    #[test]
    fn the_end_of_the_last_reply_is_a_call_of_the_server() {
        let slots = vec![slot(0, 5, Holder::Turn(0)), slot(5, 6, Holder::Turn(1))];
        let found = blame(&[wait(1, 6)], |_| slots.clone(), |turn| (turn != 0).then_some(turn), Some(Own::Call));
        assert_eq!(found.blockers.iter().map(|blocker| (blocker.who, blocker.ns)).collect::<Vec<_>>(), [(1, MS)]);
        assert_eq!(found.own, [(Own::Call, 4 * MS)]);
    }

    #[test]
    fn a_short_wait_blames_nobody() {
        let slots = vec![slot(0, 100, Holder::Turn(1))];
        let short = Interval { start_ns: 5, end_ns: 50_000 };
        assert!(blame(&[short], |_| slots.clone(), Some, None).is_empty());
    }

    proptest::proptest! {
        /// Whatever the slots are, blame is never more than the wait, and nothing is forgotten.
        #[test]
        fn blame_is_within_the_wait(lengths in proptest::collection::vec((1u64..50, 0u64..40), 1..200), from in 0u64..1000, len in 1u64..2000) {
            let mut at = 0;
            let slots: Vec<Slot> = lengths.iter().map(|&(length, who)| {
                let slot = slot(at, at + length, if who == 0 { Holder::Idle } else { Holder::Turn(who) });
                at += length;
                slot
            }).collect();
            let wait = wait(from, from + len);
            let found = blame(&[wait], |_| slots.clone(), Some, None);
            let known: u64 = slots.iter()
                .map(|slot| slot.end_ns.min(wait.end_ns).saturating_sub(slot.start_ns.max(wait.start_ns))).sum();
            let named: u64 = found.blockers.iter().map(|blocker| blocker.ns).sum();
            let own: u64 = found.own.iter().map(|(_, ns)| ns).sum();
            proptest::prop_assert_eq!(named + own + found.rest_ns, known);
            proptest::prop_assert!(found.blockers.len() <= MAX_BLOCKERS);
            proptest::prop_assert!(named <= wait.len_ns());
        }
    }
}

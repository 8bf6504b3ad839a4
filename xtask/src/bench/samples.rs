//! What was measured, by row and round, and the ratios between rows of the same round.

use std::collections::BTreeMap;

/// A variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    MessageBare,
    MessageAgent,
    MessageSdk,
    MessageBpftrace,
    RedisBare,
    RedisAgent,
    RedisSdk,
    RedisBpftrace,
    RedisBareCpu,
    RedisAgentCpu,
    RedisSdkCpu,
    RedisBpftraceCpu,
    EncodeBare,
    EncodeShim,
    EncodeShimTraced,
    EncodeShimSampled,
    EncodeApi,
    EncodeSdk,
    Floor,
    FloorUnderAgent,
    CallBare,
    CallUnderAgent,
    CallUnderAgentOfServer,
    ServerBare,
    ServerTraced,
    ServerAndClientTraced,
    PipelineBare,
    PipelineServerTraced,
    PipelineBothTraced,
}

/// Smallest, middle and largest of several figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// None of no figures.
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = (figures.first()?, figures.last()?);
        let upper = figures[figures.len() / 2];
        let lower = figures[(figures.len() - 1) / 2];
        Some(Self { min, median: f64::midpoint(lower, upper), max })
    }
}

/// All figures, in nanoseconds per operation.
#[derive(Default)]
pub struct Samples {
    figures: BTreeMap<Row, Vec<f64>>,
    failures: BTreeMap<Row, String>,
    agent_lost: u64,
    bpftrace_lost: u64,
}

impl Samples {
    /// A figure of this round.
    pub fn add(&mut self, row: Row, ns: f64) {
        self.figures.entry(row).or_default().push(ns);
    }

    /// The row cannot be measured on this machine.
    pub fn fail(&mut self, row: Row, reason: &str) {
        let cpu_row = (row == Row::RedisBpftrace).then_some(Row::RedisBpftraceCpu);
        for row in [row].into_iter().chain(cpu_row) {
            self.figures.remove(&row);
            self.failures.insert(row, reason.to_owned());
        }
    }

    /// Why a row could not be measured.
    pub fn failure(&self, row: Row) -> Option<&str> {
        self.failures.get(&row).map(String::as_str)
    }

    /// Counts what the agent lost; a lost event is cheap, so figures with losses say too little.
    pub fn agent_lost(&mut self, events: u64) {
        self.agent_lost += events;
    }

    /// Counts what bpftrace lost.
    pub fn bpftrace_lost(&mut self, events: u64) {
        self.bpftrace_lost += events;
    }

    /// What the agent and bpftrace lost over all rounds.
    pub fn lost(&self) -> (u64, u64) {
        (self.agent_lost, self.bpftrace_lost)
    }

    /// Whether anything was measured at all.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty() && self.failures.is_empty()
    }

    /// The row's figures.
    pub fn ns(&self, row: Row) -> &[f64] {
        self.figures.get(&row).map_or(&[], Vec::as_slice)
    }

    /// The row's own spread.
    pub fn spread(&self, row: Row) -> Option<Spread> {
        Spread::of(self.ns(row).to_vec())
    }

    /// The row over another of the same round.
    pub fn ratio(&self, row: Row, base: Row) -> Option<Spread> {
        self.by_round(row, base, |ns, base| ns / base)
    }

    /// What the row takes more than another of the same round, in nanoseconds.
    pub fn difference(&self, row: Row, base: Row) -> Option<Spread> {
        self.by_round(row, base, |ns, base| ns - base)
    }

    fn by_round(&self, row: Row, base: Row, of: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        let rounds = self.ns(row).iter().zip(self.ns(base));
        Spread::of(rounds.map(|(ns, base)| of(*ns, *base)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, Samples, Spread};

    #[test]
    fn ratios_are_within_a_round() {
        let mut samples = Samples::default();
        for (bare, agent) in [(10.0, 20.0), (100.0, 300.0), (1.0, 4.0)] {
            samples.add(Row::MessageBare, bare);
            samples.add(Row::MessageAgent, agent);
        }
        let spread = |min, median, max| Some(Spread { min, median, max });
        assert_eq!(samples.ratio(Row::MessageAgent, Row::MessageBare), spread(2.0, 3.0, 4.0));
        assert_eq!(samples.difference(Row::MessageAgent, Row::MessageBare), spread(3.0, 10.0, 200.0));
        assert_eq!(samples.ratio(Row::Floor, Row::MessageBare), None);
    }

    #[test]
    fn a_failed_row_has_no_figures() {
        let mut samples = Samples::default();
        samples.add(Row::MessageBpftrace, 1.0);
        samples.fail(Row::MessageBpftrace, "no tracefs");
        assert_eq!(samples.spread(Row::MessageBpftrace), None);
        assert_eq!(samples.failure(Row::MessageBpftrace), Some("no tracefs"));
    }

    #[test]
    fn the_middle_of_two_is_between_them() {
        assert_eq!(Spread::of(vec![4.0, 2.0]).map(|spread| spread.median), Some(3.0));
    }
}

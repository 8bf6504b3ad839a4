//! How long commands took, by service, operation and server: counted for every command, also where its span is sampled out.

use crate::model::{HashMap, Text};
use std::sync::Arc;

use crate::trace::waits::server::Split;

/// Upper bounds in seconds. Those from 1 ms on are the semantic conventions' for `db.client.operation.duration`; below they
/// go on, because a Redis command takes less.
pub const BOUNDS: [f64; 13] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// Series kept. Further ones have the operation [`OTHER`], and where there are too many of these as well, one has it as its
/// service and server too.
const MAX_SERIES: usize = 4096;
const OTHER: &str = "_OTHER";

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// `service.name` of the client.
    pub service: Arc<str>,
    /// Name of the command.
    pub operation: Text,
    /// Address of the server.
    pub server: Arc<str>,
}

/// Durations, in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Counts below [`BOUNDS`], and above the last.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Number of durations.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn add(&mut self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        self.buckets[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }
}

/// The histograms of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// From the send to the end of the reply.
    pub duration: Histogram,
    /// Waited at the server.
    pub queue: Histogram,
    /// Executed.
    pub service: Histogram,
    /// The rest.
    pub network: Histogram,
}

/// All series.
#[derive(Clone, Debug, Default)]
pub struct Durations(HashMap<Series, Figures>);

impl Durations {
    /// Counts a command; `split` where its time was taken apart.
    pub fn add(&mut self, mut series: Series, duration_ns: u64, split: Option<&Split>) {
        if self.0.len() >= MAX_SERIES && !self.0.contains_key(&series) {
            series.operation = Text::new_static(OTHER);
            if self.0.len() >= 2 * MAX_SERIES && !self.0.contains_key(&series) {
                (series.service, series.server) = (OTHER.into(), OTHER.into());
            }
        }
        let figures = self.0.entry(series).or_default();
        figures.duration.add(duration_ns);
        if let Some(split) = split {
            figures.queue.add(split.queue_ns);
            figures.service.add(split.service_ns);
            figures.network.add(split.network_ns);
        }
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.0.len() * 2 * size_of::<(Series, Figures)>()
    }

    /// Every series, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, &Figures)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, Durations, Histogram, MAX_SERIES, OTHER, Series};

    #[test]
    fn memory_is_bounded_whatever_services_operations_and_servers_are_called() {
        let mut durations = Durations::default();
        let count = 3 * MAX_SERIES;
        for number in 0..count {
            let name = number.to_string();
            let series =
                Series { service: name.as_str().into(), operation: name.clone().into(), server: name.as_str().into() };
            durations.add(series, 1, None);
        }
        assert_eq!(durations.iter().count(), 2 * MAX_SERIES + 1);
        assert_eq!(durations.iter().map(|(_, figures)| figures.duration.count).sum::<u64>(), count as u64);
        let rest: Vec<u64> =
            durations.iter().filter(|(series, _)| &*series.server == OTHER).map(|(_, it)| it.duration.count).collect();
        assert_eq!(rest, [MAX_SERIES as u64]);
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut histogram = Histogram::default();
        for ns in [10_000, 10_001, 20_000_000_000] {
            histogram.add(ns);
        }
        assert_eq!((histogram.buckets[0], histogram.buckets[1], histogram.buckets[BOUNDS.len()]), (1, 1, 1));
        assert_eq!((histogram.count, histogram.max_ns), (3, 20_000_000_000));
    }
}

//! The balance of one exporter: every accepted span is exported or dropped by a named cause.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

/// Why a span did not reach its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The exporter was behind by a whole queue.
    QueueFull,
    /// The spans that exporters were behind took their part of the memory budget.
    MemoryFull,
    /// Retries or the time for shutting down ran out.
    ExporterGaveUp,
    /// The collector refused it: a status that forbids a retry, or `partial_success`.
    Rejected,
    /// It cannot be encoded: larger than a whole request may be.
    EncodeError,
    /// The file, pipe or terminal failed (disk full, broken pipe).
    WriteFailed,
    /// Counted but not printed: the terminal shows a bounded number of lines.
    NotShown,
    /// It came after shutdown began.
    AfterShutdown,
    /// The spool had reached its size: the oldest goes.
    SpoolFull,
    /// The spool could not be written (disk full).
    SpoolWriteFailed,
    /// It was in the spool and cannot be read back: torn by a crash, or changed since.
    SpoolDamaged,
    /// The exporter panicked: a bug.
    ExporterPanicked,
}

impl Cause {
    /// All causes, in the order of reports.
    pub const ALL: [Self; 12] = [
        Self::QueueFull,
        Self::MemoryFull,
        Self::ExporterGaveUp,
        Self::Rejected,
        Self::EncodeError,
        Self::WriteFailed,
        Self::NotShown,
        Self::AfterShutdown,
        Self::SpoolFull,
        Self::SpoolWriteFailed,
        Self::SpoolDamaged,
        Self::ExporterPanicked,
    ];

    /// Name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::MemoryFull => "memory_full",
            Self::ExporterGaveUp => "exporter_gave_up",
            Self::Rejected => "rejected",
            Self::EncodeError => "encode_error",
            Self::WriteFailed => "write_failed",
            Self::NotShown => "not_shown",
            Self::AfterShutdown => "after_shutdown",
            Self::SpoolFull => "spool_full",
            Self::SpoolWriteFailed => "spool_write_failed",
            Self::SpoolDamaged => "spool_damaged",
            Self::ExporterPanicked => "exporter_panicked",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Errors that are not told again.
const MAX_ERRORS: usize = 4;

/// Live counters of one exporter.
#[derive(Debug)]
pub struct Tally {
    name: String,
    accepted: AtomicU64,
    recovered: AtomicU64,
    exported: AtomicU64,
    from_spool: AtomicU64,
    spooled: AtomicU64,
    dropped: [AtomicU64; Cause::ALL.len()],
    retries: AtomicU64,
    panicked: AtomicBool,
    /// Those told last, the latest at the end.
    errors: Mutex<VecDeque<String>>,
}

impl Tally {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            accepted: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            from_spool: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            dropped: Default::default(),
            retries: AtomicU64::new(0),
            panicked: AtomicBool::new(false),
            errors: Mutex::default(),
        }
    }

    pub(super) fn accept(&self, spans: u64) {
        self.accepted.fetch_add(spans, Ordering::Relaxed);
    }

    /// Counts spans that reached the destination.
    pub fn exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Release);
    }

    /// Counts spans that did not.
    pub fn dropped(&self, cause: Cause, spans: u64) {
        self.dropped[cause as usize].fetch_add(spans, Ordering::Release);
    }

    /// Counts spans that an earlier life of the agent left in the spool.
    pub(super) fn recovered(&self, spans: u64) {
        self.recovered.fetch_add(spans, Ordering::Relaxed);
        self.spooled(spans);
    }

    /// Counts spans that are on disk now.
    pub(super) fn spooled(&self, spans: u64) {
        self.spooled.fetch_add(spans, Ordering::Release);
    }

    /// Counts spans that leave the disk; to be called before their fate is counted.
    pub(super) fn unspooled(&self, spans: u64) {
        self.spooled.fetch_sub(spans, Ordering::Release);
    }

    /// Counts spans that reached the destination by way of the disk.
    pub(super) fn exported_from_spool(&self, spans: u64) {
        self.from_spool.fetch_add(spans, Ordering::Relaxed);
        self.exported(spans);
    }

    /// Counts one request that will be repeated.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers what went wrong last, for the report, and warns of it unless it was told among the last ones: a collector
    /// that is away and a full disk take turns.
    pub fn failed(&self, error: String) {
        let mut errors = self.errors.lock().expect("no panic while it is held");
        match errors.iter().position(|told| *told == error) {
            Some(place) => drop(errors.remove(place)),
            None => tracing::warn!(exporter = %self.name, "{error}"),
        }
        if errors.len() == MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    /// Remembers that the exporter panicked: the cause of what it loses from now on.
    pub(super) fn panicked(&self) {
        self.panicked.store(true, Ordering::Relaxed);
        self.failed("the exporter panicked and exports no more; please report this".to_owned());
    }

    /// Why spans are lost that an exporter did not take before it ended.
    pub(super) fn end_cause(&self) -> Cause {
        if self.panicked.load(Ordering::Relaxed) { Cause::ExporterPanicked } else { Cause::ExporterGaveUp }
    }

    /// The counters at the end: what has no fate is lost.
    pub(super) fn close(&self) -> ExporterStats {
        let mut stats = self.stats();
        if stats.on_the_way > 0 {
            *stats.dropped.entry(self.end_cause().name()).or_default() += stats.on_the_way;
            stats.on_the_way = 0;
        }
        stats
    }

    /// Spans accepted that have no fate yet: queued, held or in a request.
    pub fn on_the_way(&self) -> u64 {
        // Fates are read before acceptances, and what may still change its fate in between: a span is accepted first and
        // leaves the spool before its fate is counted, so none is seen twice and the difference cannot be negative.
        let settled = self.exported.load(Ordering::Acquire)
            + self.dropped.iter().map(|spans| spans.load(Ordering::Acquire)).sum::<u64>();
        let spooled = self.spooled.load(Ordering::Acquire);
        self.accepted.load(Ordering::Relaxed) + self.recovered.load(Ordering::Relaxed) - settled - spooled
    }

    /// The counters now.
    pub fn stats(&self) -> ExporterStats {
        // In the order of `on_the_way`, for its reason.
        let exported_from_spool = self.from_spool.load(Ordering::Acquire);
        let exported = self.exported.load(Ordering::Acquire);
        let dropped: BTreeMap<_, _> = Cause::ALL
            .iter()
            .map(|&cause| (cause.name(), self.dropped[cause as usize].load(Ordering::Acquire)))
            .filter(|&(_, spans)| spans > 0)
            .collect();
        let spooled = self.spooled.load(Ordering::Acquire);
        let (accepted, recovered) = (self.accepted.load(Ordering::Relaxed), self.recovered.load(Ordering::Relaxed));
        ExporterStats {
            name: self.name.clone(),
            accepted,
            recovered,
            exported,
            exported_from_spool,
            spooled,
            on_the_way: accepted + recovered - exported - spooled - dropped.values().sum::<u64>(),
            dropped,
            retries: self.retries.load(Ordering::Relaxed),
            last_error: self.errors.lock().expect("no panic while it is held").back().cloned(),
        }
    }
}

/// What became of the spans of one exporter: `accepted` + `recovered` is the sum of `exported`, `spooled`, `dropped` and
/// `on_the_way`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExporterStats {
    /// The exporter and where it sends to.
    pub name: String,
    /// Spans given to it.
    pub accepted: u64,
    /// Spans that an earlier life of the agent left in the spool.
    pub recovered: u64,
    /// Spans that reached the destination.
    pub exported: u64,
    /// Those of them that were on disk in between.
    pub exported_from_spool: u64,
    /// Spans on disk; at the end, for the next life of the agent.
    pub spooled: u64,
    /// Spans that did not, by [`Cause::name`]; causes that did not happen are absent.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Spans without a fate yet; 0 in the final report.
    pub on_the_way: u64,
    /// Requests that were repeated.
    pub retries: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl ExporterStats {
    /// Spans dropped for this cause.
    pub fn dropped(&self, cause: Cause) -> u64 {
        self.dropped.get(cause.name()).copied().unwrap_or(0)
    }
}

/// The final balance of all exporters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// One entry per exporter, in the order they were given.
    pub exporters: Vec<ExporterStats>,
}

//! One queue and one thread per exporter, fed with shared batches.

use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::batch::Resources;
use super::clock::OffsetMeter;
use super::{Batch, Cause, Clock, ExportReport, ExporterStats, Tally};
use crate::model::{Resource, Span};

/// How long a span may wait for others before its batch is handed to the exporters.
const HANDOVER: Duration = Duration::from_millis(100);

/// How long an exporter that is cancelled may take to end.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// Sizes and times of a pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    /// Spans that one exporter may be behind: queued, held or in a request (`OTEL_BSP_MAX_QUEUE_SIZE`). The standard's 2,048
    /// loses spans in the first burst.
    pub max_queue_size: NonZeroUsize,
    /// Bytes, about, that spans may take for which exporters are behind; each exporter has an equal part.
    pub max_queue_bytes: usize,
    /// Spans in a batch, and in a request (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub max_batch_size: NonZeroUsize,
    /// What happens to a batch that an exporter has no room for.
    pub when_full: WhenFull,
    /// Wall-clock time.
    pub clock: Clock,
    /// The first thing that each thread does.
    pub thread_start: ThreadStart,
}

/// Something that threads do first, such as giving up rights.
#[derive(Clone)]
pub struct ThreadStart(Arc<dyn Fn() + Send + Sync>);

impl ThreadStart {
    /// Threads begin with this.
    pub fn new(start: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }

    fn run(&self) {
        (self.0)();
    }
}

impl Default for ThreadStart {
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for ThreadStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadStart")
    }
}

/// What happens to a batch that an exporter has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// It is dropped and counted: whoever is being traced does not wait.
    #[default]
    Drop,
    /// The giver waits: a recording can be read as slowly as its spans are written.
    Wait,
}

/// How often a waiting giver looks again.
const ROOM_POLL: Duration = Duration::from_millis(1);
/// Spans of a batch that are looked at to see how large its spans are.
const WEIGHED: usize = 32;

impl Default for Options {
    fn default() -> Self {
        Self {
            max_queue_size: NonZeroUsize::new(65_536).expect("not zero"),
            max_queue_bytes: 128 << 20,
            max_batch_size: NonZeroUsize::new(2_048).expect("not zero"),
            when_full: WhenFull::Drop,
            clock: Clock::System,
            thread_start: ThreadStart::default(),
        }
    }
}

/// Writes batches somewhere. It has a thread of its own, so it may block.
pub trait Exporter: Send + 'static {
    /// What it is and where it writes to, for reports.
    fn name(&self) -> String;

    /// Takes batches until there are no more, and tells the feed's tally the fate of each span.
    ///
    /// The future is dropped where it waits when the time for shutting down is over.
    fn run(self: Box<Self>, feed: Feed) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// The batches for one exporter.
#[derive(Debug)]
pub struct Feed {
    queue: mpsc::UnboundedReceiver<Arc<Batch>>,
    tally: Arc<Tally>,
    max_queue_size: u64,
}

impl Feed {
    /// The next batch, `None` when there will be no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Batch>> {
        self.queue.recv().await
    }

    /// The next batch if it is there.
    pub(super) fn try_next(&mut self) -> Option<Arc<Batch>> {
        self.queue.try_recv().ok()
    }

    /// Spans that the exporter may be behind.
    pub(super) fn max_queue_size(&self) -> u64 {
        self.max_queue_size
    }

    /// Where the fates of spans are counted.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }
}

/// Started exporters. Dropping it without [`Pipeline::shutdown`] leaves spans unsent.
#[derive(Debug)]
pub struct Pipeline {
    handle: Handle,
    /// Dropping one drops the exporter where it waits.
    cancel: Vec<oneshot::Sender<()>>,
}

/// Gives spans to a pipeline, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_queue_size: u64,
    /// For each exporter.
    max_queue_bytes: u64,
    /// Of the spans handed over last, on average.
    bytes_per_span: AtomicU64,
    max_batch_size: usize,
    when_full: WhenFull,
    tallies: Vec<Arc<Tally>>,
    /// Exporters that have not ended.
    running: watch::Receiver<usize>,
    front: Mutex<Front>,
    changed: Condvar,
}

#[derive(Debug)]
struct Front {
    /// One per tally; empty once shutdown has begun.
    queues: Vec<mpsc::UnboundedSender<Arc<Batch>>>,
    pending: Vec<Span>,
    /// When the first of the pending spans came.
    pending_since: Option<Instant>,
    resources: Resources,
    meter: OffsetMeter,
    closed: bool,
}

impl Pipeline {
    /// Starts a thread per exporter.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(options: Options, exporters: Vec<Box<dyn Exporter>>) -> io::Result<Self> {
        let (running_sender, running) = watch::channel(exporters.len());
        let mut cancel = Vec::new();
        let mut queues = Vec::new();
        let mut tallies = Vec::new();
        for exporter in exporters {
            let tally = Arc::new(Tally::new(exporter.name()));
            let (sender, queue) = mpsc::unbounded_channel();
            let max_queue_size = options.max_queue_size.get() as u64;
            let feed = Feed { queue, tally: Arc::clone(&tally), max_queue_size };
            cancel.push(start_worker(exporter, feed, running_sender.clone(), options.thread_start.clone())?);
            queues.push(sender);
            tallies.push(tally);
        }
        let shared = Arc::new(Shared {
            max_queue_size: options.max_queue_size.get() as u64,
            max_queue_bytes: (options.max_queue_bytes / tallies.len().max(1)) as u64,
            bytes_per_span: AtomicU64::new(size_of::<Span>() as u64),
            max_batch_size: options.max_batch_size.min(options.max_queue_size).get(),
            when_full: options.when_full,
            tallies,
            running,
            front: Mutex::new(Front {
                queues,
                pending: Vec::new(),
                pending_since: None,
                resources: Resources::default(),
                meter: OffsetMeter::new(options.clock),
                closed: false,
            }),
            changed: Condvar::new(),
        });
        let handover = Arc::clone(&shared);
        thread::Builder::new().name("export-handover".into()).spawn(move || {
            options.thread_start.run();
            handover.hand_over_on_time();
        })?;
        Ok(Self { handle: Handle { shared }, cancel })
    }

    /// For giving spans.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The counters of each exporter now.
    pub fn stats(&self) -> Vec<ExporterStats> {
        self.handle.stats()
    }

    /// Sends what is left, for at most this long, and tells the final balance.
    pub async fn shutdown(mut self, deadline: Duration) -> ExportReport {
        self.handle.shared.close();
        let ended = tokio::time::timeout(deadline, self.handle.shared.none_running()).await;
        self.cancel.clear();
        if ended.is_err() {
            // Those with a spool put there what they hold. What a cancelled exporter has still got is counted as given up.
            let _ = tokio::time::timeout(CANCEL_GRACE, self.handle.shared.none_running()).await;
        }
        ExportReport { exporters: self.handle.shared.tallies.iter().map(|tally| tally.close()).collect() }
    }
}

fn start_worker(
    exporter: Box<dyn Exporter>,
    feed: Feed,
    running: watch::Sender<usize>,
    thread_start: ThreadStart,
) -> io::Result<oneshot::Sender<()>> {
    let (cancel, cancelled) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("export".into()).spawn(move || {
        thread_start.run();
        let tally = Arc::clone(feed.tally());
        // Nothing of the exporter is used after a panic.
        let exporting = AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = exporter.run(feed) => {}
                    _ = cancelled => {}
                }
            });
        });
        if catch_unwind(exporting).is_err() {
            tally.panicked();
        }
        running.send_modify(|running| *running -= 1);
    })?;
    Ok(cancel)
}

impl Handle {
    /// Tells or replaces the resource of a process, for spans that are not in a batch yet.
    pub fn resource(&self, resource: Resource) {
        self.shared.lock().resources.insert(resource);
    }

    /// Takes a finished span, as [`Handle::spans`] does.
    pub fn span(&self, span: Span) {
        self.spans([span]);
    }

    /// Takes finished spans. Blocks only with [`WhenFull::Wait`]; else, what an exporter has no room for is counted.
    pub fn spans(&self, spans: impl IntoIterator<Item = Span>) {
        let shared = &*self.shared;
        let mut front = shared.lock();
        for span in spans {
            for tally in &shared.tallies {
                tally.accept(1);
            }
            if front.closed {
                for tally in &shared.tallies {
                    tally.dropped(Cause::AfterShutdown, 1);
                }
                continue;
            }
            front.pending.push(span);
            if front.pending.len() >= shared.max_batch_size {
                shared.hand_over(&mut front);
            }
        }
        if !front.pending.is_empty() && front.pending_since.is_none() {
            front.pending_since = Some(Instant::now());
            shared.changed.notify_one();
        }
    }

    /// Waits until every exporter has ended: after shutdown, or because nobody reads what it writes any more. Waits
    /// forever where there was none.
    pub async fn ended(&self) {
        if self.shared.tallies.is_empty() {
            std::future::pending::<()>().await;
        }
        self.shared.none_running().await;
    }

    /// About how many bytes the spans take for which exporters are behind.
    pub fn bytes(&self) -> usize {
        let behind: u64 = self.shared.tallies.iter().map(|tally| tally.on_the_way()).sum();
        (behind * self.shared.bytes_per_span.load(Ordering::Relaxed)) as usize
    }

    /// The counters of each exporter now.
    pub fn stats(&self) -> Vec<ExporterStats> {
        self.shared.tallies.iter().map(|tally| tally.stats()).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().expect("nothing panics while it is held")
    }

    async fn none_running(&self) {
        // An error means that all senders are gone, and the exporters with them.
        let _ = self.running.clone().wait_for(|&running| running == 0).await;
    }

    /// Freezes the pending spans and queues them for each exporter that has room.
    fn hand_over(&self, front: &mut Front) {
        front.pending_since = None;
        if front.pending.is_empty() {
            return;
        }
        // The next batch is likely to be as large, and growing would copy its spans twice.
        let next = Vec::with_capacity(front.pending.len());
        let spans = std::mem::replace(&mut front.pending, next);
        let offset = front.meter.offset_ns();
        let batch = Arc::new(front.resources.freeze(spans, offset));
        let count = batch.spans.len() as u64;
        let weighed = batch.spans.iter().take(WEIGHED).map(Span::bytes);
        let bytes = (weighed.sum::<usize>() / batch.spans.len().min(WEIGHED)) as u64;
        self.bytes_per_span.store(bytes, Ordering::Relaxed);
        for (queue, tally) in front.queues.iter().zip(&self.tallies) {
            // The batch itself is already among the accepted.
            let full = || {
                let behind = tally.on_the_way();
                let cause = if behind > self.max_queue_size {
                    Cause::QueueFull
                } else if behind > count && behind * bytes > self.max_queue_bytes {
                    Cause::MemoryFull
                } else {
                    return None;
                };
                (!queue.is_closed()).then_some(cause)
            };
            while self.when_full == WhenFull::Wait && full().is_some() {
                thread::sleep(ROOM_POLL);
            }
            if let Some(cause) = full() {
                tally.dropped(cause, count);
            } else if queue.send(Arc::clone(&batch)).is_err() {
                tally.dropped(tally.end_cause(), count);
            }
        }
    }

    /// Hands over what waited long enough; returns when the pipeline is closed.
    fn hand_over_on_time(&self) {
        let mut front = self.lock();
        while !front.closed {
            let poisoned = "nothing panics while it is held";
            front = match front.pending_since.map(|since| HANDOVER.saturating_sub(since.elapsed())) {
                None => self.changed.wait(front).expect(poisoned),
                Some(Duration::ZERO) => {
                    self.hand_over(&mut front);
                    front
                }
                Some(left) => self.changed.wait_timeout(front, left).expect(poisoned).0,
            };
        }
    }

    fn close(&self) {
        let mut front = self.lock();
        self.hand_over(&mut front);
        front.closed = true;
        front.queues.clear();
        self.changed.notify_all();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.handle.shared.close();
    }
}

#[cfg(test)]
mod tests;

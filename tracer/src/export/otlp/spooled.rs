//! Sends spans to a collector that may be away, with a [`Spool`] behind it.
//!
//! One request is on its way at a time. While the collector takes them, new spans are sent from memory as without a spool.
//! When it does not take one (no connection, no answer, a status that may be repeated), that request and all that come
//! go to the spool, and the oldest of them is tried again and again, with the waits of a [`Retry`](super::Retry) and what the
//! collector asks for. When it takes one, the spool is sent in the order of its requests, turn by turn with new spans, and
//! with a pause after each that is as long as that one took: half of what the collector can do is left to others.
//!
//! What is in memory is at most one request and an eighth of the queue; what comes while a collector is slow or
//! does not answer goes to the spool, the request on its way with it. At the end, and when the time for that is
//! over, everything goes there that could not be sent.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::client::{OtlpClient, Outcome, wait};
use super::encode::{Encoder, Request};
use super::{MAX_REQUEST_BYTES, Retry};
use crate::export::spool::{Segment, Spool, Unread};
use crate::export::{Batch, Cause, Feed, Tally};

/// Part of the queue that may be held while a request is on its way.
const HELD_SHARE: u64 = 8;
/// Every so many failures in a row another request is tried: perhaps it is the oldest one that fails, not the collector.
const TRY_ANOTHER: u32 = 4;
/// A request that failed so often while others were taken is given up.
const MAX_OUTRUN: u8 = 5;
/// The beginning and the end of spooling are told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Exports until the feed ends.
pub(super) async fn run(
    mut client: OtlpClient,
    spool: Spool,
    feed: Feed,
    max_batch_size: usize,
    schedule_delay: Duration,
) {
    let mut sender = Sender::new(client.retry(), spool, feed, max_batch_size, schedule_delay);
    while let Some(body) = sender.next().await {
        let start = Instant::now();
        let outcome = sender.taking(client.send_once(body)).await;
        sender.settle(outcome, start.elapsed());
    }
}

/// The request that is on its way.
struct Current {
    request: Request,
    /// Where it is on disk, if it is.
    segment: Option<Segment>,
}

struct Sender {
    spool: Spool,
    feed: Feed,
    tally: Arc<Tally>,
    encoder: Encoder,
    max_batch_size: u64,
    max_held: u64,
    schedule_delay: Duration,
    retry: Retry,
    /// Batches that wait for others of their request.
    held: Vec<Arc<Batch>>,
    held_spans: u64,
    held_since: Instant,
    /// Encoded, and neither sent nor on disk.
    fresh: VecDeque<Request>,
    current: Option<Current>,
    /// The feed has ended.
    closing: bool,
    /// The collector took (or refused) the last request.
    up: bool,
    failures: u32,
    backoff: Duration,
    /// While it is not up: when it is tried again.
    not_before: Instant,
    /// That is what the collector asked for.
    asked_to_wait: bool,
    /// While it is up: when the spool may be sent from again.
    old_after: Instant,
    /// The last request came from memory.
    old_turn: bool,
    /// Something is on disk, and that was told.
    spooling: bool,
    telling: bool,
    told: Option<Instant>,
}

impl Sender {
    fn new(retry: Retry, mut spool: Spool, feed: Feed, max_batch_size: usize, schedule_delay: Duration) -> Self {
        let (tally, now) = (Arc::clone(feed.tally()), Instant::now());
        let found = spool.recover(&tally);
        if found > 0 {
            tracing::info!("{found} spans that an earlier run left in {} are sent first", spool.folder().display());
        }
        Self {
            spool,
            tally,
            encoder: Encoder::new(max_batch_size, MAX_REQUEST_BYTES),
            max_batch_size: max_batch_size as u64,
            max_held: feed.max_queue_size() / HELD_SHARE,
            feed,
            schedule_delay,
            retry,
            held: Vec::new(),
            held_spans: 0,
            held_since: now,
            fresh: VecDeque::new(),
            current: None,
            closing: false,
            up: true,
            failures: 0,
            backoff: retry.initial,
            not_before: now,
            asked_to_wait: false,
            old_after: now,
            old_turn: true,
            spooling: found > 0,
            telling: found > 0,
            told: None,
        }
    }

    /// Waits for something to send and makes it current. `None`: there will be no more, or not in this life.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let now = Instant::now();
            let due = self.held_since + self.schedule_delay;
            if self.held_spans > 0 && (self.closing || self.held_spans >= self.max_batch_size || now >= due) {
                self.encode();
            }
            let may_try = match self.up {
                true => self.closing || now >= self.old_after,
                false => now >= self.not_before,
            };
            // With nothing on disk, because that refuses too, a new one has to find out.
            let probe = may_try && self.spool.is_empty();
            if !self.up && !probe {
                self.spill();
            }
            self.tell(now);
            if may_try && !self.spool.is_empty() && (self.old_turn || self.fresh.is_empty()) {
                if self.take_old() {
                    break;
                }
                continue;
            }
            if let Some(request) = self.fresh.pop_front() {
                self.current = Some(Current { request, segment: None });
                self.old_turn = true;
                break;
            }
            // What is on disk by now waits for the next life.
            if self.closing {
                return None;
            }
            let old = (!self.spool.is_empty()).then_some(if self.up { self.old_after } else { self.not_before });
            let wake = [old, (self.held_spans > 0).then_some(due)].into_iter().flatten().min();
            tokio::select! {
                biased;
                batch = self.feed.next() => self.hold(batch),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        self.current.as_ref().map(|current| current.request.body.clone())
    }

    /// Takes batches while a request is on its way.
    async fn taking<F: Future>(&mut self, sending: F) -> F::Output {
        let mut sending = std::pin::pin!(sending);
        loop {
            tokio::select! {
                biased;
                outcome = &mut sending => return outcome,
                batch = self.feed.next(), if !self.closing => self.hold(batch),
            }
            if self.held_spans > self.max_held {
                self.secure();
            }
        }
    }

    /// Counts what became of the current request, and whether the collector is there.
    fn settle(&mut self, outcome: Outcome, took: Duration) {
        let Some(Current { request, segment }) = self.current.take() else { return };
        let spans = request.spans;
        if let Outcome::Again { error, after } = outcome {
            self.tally.failed(error);
            self.tally.retried();
            match segment.map_or_else(|| self.spool.write(&request, &self.tally), Ok) {
                Ok(segment) if segment.outrun + u8::from(self.up) >= MAX_OUTRUN => {
                    self.spool.remove(segment, &self.tally);
                    self.tally.dropped(Cause::ExporterGaveUp, spans);
                }
                Ok(mut segment) => {
                    segment.outrun += u8::from(self.up);
                    self.spool.put_back(segment);
                }
                Err(cause) => self.tally.dropped(cause, spans),
            }
            self.down(after);
            return;
        }
        let was_spooled = segment.is_some();
        if let Some(segment) = segment {
            self.spool.remove(segment, &self.tally);
        }
        match outcome {
            Outcome::Delivered(partial) => {
                let taken = partial.taken(spans, &self.tally);
                if was_spooled { self.tally.exported_from_spool(taken) } else { self.tally.exported(taken) }
            }
            Outcome::Refused(error) => {
                self.tally.dropped(Cause::Rejected, spans);
                self.tally.failed(error);
            }
            Outcome::Again { .. } => {}
        }
        self.up = true;
        (self.failures, self.backoff) = (0, self.retry.initial);
        self.old_after = Instant::now() + took;
    }

    /// Takes a batch, or the news that there will be no more.
    fn hold(&mut self, batch: Option<Arc<Batch>>) {
        let Some(batch) = batch else {
            self.closing = true;
            // One more try, unless the collector said when.
            if !self.asked_to_wait {
                self.not_before = Instant::now();
            }
            return;
        };
        if self.held.is_empty() {
            self.held_since = Instant::now();
        }
        self.held_spans += batch.spans.len() as u64;
        self.held.push(batch);
    }

    fn encode(&mut self) {
        let encoded = self.encoder.encode(&self.held);
        encoded.count_oversized(&self.tally);
        self.held.clear();
        self.held_spans = 0;
        self.fresh.extend(encoded.requests);
    }

    /// Moves what is encoded to disk.
    fn spill(&mut self) {
        while let Some(request) = self.fresh.pop_front() {
            match self.spool.write(&request, &self.tally) {
                Ok(segment) => self.spool.put_back(segment),
                Err(cause) => self.tally.dropped(cause, request.spans),
            }
        }
    }

    /// Moves everything to disk. The current request is first, as the oldest; where it cannot be written it has its chance
    /// in memory.
    fn secure(&mut self) {
        if let Some(current) = &mut self.current
            && current.segment.is_none()
        {
            current.segment = self.spool.write(&current.request, &self.tally).ok();
        }
        self.encode();
        self.spill();
    }

    /// Makes a request of the spool current, if it can be read.
    fn take_old(&mut self) -> bool {
        let another = !self.up && self.failures % TRY_ANOTHER == TRY_ANOTHER - 1 && self.spool.len() > 1;
        let Some(segment) = self.spool.take(usize::from(another)) else { return false };
        self.old_turn = false;
        match self.spool.read(&segment) {
            Ok(request) => {
                self.current = Some(Current { request, segment: Some(segment) });
                return true;
            }
            Err(Unread::Damaged(why)) => {
                self.spool.remove(segment, &self.tally);
                self.tally.dropped(Cause::SpoolDamaged, segment.spans());
                self.tally.failed(why);
            }
            Err(Unread::Refused(error)) => {
                self.tally.failed(format!("cannot read the spool {}: {error}", self.spool.folder().display()));
                self.spool.put_back(segment);
                self.down(None);
            }
        }
        false
    }

    /// Says when spooling begins and when the spool is empty again.
    fn tell(&mut self, now: Instant) {
        let spooling = !self.spool.is_empty();
        if spooling == std::mem::replace(&mut self.spooling, spooling) {
            return;
        }
        let folder = self.spool.folder().display();
        if spooling {
            self.telling = self.told.is_none_or(|told| now >= told + TELL_EVERY);
            if self.telling {
                self.told = Some(now);
                tracing::warn!("the collector does not take all spans; they wait for it in {folder}");
            }
        } else if self.telling {
            tracing::info!("the spool {folder} is empty again");
        }
    }

    fn down(&mut self, after: Option<Duration>) {
        self.up = false;
        self.failures += 1;
        self.not_before = Instant::now() + wait(self.backoff, after);
        self.asked_to_wait = after.is_some();
        self.backoff = (self.backoff * 2).min(self.retry.max);
    }
}

/// When it ends in any way but a panic, whose cause may be what is held.
impl Drop for Sender {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        while let Some(batch) = self.feed.try_next() {
            self.hold(Some(batch));
        }
        self.secure();
    }
}

#[cfg(test)]
mod tests;

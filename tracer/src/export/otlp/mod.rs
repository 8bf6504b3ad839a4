//! OTLP over gRPC and HTTP/protobuf, with a [spool](super::spool) or without.

mod client;
pub mod convert;
pub mod encode;
mod grpc;
mod http;
mod settings;
mod spooled;

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use client::{ClientError, OtlpClient, Retry};
pub use settings::{Compression, Headers, Protocol, Settings, SettingsError, Signal, Tls};

use super::spool::Spool;
use super::{Batch, Exporter, Feed};
use encode::Encoder;

const USER_AGENT: &str = concat!("tracer/", env!("CARGO_PKG_VERSION"));

/// Bytes of a request before compression. Receivers made with gRPC's defaults refuse 4 MiB.
pub(super) const MAX_REQUEST_BYTES: usize = 3 << 20;

/// Sends spans to a collector.
#[derive(Debug)]
pub struct OtlpExporter {
    client: OtlpClient,
    max_batch_size: NonZeroUsize,
    schedule_delay: Duration,
    spool: Option<Spool>,
}

impl OtlpExporter {
    /// Up to `max_batch_size` spans go into a request; after the first of them it waits `schedule_delay` for more.
    pub fn new(client: OtlpClient, max_batch_size: NonZeroUsize, schedule_delay: Duration) -> Self {
        Self { client, max_batch_size, schedule_delay, spool: None }
    }

    /// What the collector does not take goes to the spool, instead of being repeated for a while and given up.
    #[must_use]
    pub fn with_spool(self, spool: Spool) -> Self {
        Self { spool: Some(spool), ..self }
    }

    /// Waits for one batch, then for as many as fit into a request. `None`: there will be no more.
    async fn gather(&self, feed: &mut Feed) -> Option<Vec<Arc<Batch>>> {
        let mut batches = vec![feed.next().await?];
        let mut spans = batches[0].spans.len();
        let until = Instant::now() + self.schedule_delay;
        while spans < self.max_batch_size.get() {
            let Ok(Some(batch)) = timeout_at(until, feed.next()).await else {
                break;
            };
            spans += batch.spans.len();
            batches.push(batch);
        }
        Some(batches)
    }
}

impl Exporter for OtlpExporter {
    fn name(&self) -> String {
        format!("otlp:{}", self.client.endpoint())
    }

    fn run(mut self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        if let Some(spool) = self.spool.take() {
            return Box::pin(spooled::run(self.client, spool, feed, self.max_batch_size.get(), self.schedule_delay));
        }
        Box::pin(async move {
            let tally = Arc::clone(feed.tally());
            let mut encoder = Encoder::new(self.max_batch_size.get(), MAX_REQUEST_BYTES);
            while let Some(batches) = self.gather(&mut feed).await {
                let encoded = encoder.encode(&batches);
                drop(batches);
                encoded.count_oversized(&tally);
                for request in encoded.requests {
                    self.client.send(request, &tally).await;
                }
            }
        })
    }
}

//! Sends encoded requests: retries what the specification lets it retry, and counts the outcome.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::time::{Instant, sleep_until};

use super::encode::Request;
use super::grpc::GrpcTransport;
use super::http::HttpTransport;
use super::settings::{Protocol, Settings};
use crate::export::{Cause, Tally};

/// The longest a collector can make this exporter wait: what it asks for is not trusted without a bound.
const MAX_SERVER_DELAY: Duration = Duration::from_secs(120);

/// How failed requests are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait before the first repetition; it doubles each time.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// After this the spans are given up (`OTEL_BSP_EXPORT_TIMEOUT`).
    pub total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(5), total: Duration::from_secs(30) }
    }
}

/// Why there is no client for these settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A TLS file cannot be read.
    #[error("cannot read {}", .path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A TLS file does not hold what it should, or the system has no certificates.
    #[error("cannot set up HTTP with these TLS files")]
    Http(#[source] reqwest::Error),
    /// The same for gRPC.
    #[error("cannot set up gRPC with these TLS files")]
    Grpc(#[source] tonic::transport::Error),
}

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The collector took it, perhaps in part.
    Delivered(Partial),
    /// It may work later.
    Again {
        error: String,
        /// How long the collector asks to wait.
        after: Option<Duration>,
    },
    /// It will never work.
    Refused(String),
}

/// `partial_success`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) rejected: u64,
    pub(super) message: String,
}

impl Partial {
    /// From a response of any signal: they have the same form.
    pub(super) fn of(response: ExportTraceServiceResponse) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        Self { rejected: partial.rejected_spans.try_into().unwrap_or(0), message: partial.error_message }
    }

    /// A success is a success even when its body is not understood.
    pub(super) fn decode(body: &[u8]) -> Self {
        ExportTraceServiceResponse::decode(body).map(Self::of).unwrap_or_default()
    }

    /// How many of these spans the collector took; the others are counted.
    pub(super) fn taken(&self, spans: u64, tally: &Tally) -> u64 {
        let rejected = self.rejected.min(spans);
        if rejected > 0 {
            tally.dropped(Cause::Rejected, rejected);
        }
        if !self.message.is_empty() {
            tally.failed(format!("the collector says: {}", self.message));
        }
        spans - rejected
    }
}

#[derive(Debug)]
enum Transport {
    Grpc(Box<GrpcTransport>),
    Http(HttpTransport),
}

/// A collector to send requests to. It connects when the first is sent.
#[derive(Debug)]
pub struct OtlpClient {
    settings: Settings,
    retry: Retry,
    transport: Transport,
    /// The collector asked to be left alone until then.
    not_before: Option<Instant>,
}

impl OtlpClient {
    /// Reads the TLS files; does not connect yet.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn new(settings: Settings, retry: Retry) -> Result<Self, ClientError> {
        // The first caller decides for the process; whoever was before installed a provider as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = match settings.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(GrpcTransport::new(&settings)?)),
            Protocol::HttpProtobuf => Transport::Http(HttpTransport::new(&settings)?),
        };
        Ok(Self { settings, retry, transport, not_before: None })
    }

    /// Where it sends to, without a password.
    pub fn endpoint(&self) -> String {
        self.settings.name()
    }

    /// How failed requests are repeated.
    pub(super) fn retry(&self) -> Retry {
        self.retry
    }

    /// Sends once.
    pub(super) async fn send_once(&mut self, body: Bytes) -> Outcome {
        let body = self.transport.prepare(body);
        self.attempt(body).await
    }

    /// Sends a request until it has an outcome, and counts it.
    pub async fn send(&mut self, request: Request, tally: &Tally) {
        let (body, spans) = (self.transport.prepare(request.body), request.spans);
        if let Some(until) = self.not_before.take() {
            sleep_until(until).await;
        }
        let give_up = Instant::now() + self.retry.total;
        let mut backoff = self.retry.initial;
        loop {
            let (error, after) = match self.attempt(body.clone()).await {
                Outcome::Delivered(partial) => {
                    tally.exported(partial.taken(spans, tally));
                    return;
                }
                Outcome::Refused(error) => {
                    tally.dropped(Cause::Rejected, spans);
                    return tally.failed(error);
                }
                Outcome::Again { error, after } => (error, after),
            };
            let next = Instant::now() + wait(backoff, after);
            tally.failed(error);
            if next > give_up {
                self.not_before = after.map(|_| next);
                return tally.dropped(Cause::ExporterGaveUp, spans);
            }
            tally.retried();
            sleep_until(next).await;
            backoff = (backoff * 2).min(self.retry.max);
        }
    }

    async fn attempt(&mut self, body: Bytes) -> Outcome {
        let sending = async {
            match &mut self.transport {
                Transport::Grpc(grpc) => grpc.send(body, self.settings.timeout).await,
                Transport::Http(http) => http.send(body).await,
            }
        };
        match tokio::time::timeout(self.settings.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Again {
                error: format!("{}: no answer within {:?}", self.endpoint(), self.settings.timeout),
                after: None,
            },
        }
    }
}

impl Transport {
    /// What can be done once for all attempts.
    fn prepare(&self, body: Bytes) -> Bytes {
        match self {
            Self::Grpc(_) => body,
            Self::Http(http) => http.compress(body),
        }
    }
}

/// How long to wait before the next attempt; `after` is what the collector asks for.
pub(super) fn wait(backoff: Duration, after: Option<Duration>) -> Duration {
    // Half to one and a half times: agents that failed together do not come back together.
    let own = backoff.mul_f64(rand::random_range(0.5..1.5));
    own.max(after.unwrap_or_default().min(MAX_SERVER_DELAY))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::TlsFile { path: path.to_owned(), source })
}

/// An error with all its causes in one line: the outermost alone says only that sending failed.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;

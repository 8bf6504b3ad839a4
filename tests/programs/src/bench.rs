//! What the targets of the benchmark share: the clock, and the SDK that the agent is compared with.

use std::time::Instant;

use anyhow::Result;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use serde_json::{Value, json};
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

/// Decides the size of the message: 3 legs and 7 bytes of text.
pub const ORDER: u64 = 4_727;
/// The message's type, as spans have it.
pub const TYPE: &str = "tracer_test_programs::messages::Order";
const BATCHES: usize = 200;

/// The median of batches: a batch in which another process had the processor does not count.
pub fn timed(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Value> {
    let batch = (count / BATCHES).max(1);
    let mut nanos = Vec::with_capacity(BATCHES);
    let mut processor_nanos = Vec::with_capacity(BATCHES);
    for _ in 0..count / batch {
        let (start, processor_start) = (Instant::now(), processor_time());
        for _ in 0..batch {
            work()?;
        }
        nanos.push(start.elapsed().as_nanos() as u64);
        processor_nanos.push(processor_time() - processor_start);
    }
    let median = |mut nanos: Vec<u64>| {
        nanos.sort_unstable();
        nanos.get(nanos.len() / 2).map(|median| *median as f64 / batch as f64)
    };
    Ok(json!({ "ns": median(nanos), "cpu_ns": median(processor_nanos) }))
}

/// Nanoseconds that this thread has had a processor.
fn processor_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is live; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `tracing` with tracing-opentelemetry, for the whole process, and a tracer of OpenTelemetry's API.
pub fn start_sdk() -> Result<SdkTracer> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Nowhere).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    // Without what the agent's spans do not have: the comparison is of equals.
    let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
    let subscriber = tracing_subscriber::registry().with(layer.with_tracked_inactivity(false));
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(provider.tracer("bench"))
}

/// The span of an encode, as a service would make it; the size is known later.
pub fn encode_span() -> Span {
    info_span!(
        "encode Order",
        otel.kind = "producer",
        tracer.message.operation = "encode",
        tracer.message.type = TYPE,
        tracer.message.size = Empty
    )
}

/// Drops every span: only the making of spans is paid for.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _spans: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

//! What OpenTelemetry's SDK costs in these services, for the benchmark: a span of `tracing` for every step that a service notes,
//! where the agent has one too. They go to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names, or nowhere. The spans are made
//! when the steps are over: their making is what is compared, not their times.

use std::sync::Once;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::info_span;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// A step of an order.
pub fn span(order: u64, name: &'static str) {
    static STARTED: Once = Once::new();
    STARTED.call_once(start);
    drop(info_span!("step", otel.name = name, order));
}

fn start() {
    let provider = SdkTracerProvider::builder();
    let provider = if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
        provider.with_batch_exporter(exporter.expect("the endpoint is an address"))
    } else {
        provider.with_batch_exporter(Nowhere)
    };
    let provider = provider.build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("pipeline"));
    // Without what the agent's spans do not have.
    let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
    // The spans of the gRPC library itself are no part of this.
    let layer = layer.with_tracked_inactivity(false).with_filter(LevelFilter::INFO);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .expect("there is one subscriber");
}

/// Drops every span.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _spans: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

//! What a traced message costs, against the floor of any probe and against spans of an SDK: ns per call, best of many rounds
//! that take turns. `cargo bench -p tracer-shim --features tracing-opentelemetry --bench traced`, as root.
//!
//! The floor is an empty probe on a bare instruction of the same kind in the same run.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic, and documents no derived types")]

#[path = "../tests/support/mod.rs"]
mod support;

use object::{Object, ObjectSymbol};
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use std::hint::black_box;
use std::time::Instant;
use support::{Listener, empty_probe, offsets};
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
    #[prost(double, tag = "3")]
    price: f64,
}

// The instructions of the shim's site and nothing else.
std::arch::global_asm!(
    ".globl bare_site",
    ".type bare_site, @function",
    ".p2align 4",
    "bare_site:",
    ".byte 0x90",
    ".byte 0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0",
    ".byte 0x0f,0x1f,0x44,0,0",
    "ret",
    ".size bare_site, .-bare_site",
);

unsafe extern "C" {
    safe fn bare_site();
}

/// Best nanoseconds per call.
fn best(mut f: impl FnMut()) -> f64 {
    const CALLS: u32 = 2_000;
    let mut best = f64::MAX;
    for _ in 0..100 {
        let start = Instant::now();
        (0..CALLS).for_each(|_| f());
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}

fn bare_site_offset(path: &std::path::Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok("bare_site")).unwrap();
    support::file_offset(&file, symbol.address())
}

/// An exporter that drops everything, so that only the spans themselves are paid for.
#[derive(Debug)]
struct Nowhere;

impl opentelemetry_sdk::trace::SpanExporter for Nowhere {
    async fn export(&self, _: Vec<opentelemetry_sdk::trace::SpanData>) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

fn main() {
    let path = std::env::current_exe().unwrap();
    let order = Order { id: 4_711, symbol: "ACME".to_owned(), price: 12.5 };
    let mut buf = Vec::with_capacity(256);
    let mut plain = || {
        buf.clear();
        prost::Message::encode(black_box(&order), &mut buf).unwrap();
        black_box(&buf);
    };
    let prost = best(&mut plain);
    let mut buf = Vec::with_capacity(256);
    let mut shim = || {
        buf.clear();
        tracer_shim::Message::encode(black_box(&order), &mut buf).unwrap();
        black_box(&buf);
    };
    let _scope = tracer_shim::Span::with_parent(tracer_shim::Context::NONE, "scope").entered();
    let detached = best(&mut shim);
    println!("encode   prost {prost:.1}   shim, nobody listens {detached:.1}");

    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().with_simple_exporter(Nowhere).build();
    let tracer = provider.tracer("bench");
    let api = best(|| {
        let mut span = tracer.start("encode Order");
        plain();
        span.end();
    });
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
    let subscriber = tracing_subscriber::registry().with(layer);
    let tracing = tracing::subscriber::with_default(subscriber, || {
        best(|| tracing::info_span!("encode Order").in_scope(&mut plain))
    });
    println!("encode   OTel API {api:.0}   tracing-opentelemetry {tracing:.0}   (exporter does nothing)");

    for at in offsets() {
        let probe = empty_probe(&path, bare_site_offset(&path) + at, 0).unwrap();
        let floor = best(|| bare_site());
        drop(probe);
        let [of_shim] = &support::sites(&path)[..] else { panic!("one site") };
        let probe = empty_probe(&path, of_shim.offset + at, of_shim.semaphore).unwrap();
        let target = best(&mut shim);
        drop(probe);
        let mut listener = Listener::attach(&path, at).unwrap();
        let mut rounds = 0;
        let attached = best(|| {
            shim();
            rounds += 1;
            if rounds % 500 == 0 {
                listener.drain(|_| {});
            }
        });
        println!(
            "at +{at:<2}   floor {floor:.0}   encode, empty probe {target:.0}: {:.2} x floor   encode, record copied {attached:.0}: \
             {:.2} x floor, {:.2} x tracing-opentelemetry",
            target / floor,
            attached / floor,
            attached / tracing
        );
    }
}

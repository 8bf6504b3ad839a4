//! A process that does one thing many times and says what one time cost.
//!
//! `message N`: encodes and decodes. `encode N`: encodes into a buffer that is kept. `redis ADDRESS N`: a GET on a kept connection.
//! Before each, `sdk` does it in spans of `tracing` with tracing-opentelemetry, `otel` in spans of OpenTelemetry's API; `shim
//! encode N` is the shim's call in place of prost's. `floor N` calls a function that is a `nop5` and a `ret`. The answer is
//! `{"ns": PER TIME, "cpu_ns": PER TIME}`, the latter without waiting. `floor-site` answers with that function's offset in the file.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry::trace::{Span as _, SpanKind, Tracer as _, TracerProvider as _};
use opentelemetry::{KeyValue, trace::SpanBuilder};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use prost::Message;
use redis::{Client, Commands as _, Connection};
use serde_json::{Value, json};
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

/// Decides the size of the message: 3 legs and 7 bytes of text.
const ORDER: u64 = 4_727;
const BATCHES: usize = 200;
const KEY: &str = "bench:key";
const TYPE: &str = "tracer_test_programs::messages::Order";

// What a probe costs at the least: the instruction that Linux 6.18 optimises, as the first of a function that is called.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl bench_nop5",
    ".type bench_nop5, @function",
    ".p2align 4",
    "bench_nop5:",
    ".byte 0x0f,0x1f,0x44,0,0",
    "ret",
    ".size bench_nop5, .-bench_nop5",
);

unsafe extern "C" {
    safe fn bench_nop5();
}

/// Whose spans are made.
#[derive(Clone, Copy)]
enum Spans {
    None,
    Tracing,
    Api,
}

fn main() -> Result<()> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Nowhere).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    // Without what the agent's spans do not have: the comparison is of equals.
    let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
    let subscriber = tracing_subscriber::registry().with(layer.with_tracked_inactivity(false));
    tracing::subscriber::set_global_default(subscriber)?;
    let api = provider.tracer("bench");
    let mut kept: Option<Kept> = None;
    converse(|command, arguments| match command {
        "sdk" | "otel" => {
            let spans = if command == "sdk" { Spans::Tracing } else { Spans::Api };
            let (command, arguments) = arguments.split_first().context("what is in the spans?")?;
            obey(spans, command, arguments, &api, &mut kept)
        }
        "shim" => match arguments {
            ["encode", ..] => shim_encode(number(arguments, 1)?),
            _ => bail!("shim encode N"),
        },
        _ => obey(Spans::None, command, arguments, &api, &mut kept),
    })
}

fn obey(spans: Spans, command: &str, arguments: &[&str], api: &SdkTracer, kept: &mut Option<Kept>) -> Result<Value> {
    match (command, spans) {
        ("message", Spans::None) => message(number(arguments, 0)?),
        ("message", Spans::Tracing) => message_in_tracing(number(arguments, 0)?),
        ("encode", Spans::None) => encode(number(arguments, 0)?),
        ("encode", Spans::Tracing) => encode_in_tracing(number(arguments, 0)?),
        ("encode", Spans::Api) => encode_in_api(number(arguments, 0)?, api),
        ("redis", Spans::None | Spans::Tracing) => {
            let address = arguments.first().context("an address is missing")?;
            let redis = match kept.take() {
                Some(redis) if redis.address == *address => redis,
                _ => Kept::open(address)?,
            };
            let redis = kept.insert(redis);
            let count = number(arguments, 1)?;
            if matches!(spans, Spans::None) { redis.get(count) } else { redis.get_in_tracing(count) }
        }
        ("floor-site", Spans::None) => Ok(json!({ "offset": file_offset(bench_nop5 as *const () as u64)? })),
        ("floor", Spans::None) => timed(number(arguments, 0)?, || {
            bench_nop5();
            Ok(())
        }),
        _ => bail!("unknown command"),
    }
}

/// Where in its file the byte at an address of this process is.
fn file_offset(address: u64) -> Result<u64> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut words = line.split_whitespace();
        let (range, offset) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let (start, end) = range.split_once('-').context("a mapping has a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        if (start..end).contains(&address) {
            return Ok(address - start + u64::from_str_radix(offset, 16)?);
        }
    }
    bail!("{address:#x} is not mapped")
}

/// The median of batches: a batch in which another process had the processor does not count.
fn timed(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Value> {
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

fn message(count: usize) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        black_box(&order).encode(&mut bytes)?;
        black_box(Order::decode(black_box(bytes.as_slice()))?);
        Ok(())
    })
}

fn message_in_tracing(count: usize) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        let span = encode_span();
        span.in_scope(|| black_box(&order).encode(&mut bytes))?;
        span.record("tracer.message.size", bytes.len());
        drop(span);
        let span = info_span!(
            "decode Order",
            otel.kind = "consumer",
            tracer.message.operation = "decode",
            tracer.message.type = TYPE,
            tracer.message.size = bytes.len()
        );
        black_box(span.in_scope(|| Order::decode(black_box(bytes.as_slice())))?);
        Ok(())
    })
}

fn encode_span() -> Span {
    info_span!(
        "encode Order",
        otel.kind = "producer",
        tracer.message.operation = "encode",
        tracer.message.type = TYPE,
        tracer.message.size = Empty
    )
}

fn encode(count: usize) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        black_box(&order).encode(&mut bytes)?;
        black_box(&bytes);
        Ok(())
    })
}

fn encode_in_tracing(count: usize) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        let span = encode_span();
        span.in_scope(|| black_box(&order).encode(&mut bytes))?;
        span.record("tracer.message.size", bytes.len());
        black_box(&bytes);
        Ok(())
    })
}

fn encode_in_api(count: usize, tracer: &SdkTracer) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        let attributes =
            vec![KeyValue::new("tracer.message.operation", "encode"), KeyValue::new("tracer.message.type", TYPE)];
        let builder = SpanBuilder::from_name("encode Order").with_kind(SpanKind::Producer);
        let mut span = tracer.build(builder.with_attributes(attributes));
        black_box(&order).encode(&mut bytes)?;
        span.set_attribute(KeyValue::new("tracer.message.size", bytes.len() as i64));
        span.end();
        black_box(&bytes);
        Ok(())
    })
}

fn shim_encode(count: usize) -> Result<Value> {
    let order = order(ORDER);
    let mut bytes = Vec::with_capacity(1_024);
    timed(count, || {
        bytes.clear();
        tracer_shim::Message::encode(black_box(&order), &mut bytes)?;
        black_box(&bytes);
        Ok(())
    })
}

/// A connection that is opened once, as a service does.
struct Kept {
    address: String,
    port: i64,
    connection: Connection,
}

impl Kept {
    fn open(address: &str) -> Result<Self> {
        let mut connection = Client::open(format!("redis://{address}/"))?.get_connection()?;
        connection.set::<_, _, ()>(KEY, "a value of some bytes")?;
        let port = address.rsplit(':').next().context("no port")?.parse()?;
        Ok(Self { address: address.to_owned(), port, connection })
    }

    fn get(&mut self, count: usize) -> Result<Value> {
        timed(count, || {
            ensure!(self.connection.get::<_, Option<String>>(KEY)?.is_some());
            Ok(())
        })
    }

    fn get_in_tracing(&mut self, count: usize) -> Result<Value> {
        timed(count, || {
            let span = info_span!(
                "GET",
                otel.kind = "client",
                db.system.name = "redis",
                db.operation.name = "GET",
                db.query.text = "GET ?",
                server.address = self.address.as_str(),
                server.port = self.port
            );
            ensure!(span.in_scope(|| self.connection.get::<_, Option<String>>(KEY))?.is_some());
            Ok(())
        })
    }
}

/// Drops every span: only the making of spans is paid for.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _spans: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

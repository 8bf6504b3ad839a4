//! As `bench_target`, in a process that has the shim.
//!
//! `encode N`: encodes into a buffer that is kept, by plain prost; `sdk encode N` in spans of `tracing` with
//! tracing-opentelemetry, `otel encode N` in spans of OpenTelemetry's API, `shim encode N` by the shim. `floor N` calls a function
//! that is a `nop5` and a `ret`; `floor-site` answers with its offset in the file.

use std::hint::black_box;

use anyhow::{Context as _, Result, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Tracer as _};
use opentelemetry_sdk::trace::SdkTracer;
use prost::Message;
use serde_json::Value;
use serde_json::json;
use tracer_test_programs::bench::{ORDER, TYPE, encode_span, start_sdk, timed};
use tracer_test_programs::messages::order;
use tracer_test_programs::{converse, number};

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

fn main() -> Result<()> {
    let api = start_sdk()?;
    converse(|command, arguments| match (command, arguments) {
        ("encode", _) => encode(number(arguments, 0)?),
        ("sdk", ["encode", ..]) => encode_in_tracing(number(arguments, 1)?),
        ("otel", ["encode", ..]) => encode_in_api(number(arguments, 1)?, &api),
        ("shim", ["encode", ..]) => shim_encode(number(arguments, 1)?),
        ("floor-site", _) => Ok(json!({ "offset": file_offset(bench_nop5 as *const () as u64)? })),
        ("floor", _) => timed(number(arguments, 0)?, || {
            bench_nop5();
            Ok(())
        }),
        _ => bail!("unknown command"),
    })
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

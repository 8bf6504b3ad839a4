//! A process that does one thing many times and says what one time cost.
//!
//! `message N`: encodes and decodes. `redis ADDRESS N`: a GET on a kept connection. Before each, `sdk` does it in spans of
//! `tracing` with tracing-opentelemetry. The answer is `{"ns": PER TIME, "cpu_ns": PER TIME}`, the latter without waiting.

use std::hint::black_box;

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message;
use redis::{Client, Commands as _, Connection};
use serde_json::Value;
use tracer_test_programs::bench::{ORDER, TYPE, encode_span, start_sdk, timed};
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};
use tracing::info_span;

const KEY: &str = "bench:key";

fn main() -> Result<()> {
    start_sdk()?;
    let mut kept: Option<Kept> = None;
    converse(|command, arguments| match (command, arguments) {
        ("sdk", ["message", ..]) => message_in_tracing(number(arguments, 1)?),
        ("sdk", ["redis", address, ..]) => Kept::at(&mut kept, address)?.get_in_tracing(number(arguments, 2)?),
        ("message", _) => message(number(arguments, 0)?),
        ("redis", [address, ..]) => Kept::at(&mut kept, address)?.get(number(arguments, 1)?),
        _ => bail!("unknown command"),
    })
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

/// A connection that is opened once, as a service does.
struct Kept {
    address: String,
    port: i64,
    connection: Connection,
}

impl Kept {
    fn at<'a>(kept: &'a mut Option<Self>, address: &str) -> Result<&'a mut Self> {
        let redis = match kept.take() {
            Some(redis) if redis.address == address => redis,
            _ => Self::open(address)?,
        };
        Ok(kept.insert(redis))
    }

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

//! A process that encodes and decodes on command.
//!
//! `messages N`: N rounds of every call; answers with the calls as it timed them. `panics N`: N calls that panic in
//! `catch_unwind` and N in tokio tasks. `errors N`: N decodes that fail and N encodes that fail. `header TRACE SPAN`: encodes and
//! decodes a message that carries a trace header.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, bail, ensure};
use bytes::Buf;
use prost::Message;
use serde_json::{Value, json};
use tracer_proto::tracer::TraceContext;
use tracer_test_programs::messages::{Order, Timed, order, round_one, round_three, round_two};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    converse(|command, arguments| match command {
        "messages" => messages(number(arguments, 0)?),
        "panics" => panics(number(arguments, 0)?, &runtime),
        "errors" => errors(number(arguments, 0)?),
        "header" => match arguments {
            [trace_id, span_id] => header(trace_id, span_id),
            _ => bail!("header TRACE SPAN"),
        },
        _ => bail!("unknown command"),
    })
}

fn messages(rounds: usize) -> Result<Value> {
    let mut log = Vec::with_capacity(rounds * 12);
    for id in 0..rounds as u64 {
        match id % 3 {
            0 => round_one(id, &mut log)?,
            1 => round_two(id, &mut log)?,
            _ => round_three(id, &mut log)?,
        }
    }
    let mut calls: BTreeMap<String, Vec<Timed>> = BTreeMap::new();
    for timed in log {
        calls.entry(format!("{} {}", timed.operation, timed.message)).or_default().push(timed);
    }
    let summary: BTreeMap<String, Value> = calls
        .into_iter()
        .map(|(name, mut timed)| {
            let bytes: usize = timed.iter().map(|call| call.size).sum();
            timed.sort_by_key(|call| call.nanos);
            (name, json!({ "count": timed.len(), "bytes": bytes, "median_ns": timed[timed.len() / 2].nanos }))
        })
        .collect();
    Ok(json!(summary))
}

/// Panics when the decoder has read two bytes.
struct Broken(u8);

impl Buf for Broken {
    fn remaining(&self) -> usize {
        100
    }

    fn chunk(&self) -> &[u8] {
        &[8]
    }

    fn advance(&mut self, _count: usize) {
        self.0 += 1;
        assert!(self.0 < 2, "the buffer is broken");
    }
}

#[inline(never)]
fn decode_broken() -> bool {
    Order::decode(Broken(0)).is_ok()
}

#[inline(never)]
fn decode_broken_elsewhere() -> bool {
    Order::decode(Broken(0)).is_err()
}

fn panics(count: usize, runtime: &tokio::runtime::Runtime) -> Result<Value> {
    std::panic::set_hook(Box::new(|_| {}));
    let mut caught = 0;
    for _ in 0..count {
        caught += usize::from(catch_unwind(AssertUnwindSafe(decode_broken)).is_err());
    }
    let joined = runtime.block_on(async {
        let mut joined = 0;
        for _ in 0..count {
            joined += usize::from(tokio::spawn(async { decode_broken_elsewhere() }).await.is_err());
        }
        joined
    });
    let _ = std::panic::take_hook();
    Ok(json!({ "caught": caught, "joined": joined }))
}

fn errors(count: usize) -> Result<Value> {
    let encoded = order(3).encode_to_vec();
    let (mut decodes, mut encodes) = (0, 0);
    for _ in 0..count {
        decodes += usize::from(Order::decode(&encoded[..encoded.len() - 1]).is_err());
        let mut small = [0; 4];
        encodes += usize::from(order(3).encode(&mut small.as_mut_slice()).is_err());
    }
    Ok(json!({ "decodes": decodes, "encodes": encodes }))
}

fn header(trace_id: &str, span_id: &str) -> Result<Value> {
    let context = TraceContext { trace_id: trace_id.to_owned(), span_id: span_id.to_owned(), sampled: true };
    let message = Order { trace_context: Some(context), ..order(5) };
    let mut bytes = Vec::new();
    message.encode(&mut bytes)?;
    ensure!(Order::decode(bytes.as_slice())? == message);
    Ok(json!({ "size": bytes.len() }))
}

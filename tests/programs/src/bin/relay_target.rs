//! Two processes that share memory: one writes messages there, the other one reads them, and no message has a header.
//!
//! `orders PATH N` encodes N different orders, `heartbeats PATH N` one report N times; `read-orders PATH` and
//! `read-heartbeats PATH` decode what is there. The
//! answer is how many there were.

use std::fs;

use anyhow::{Context as _, Result, bail};
use prost::Message;
use serde_json::{Value, json};
use tracer_test_programs::messages::{Order, Report, order, report};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    converse(|command, arguments| match command {
        "orders" => write(arguments[0], (0..number(arguments, 1)?).map(|id| order(id as u64).encode_to_vec())),
        "heartbeats" => write(arguments[0], (0..number(arguments, 1)?).map(|_| report(1).encode_to_vec())),
        "read-orders" => read(arguments[0], |bytes| Ok(Order::decode(bytes).map(drop)?)),
        "read-heartbeats" => read(arguments[0], |bytes| Ok(Report::decode(bytes).map(drop)?)),
        _ => bail!("unknown command"),
    })
}

/// Frames: length in four bytes, then the message.
fn write(path: &str, messages: impl Iterator<Item = Vec<u8>>) -> Result<Value> {
    let mut memory = Vec::new();
    let mut count = 0;
    for message in messages {
        memory.extend(u32::try_from(message.len())?.to_le_bytes());
        memory.extend(message);
        count += 1;
    }
    fs::write(path, memory)?;
    Ok(json!(count))
}

fn read(path: &str, decode: impl Fn(&[u8]) -> Result<()>) -> Result<Value> {
    let memory = fs::read(path)?;
    let mut rest = &memory[..];
    let mut count = 0;
    while let Some((len, after)) = rest.split_first_chunk() {
        let (message, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize).context("a cut message")?;
        decode(message)?;
        rest = after;
        count += 1;
    }
    Ok(json!(count))
}

//! A small order service: it decodes an order, writes and reads its state in Redis, and encodes a report.
//!
//! `order_target ADDRESS` connects to Redis at ADDRESS. `orders N`: N orders; answers with the number of calls of each kind.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use redis::{Commands, Connection};
use serde_json::{Value, json};
use tracer_test_programs::messages::{Order, order, report};
use tracer_test_programs::{converse, number};

/// For a server that hangs: the test wants an error, not its own deadline.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: order_target ADDRESS")?;
    let mut redis = redis::Client::open(format!("redis://{address}"))?.get_connection_with_timeout(TIMEOUT)?;
    redis.set_read_timeout(Some(TIMEOUT))?;
    let mut next = 0;
    converse(|command, arguments| match command {
        "orders" => orders(number(arguments, 0)?, &mut next, &mut redis),
        _ => bail!("unknown command"),
    })
}

fn orders(count: usize, next: &mut u64, redis: &mut Connection) -> Result<Value> {
    for _ in 0..count {
        let bytes = order(*next).encode_to_vec();
        let answer = if next.is_multiple_of(2) { buy(&bytes, redis)? } else { sell(&bytes, redis)? };
        ensure!(!answer.is_empty());
        *next += 1;
    }
    // The orders themselves are encoded here too, as if a client had sent them.
    Ok(json!({ "decode": count, "encode": 2 * count, "redis": 2 * count }))
}

#[inline(never)]
fn buy(bytes: &[u8], redis: &mut Connection) -> Result<Vec<u8>> {
    let order = Order::decode(bytes)?;
    let state: String = settle(order.id, "bought", redis)?;
    ensure!(state == "bought");
    Ok(report(order.id).encode_to_vec())
}

#[inline(never)]
fn sell(bytes: &[u8], redis: &mut Connection) -> Result<Vec<u8>> {
    let order = Order::decode(bytes)?;
    let state: String = settle(order.id, "sold", redis)?;
    ensure!(state == "sold");
    Ok(report(order.id).encode_to_vec())
}

fn settle(id: u64, state: &str, redis: &mut Connection) -> Result<String> {
    let key = format!("order:{id}");
    let () = redis.set(&key, state)?;
    Ok(redis.get(&key)?)
}

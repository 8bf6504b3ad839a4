//! A small order service: it decodes an order, writes and reads its state in Redis, and encodes a report. The orders come
//! from a client on another thread, which encodes them.
//!
//! `order_target ADDRESS` connects to Redis at ADDRESS. `orders N`: N orders; answers with the number of calls of each kind.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

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
    let client = Client::start();
    let mut next = 0;
    converse(|command, arguments| match command {
        "orders" => orders(number(arguments, 0)?, &mut next, &client, &mut redis),
        _ => bail!("unknown command"),
    })
}

/// Sends the order that it is asked for.
struct Client {
    wanted: Sender<u64>,
    orders: Receiver<Vec<u8>>,
}

impl Client {
    fn start() -> Self {
        let (wanted, asked) = mpsc::channel();
        let (sent, orders) = mpsc::channel();
        thread::spawn(move || asked.into_iter().try_for_each(|id| sent.send(order(id).encode_to_vec())));
        Self { wanted, orders }
    }

    fn order(&self, id: u64) -> Result<Vec<u8>> {
        self.wanted.send(id)?;
        Ok(self.orders.recv()?)
    }
}

fn orders(count: usize, next: &mut u64, client: &Client, redis: &mut Connection) -> Result<Value> {
    for _ in 0..count {
        let bytes = client.order(*next)?;
        let answer = if next.is_multiple_of(2) { buy(&bytes, redis)? } else { sell(&bytes, redis)? };
        ensure!(!answer.is_empty());
        *next += 1;
    }
    // An order and its report are encoded.
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

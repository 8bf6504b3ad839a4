//! A service with the shim: decodes orders, asks Redis, encodes answers.
//!
//! `sync ADDRESS N`: on one thread. `tasks ADDRESS N`: N orders on 64 tokio tasks, with awaits between decode, GET and encode.
//! `flows ADDRESS N`: the same tasks without any scope, as services that only change their import have them.
//! `threads ADDRESS N`: decodes on one thread, asks and answers on another, through a queue. Each GET asks for the order's
//! own key, and the answer lists `[order, trace, span]`: the context that was active then.

use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use redis::{Client, Commands as _, Connection};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracer_shim::{Context, FutureExt as _, Message as _, Traced};
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    tracer_shim::init("shim-target", &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    converse(|command, arguments| {
        let address = arguments.first().context("an address is missing")?;
        let count = number(arguments, 1)? as u64;
        let seen = match command {
            "sync" => sync(address, count)?,
            "tasks" => runtime.block_on(tasks(address, count, true))?,
            "flows" => runtime.block_on(tasks(address, count, false))?,
            "threads" => threads(address, count)?,
            _ => bail!("unknown command"),
        };
        Ok(json!(seen))
    })
}

fn connect(address: &str) -> Result<Connection> {
    Ok(Client::open(format!("redis://{address}/"))?.get_connection()?)
}

/// What comes in from a sender that starts a trace for each order.
fn incoming(id: u64) -> Vec<u8> {
    let _root = tracer_shim::Span::with_parent(Context::NONE, "order").entered();
    order(id).encode_to_vec()
}

fn ask(connection: &mut Connection, order: &Order) -> Result<Value> {
    let context = Context::current();
    connection.get::<_, Option<String>>(format!("order:{}", order.id))?;
    Ok(json!([order.id, context.trace_id().to_string(), context.span_id().to_string()]))
}

fn sync(address: &str, count: u64) -> Result<Vec<Value>> {
    let mut connection = connect(address)?;
    let mut seen = Vec::new();
    for id in 0..count {
        let order = Order::decode(incoming(id).as_slice())?;
        seen.push(ask(&mut connection, &order)?);
        order.encode_to_vec();
    }
    Ok(seen)
}

async fn tasks(address: &str, count: u64, scoped: bool) -> Result<Vec<Value>> {
    let mut tasks = JoinSet::new();
    for task in 0..64_u64 {
        let mut connection = connect(address)?;
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for id in (task..count).step_by(64) {
                let order = Order::decode(incoming(id).as_slice())?;
                let context = Context::current();
                let handled = async {
                    tokio::task::yield_now().await;
                    let asked = ask(&mut connection, &order)?;
                    tokio::task::yield_now().await;
                    order.encode_to_vec();
                    anyhow::Ok(asked)
                };
                seen.push(if scoped { handled.with_context(context).await? } else { handled.await? });
            }
            anyhow::Ok(seen)
        });
    }
    let mut seen = Vec::new();
    while let Some(done) = tasks.join_next().await {
        seen.extend(done??);
    }
    Ok(seen)
}

fn threads(address: &str, count: u64) -> Result<Vec<Value>> {
    let (queue, work) = mpsc::channel::<Traced<Order>>();
    let mut connection = connect(address)?;
    let worker = thread::spawn(move || -> Result<Vec<Value>> {
        let mut seen = Vec::new();
        for item in work {
            let (order, context) = item.into_parts();
            let _active = context.attach();
            seen.push(ask(&mut connection, &order)?);
            order.encode_to_vec();
        }
        Ok(seen)
    });
    for id in 0..count {
        let order = Order::decode(incoming(id).as_slice())?;
        queue.send(Traced::new(order))?;
    }
    drop(queue);
    worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))?
}

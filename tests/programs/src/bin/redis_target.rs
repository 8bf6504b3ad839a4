//! A process that talks to Redis on command, in every way that redis-rs has.
//!
//! Each command takes the server's address and a count: `sync`, `resp3`, `pipelines`, `transactions`, `multiplexed`, `errors`,
//! `blocking`, `pubsub`, and `large ADDRESS BYTES`. `flow ADDRESS N` handles N messages: decode, GET, encode. The answer is what
//! was done, by Redis command.

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message;
use redis::{AsyncCommands as _, Client, Commands as _, Connection, RedisResult};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut kept: Option<Connection> = None;
    converse(|command, arguments| {
        let address = arguments.first().context("an address is missing")?;
        let count = number(arguments, 1)?;
        match command {
            "open" => {
                kept = Some(connect(address, "")?);
                Ok(json!(count))
            }
            "kept" => sync(kept.as_mut().context("open first")?, count),
            "sync" => sync(&mut connect(address, "")?, count),
            "resp3" => sync(&mut connect(address, "?protocol=resp3")?, count),
            "pipelines" => pipelines(&mut connect(address, "")?, count),
            "transactions" => transactions(&mut connect(address, "")?, count),
            "multiplexed" => runtime.block_on(multiplexed(address, count)),
            "errors" => errors(&mut connect(address, "")?, count),
            "blocking" => blocking(&mut connect(address, "")?, count),
            "pubsub" => pubsub(address, count),
            "large" => large(&mut connect(address, "")?, count),
            "database" => database(&mut connect(address, "")?, count),
            "flow" => flow(&mut connect(address, "")?, count),
            _ => bail!("unknown command"),
        }
    })
}

fn connect(address: &str, parameters: &str) -> Result<Connection> {
    Ok(Client::open(format!("redis://{address}/{parameters}"))?.get_connection()?)
}

fn sync(connection: &mut Connection, count: usize) -> Result<Value> {
    for index in 0..count {
        let key = format!("key:{}", index % 100);
        match index % 5 {
            0 => connection.set::<_, _, ()>(&key, "x".repeat(index % 300))?,
            1 => drop(connection.get::<_, Option<String>>(&key)?),
            2 => drop(connection.incr::<_, _, i64>("counter", 1)?),
            3 => connection.hset::<_, _, _, ()>("hash", &key, index)?,
            _ => drop(connection.hgetall::<_, Vec<(String, String)>>("hash")?),
        }
    }
    Ok(json!(count))
}

fn pipelines(connection: &mut Connection, count: usize) -> Result<Value> {
    for _ in 0..count / 50 {
        let mut pipeline = redis::pipe();
        for index in 0..25 {
            pipeline.set(format!("key:{index}"), "x".repeat(index * 10)).ignore().get(format!("key:{index}"));
        }
        let values: Vec<String> = pipeline.query(connection)?;
        ensure!(values.len() == 25);
    }
    Ok(json!(count / 50 * 50))
}

fn transactions(connection: &mut Connection, count: usize) -> Result<Value> {
    for _ in 0..count {
        let (value,): (i64,) = redis::pipe().atomic().set("in", 1).ignore().incr("in", 1).query(connection)?;
        ensure!(value == 2);
    }
    Ok(json!(count * 4))
}

async fn multiplexed(address: &str, count: usize) -> Result<Value> {
    let client = Client::open(format!("redis://{address}/"))?;
    let connection = client.get_multiplexed_async_connection().await?;
    let mut tasks = JoinSet::new();
    for task in 0..64_usize {
        let mut connection = connection.clone();
        let share = count / 64 + usize::from(task < count % 64);
        tasks.spawn(async move {
            for index in 0..share {
                let key = format!("task:{task}");
                if index % 2 == 0 {
                    connection.set::<_, _, ()>(&key, index).await?;
                } else {
                    connection.get::<_, Option<usize>>(&key).await?;
                }
            }
            RedisResult::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(json!(count))
}

fn errors(connection: &mut Connection, count: usize) -> Result<Value> {
    connection.set::<_, _, ()>("text", "not a list")?;
    for _ in 0..count {
        ensure!(connection.lpush::<_, _, i64>("text", 1).is_err());
    }
    Ok(json!(count))
}

fn blocking(connection: &mut Connection, count: usize) -> Result<Value> {
    for _ in 0..count {
        ensure!(connection.blpop::<_, Option<(String, String)>>("nothing", 0.01)?.is_none());
    }
    Ok(json!(count))
}

fn pubsub(address: &str, count: usize) -> Result<Value> {
    let mut subscriber = connect(address, "")?;
    let mut publisher = connect(address, "")?;
    let mut channel = subscriber.as_pubsub();
    channel.subscribe("news")?;
    for index in 0..count {
        publisher.publish::<_, _, i64>("news", index)?;
        ensure!(channel.get_message()?.get_payload::<usize>()? == index);
    }
    channel.unsubscribe("news")?;
    Ok(json!(count))
}

fn large(connection: &mut Connection, bytes: usize) -> Result<Value> {
    connection.set::<_, _, ()>("large", vec![b'x'; bytes])?;
    ensure!(connection.get::<_, Vec<u8>>("large")?.len() == bytes);
    connection.del::<_, ()>("large")?;
    Ok(json!(bytes))
}

fn database(connection: &mut Connection, count: usize) -> Result<Value> {
    redis::cmd("SELECT").arg(count).query::<()>(connection)?;
    connection.set::<_, _, ()>("there", 1)?;
    Ok(json!(count))
}

fn flow(connection: &mut Connection, count: usize) -> Result<Value> {
    for id in 0..count as u64 {
        let bytes = order(id).encode_to_vec();
        let order = decode(&bytes)?;
        connection.get::<_, Option<String>>(format!("order:{}", order.id))?;
        let mut answer = Vec::new();
        order.encode(&mut answer)?;
        ensure!(answer == bytes);
    }
    Ok(json!(count))
}

#[inline(never)]
fn decode(bytes: &[u8]) -> Result<Order> {
    Ok(Order::decode(bytes)?)
}

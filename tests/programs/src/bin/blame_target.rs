//! A service that uses one Redis connection, for tests of who waits for whom.
//!
//! `connect URL`, then: `run N COMMAND ARGUMENTS...`, `scan COUNT` (the whole keyspace), `pipeline N`, `transaction N`,
//! `lua MILLISECONDS`.

use anyhow::{Context as _, Result, bail};
use redis::{Client, Connection, Value as Reply};
use serde_json::{Value, json};
use tracer_test_programs::{converse, number};

/// Keeps the server busy by its own clock.
const BUSY: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end
local until_ms = now() + ARGV[1]
while now() < until_ms do end
return 1";

fn main() -> Result<()> {
    let mut kept: Option<Connection> = None;
    converse(|command, arguments| {
        if command == "connect" {
            let url = *arguments.first().context("an URL is missing")?;
            kept = Some(Client::open(url)?.get_connection()?);
            return Ok(json!(0));
        }
        let connection = kept.as_mut().context("connect first")?;
        let count = number(arguments, 0)?;
        match command {
            "run" => run(connection, count, &arguments[1..]),
            "scan" => scan(connection, count),
            "pipeline" => pipeline(connection, count, false),
            "transaction" => pipeline(connection, count, true),
            "lua" => {
                redis::cmd("EVAL").arg(BUSY).arg(0).arg(count).query::<i64>(connection)?;
                Ok(json!(count))
            }
            _ => bail!("unknown command"),
        }
    })
}

fn run(connection: &mut Connection, count: usize, words: &[&str]) -> Result<Value> {
    let (name, arguments) = words.split_first().context("a command is missing")?;
    for _ in 0..count {
        // Whatever the answer is: some commands are meant to fail or to time out.
        let _ = redis::cmd(name).arg(arguments).query::<Reply>(connection);
    }
    Ok(json!(count))
}

fn scan(connection: &mut Connection, count: usize) -> Result<Value> {
    let (mut cursor, mut keys) = (0u64, 0);
    loop {
        let (next, found): (u64, Vec<String>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(count).query(connection)?;
        keys += found.len();
        cursor = next;
        if cursor == 0 {
            return Ok(json!(keys));
        }
    }
}

fn pipeline(connection: &mut Connection, count: usize, atomic: bool) -> Result<Value> {
    let mut pipeline = redis::pipe();
    if atomic {
        pipeline.atomic();
    }
    for index in 0..count {
        pipeline.set(format!("pipelined:{index}"), index).ignore();
    }
    pipeline.query::<()>(connection)?;
    Ok(json!(count))
}

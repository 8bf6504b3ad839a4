//! A process that talks to MySQL on command, as users of mysql_async do.
//!
//! Each command takes the server's URL and a count: `setup`, `text`, `prepared`, `errors`, `multi`, `killed`, `mixed`, `infile`,
//! `large URL BYTES`, `tasks`, `slow URL MILLIS`. `open` keeps a connection with a prepared statement, which `kept` uses. `flow`
//! handles messages: decode, query, encode.

use anyhow::{Context as _, Result, bail, ensure};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, Statement, params};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut kept: Option<(Conn, Statement)> = None;
    converse(|command, arguments| {
        let url = arguments.first().context("an URL is missing")?;
        let count = number(arguments, 1)?;
        runtime.block_on(async {
            match command {
                "open" => {
                    let mut connection = connect(url).await?;
                    let statement = connection.prep("SELECT note FROM orders WHERE id = ?").await?;
                    kept = Some((connection, statement));
                    Ok(json!(count))
                }
                "kept" => {
                    let (connection, statement) = kept.as_mut().context("open first")?;
                    for id in 0..count {
                        let _: Option<String> = connection.exec_first(&*statement, (id,)).await?;
                        connection.query_drop(format!("SELECT {id}")).await?;
                    }
                    Ok(json!(2 * count))
                }
                "tasks" => tasks(url, count).await,
                _ => {
                    let mut connection = connect(url).await?;
                    let answer = on(&mut connection, command, count).await;
                    if command != "killed" {
                        connection.disconnect().await?;
                    }
                    answer
                }
            }
        })
    })
}

async fn connect(url: &str) -> Result<Conn> {
    // Settings that the driver would ask the server for with a query of its own.
    let options =
        OptsBuilder::from_opts(Opts::from_url(url)?).max_allowed_packet(Some(128 << 20)).wait_timeout(Some(600));
    Ok(Conn::new(options.prefer_socket(false)).await?)
}

async fn on(connection: &mut Conn, command: &str, count: usize) -> Result<Value> {
    match command {
        "setup" => setup(connection, count).await,
        "text" => text(connection, count).await,
        "prepared" => prepared(connection, count).await,
        "errors" => errors(connection, count).await,
        "multi" => multi(connection, count).await,
        "mixed" => mixed(connection, count).await,
        "large" => large(connection, count).await,
        "killed" => killed(connection).await,
        "slow" => {
            connection.query_drop(format!("SELECT SLEEP({})", count as f64 / 1000.0)).await?;
            connection.query_drop("SELECT 1").await?;
            Ok(json!(2))
        }
        "flow" => flow(connection, count).await,
        _ => bail!("unknown command"),
    }
}

async fn setup(connection: &mut Conn, rows: usize) -> Result<Value> {
    connection.query_drop("DROP TABLE IF EXISTS orders").await?;
    connection.query_drop("CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(100), data LONGBLOB)").await?;
    for first in (0..rows).step_by(100) {
        let values: Vec<String> =
            (first..rows.min(first + 100)).map(|id| format!("({id}, 'note {id}', NULL)")).collect();
        connection.query_drop(format!("INSERT INTO orders VALUES {}", values.join(", "))).await?;
    }
    Ok(json!(rows))
}

async fn text(connection: &mut Conn, count: usize) -> Result<Value> {
    for id in 0..count {
        match id % 3 {
            0 => drop(
                connection
                    .query::<(i32, String), _>(format!("SELECT id, note FROM orders WHERE id < {}", id % 50))
                    .await?,
            ),
            1 => {
                connection
                    .query_drop(format!("UPDATE orders SET note = 'secret note {id}' WHERE id = {}", id % 50))
                    .await?
            }
            _ => drop(connection.query::<i32, _>("SELECT id FROM orders WHERE id = -1").await?),
        }
    }
    Ok(json!(count))
}

async fn prepared(connection: &mut Conn, count: usize) -> Result<Value> {
    let select = connection.prep("SELECT id, note FROM orders WHERE id BETWEEN :low AND :high").await?;
    let update = connection.prep("UPDATE orders SET note = ? WHERE id = ?").await?;
    for id in 0..count / 2 {
        let rows: Vec<(i32, String)> = connection.exec(&select, params! { "low" => 0, "high" => id % 40 }).await?;
        ensure!(rows.len() == id % 40 + 1, "{} rows", rows.len());
        connection.exec_drop(&update, (format!("prepared secret {id}"), id % 50)).await?;
    }
    connection.close(select).await?;
    connection.close(update).await?;
    Ok(json!(count))
}

async fn errors(connection: &mut Conn, count: usize) -> Result<Value> {
    for _ in 0..count {
        ensure!(connection.query_drop("SELECT secret FROM not_there").await.is_err());
        ensure!(connection.query_drop("SELEKT 1").await.is_err());
        ensure!(connection.prep("SELECT * FROM not_there_either").await.is_err());
    }
    Ok(json!(3 * count))
}

async fn multi(connection: &mut Conn, count: usize) -> Result<Value> {
    for _ in 0..count {
        let mut result = connection
            .query_iter("SELECT 1; UPDATE orders SET note = 'x' WHERE id = 1; SELECT id FROM orders LIMIT 7")
            .await?;
        ensure!(result.collect::<i32>().await?.len() == 1);
        result.collect::<i32>().await?;
        ensure!(result.collect::<i32>().await?.len() == 7);
    }
    Ok(json!(count))
}

/// Everything once: ping, schema, reset, statements in a transaction.
async fn mixed(connection: &mut Conn, count: usize) -> Result<Value> {
    for _ in 0..count {
        connection.ping().await?;
        connection.query_drop("USE mysql").await?;
        connection.query_drop("SELECT 1").await?;
        connection.query_drop("USE shop").await?;
        let mut transaction = connection.start_transaction(Default::default()).await?;
        transaction.exec_drop("UPDATE orders SET note = ? WHERE id = 3", ("in a transaction",)).await?;
        transaction.commit().await?;
        connection.reset().await?;
    }
    Ok(json!(count))
}

async fn large(connection: &mut Conn, bytes: usize) -> Result<Value> {
    connection.query_drop("DELETE FROM orders WHERE id = 1000000").await?;
    connection.exec_drop("INSERT INTO orders VALUES (1000000, 'large', ?)", (vec![b'x'; bytes],)).await?;
    let text: Option<Vec<u8>> = connection.query_first("SELECT data FROM orders WHERE id = 1000000").await?;
    ensure!(text.is_some_and(|data| data.len() == bytes));
    let binary: Option<Vec<u8>> = connection.exec_first("SELECT data FROM orders WHERE id = ?", (1_000_000,)).await?;
    ensure!(binary.is_some_and(|data| data.len() == bytes));
    connection.query_drop(format!("SELECT LENGTH('{}')", "y".repeat(bytes))).await?;
    Ok(json!(bytes))
}

async fn killed(connection: &mut Conn) -> Result<Value> {
    let id = connection.id();
    // The answer is not waited for: the test kills the connection while it sleeps.
    println!("{id}");
    ensure!(connection.query_drop("SELECT SLEEP(600)").await.is_err());
    Ok(json!(id))
}

async fn tasks(url: &str, count: usize) -> Result<Value> {
    let pool = Pool::new(Opts::from_url(url)?);
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let pool = pool.clone();
        let share = count / 16 + usize::from(task < count % 16);
        tasks.spawn(async move {
            for _ in 0..share {
                let mut connection = pool.get_conn().await?;
                connection.exec_drop("SELECT note FROM orders WHERE id = ?", (task,)).await?;
            }
            mysql_async::Result::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    pool.disconnect().await?;
    Ok(json!(count))
}

async fn flow(connection: &mut Conn, count: usize) -> Result<Value> {
    for id in 0..count as u64 {
        let bytes = order(id).encode_to_vec();
        let order = decode(&bytes)?;
        let query = connection.query_drop(format!("SELECT note FROM orders WHERE id = {}", order.id));
        query.await?;
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

//! A process that talks to PostgreSQL on command, as users of tokio-postgres and sqlx do.
//!
//! Each command takes the server's URL and a count: `setup`, `simple`, `prepared`, `pipelined`, `transactions`, `copies`, `errors`,
//! `sqlx`, `sqlx-copies`, `large URL BYTES`, `slow URL MILLIS`, `cancelled`, `killed`, `roles`. `open` keeps a connection with a
//! prepared statement, which `kept` uses. `flow` handles messages: decode, query, encode. Each answers with the number of statements.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{SinkExt as _, TryStreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio_postgres::{Client, NoTls, Statement};
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut kept: Option<(Client, Statement)> = None;
    converse(|command, arguments| {
        let url = arguments.first().context("an URL is missing")?;
        let count = number(arguments, 1)?;
        runtime.block_on(async {
            match command {
                "open" => {
                    let client = connect(url).await?;
                    let statement = client.prepare("SELECT note FROM orders WHERE id = $1").await?;
                    kept = Some((client, statement));
                    Ok(json!(count))
                }
                "kept" => {
                    let (client, statement) = kept.as_ref().context("open first")?;
                    for id in 0..count as i32 {
                        client.query(statement, &[&(id % 10)]).await?;
                        client.simple_query(&format!("SELECT {id}")).await?;
                    }
                    Ok(json!(2 * count))
                }
                "sqlx" | "sqlx-copies" | "flow" => {
                    let mut connection = sqlx::PgConnection::connect(url).await?;
                    let done = match command {
                        "sqlx" => by_sqlx(&mut connection, count).await,
                        "flow" => flow(&mut connection, count).await,
                        _ => copies_by_sqlx(&mut connection, count).await,
                    };
                    connection.close().await?;
                    done
                }
                _ => on(connect(url).await?, command, count).await,
            }
        })
    })
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client; how, is said there.
    tokio::spawn(connection);
    Ok(client)
}

async fn on(mut client: Client, command: &str, count: usize) -> Result<Value> {
    match command {
        "setup" => setup(&client, count).await,
        "simple" => simple(&client, count).await,
        "prepared" => prepared(&client, count).await,
        "pipelined" => pipelined(&client, count).await,
        "transactions" => transactions(&mut client, count).await,
        "copies" => copies(&client, count).await,
        "errors" => errors(&client, count).await,
        "large" => large(&client, count).await,
        "cancelled" => cancelled(&client).await,
        "killed" => killed(&client).await,
        "roles" => roles(&client, count).await,
        "slow" => {
            client.simple_query(&format!("SELECT pg_sleep({})", count as f64 / 1000.0)).await?;
            client.simple_query("SELECT 1").await?;
            Ok(json!(2))
        }
        _ => bail!("unknown command"),
    }
}

async fn setup(client: &Client, rows: usize) -> Result<Value> {
    client.batch_execute("DROP TABLE IF EXISTS orders").await?;
    client.batch_execute("CREATE TABLE orders (id INT PRIMARY KEY, note TEXT, data BYTEA)").await?;
    client.batch_execute("DROP TABLE IF EXISTS copied").await?;
    client.batch_execute("CREATE TABLE copied (id INT, note TEXT)").await?;
    client
        .batch_execute(&format!("INSERT INTO orders SELECT i, 'note ' || i FROM generate_series(0, {rows} - 1) AS i"))
        .await?;
    Ok(json!(5))
}

async fn simple(client: &Client, count: usize) -> Result<Value> {
    for id in 0..count {
        let sql = match id % 3 {
            0 => format!("SELECT id, note FROM orders WHERE id < {}", id % 50),
            1 => format!("UPDATE orders SET note = 'secret note {id}' WHERE id = {}", id % 50),
            _ => format!("SELECT id FROM orders WHERE note = E'it\\'s secret {id}' OR note = $$secret$$"),
        };
        client.simple_query(&sql).await?;
    }
    Ok(json!(count))
}

async fn prepared(client: &Client, count: usize) -> Result<Value> {
    let select = client.prepare("SELECT id, note FROM orders WHERE id BETWEEN $1 AND $2").await?;
    let update = client.prepare("UPDATE orders SET note = $1 WHERE id = $2").await?;
    for id in 0..count as i32 / 2 {
        let rows = client.query(&select, &[&0_i32, &(id % 40)]).await?;
        ensure!(rows.len() as i32 == id % 40 + 1, "{} rows", rows.len());
        client.execute(&update, &[&format!("prepared secret {id}"), &(id % 50)]).await?;
    }
    Ok(json!(count))
}

/// Many at once on one connection, each with a Sync of its own.
async fn pipelined(client: &Client, count: usize) -> Result<Value> {
    let select = client.prepare("SELECT note FROM orders WHERE id = $1").await?;
    let ids: Vec<i32> = (0..count as i32).map(|id| id % 50).collect();
    for ids in ids.chunks(32) {
        let params: Vec<[&(dyn tokio_postgres::types::ToSql + Sync); 1]> = ids.iter().map(|id| [id as _]).collect();
        let rows = try_join_all(params.iter().map(|params| client.query(&select, params))).await?;
        ensure!(rows.iter().all(|rows| rows.len() == 1));
    }
    Ok(json!(count))
}

async fn transactions(client: &mut Client, count: usize) -> Result<Value> {
    for id in 0..count as i32 {
        let transaction = client.transaction().await?;
        transaction.execute("DELETE FROM orders WHERE id = $1", &[&(1_000_000 + id)]).await?;
        transaction.execute("INSERT INTO orders (id) VALUES ($1)", &[&(1_000_000 + id)]).await?;
        transaction.commit().await?;
    }
    Ok(json!(4 * count))
}

async fn copies(client: &Client, count: usize) -> Result<Value> {
    client.batch_execute("DELETE FROM copied").await?;
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY copied (id, note) FROM STDIN").await?);
    for id in 0..count {
        sink.send(Bytes::from(format!("{id}\tcopied secret {id}\n"))).await?;
    }
    ensure!(sink.as_mut().finish().await? == count as u64);
    // One that the client gives up.
    let sink = client.copy_in::<_, Bytes>("COPY copied (id) FROM STDIN").await?;
    drop(sink);
    let rows = client.copy_out("COPY (SELECT id, note FROM copied) TO STDOUT").await?;
    let chunks: Vec<Bytes> = rows.try_collect().await?;
    ensure!(chunks.iter().map(|chunk| chunk.split(|byte| *byte == b'\n').count() - 1).sum::<usize>() == count);
    Ok(json!(4))
}

async fn errors(client: &Client, count: usize) -> Result<Value> {
    for _ in 0..count {
        ensure!(client.simple_query("SELECT secret FROM not_there").await.is_err());
        ensure!(client.simple_query("SELEKT 1").await.is_err());
        ensure!(client.prepare("SELECT * FROM not_there_either").await.is_err());
        ensure!(client.execute("INSERT INTO orders (id) VALUES ($1)", &[&0_i32]).await.is_err());
    }
    Ok(json!(4 * count))
}

async fn large(client: &Client, bytes: usize) -> Result<Value> {
    client.batch_execute("DELETE FROM orders WHERE id = 3000000").await?;
    client.execute("INSERT INTO orders VALUES (3000000, 'large', $1)", &[&vec![b'x'; bytes]]).await?;
    let row = client.query_one("SELECT data FROM orders WHERE id = 3000000", &[]).await?;
    ensure!(row.get::<_, &[u8]>(0).len() == bytes);
    client.simple_query(&format!("SELECT length('{}')", "y".repeat(bytes))).await?;
    Ok(json!(4))
}

/// A query that another connection cancels.
async fn cancelled(client: &Client) -> Result<Value> {
    let token = client.cancel_token();
    let query = client.simple_query("SELECT pg_sleep(600)");
    let cancel = async {
        // The answer to another one says that this one is there. Until it runs, a request to cancel does nothing.
        loop {
            token.cancel_query(NoTls).await?;
            tokio::task::yield_now().await;
        }
        #[expect(unreachable_code, reason = "names the type of the error")]
        Ok::<(), tokio_postgres::Error>(())
    };
    tokio::select! {
        result = query => ensure!(result.is_err()),
        result = cancel => result?,
    }
    Ok(json!(1))
}

async fn killed(client: &Client) -> Result<Value> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
    let pid: i32 = row.get(0);
    // The answer is not waited for: the test ends the server's process while it sleeps.
    println!("{pid}");
    ensure!(client.simple_query("SELECT pg_sleep(600)").await.is_err());
    Ok(json!(pid))
}

async fn roles(client: &Client, count: usize) -> Result<Value> {
    for id in 0..count {
        client.batch_execute(&format!("CREATE ROLE r{id} LOGIN PASSWORD 'secret-{id}'")).await?;
        client.batch_execute(&format!("ALTER ROLE r{id} PASSWORD $$secret-{id}$$")).await?;
        client
            .batch_execute(&format!("ALTER ROLE r{id} SET application_name = 'secret-{id}'; DROP ROLE r{id}"))
            .await?;
    }
    Ok(json!(4 * count))
}

/// The task that asks writes: sqlx has no driver task.
async fn flow(connection: &mut sqlx::PgConnection, count: usize) -> Result<Value> {
    for id in 0..count as u64 {
        let bytes = order(id).encode_to_vec();
        let order = decode(&bytes)?;
        sqlx::query("SELECT note FROM orders WHERE id = $1").bind(order.id as i32).fetch_all(&mut *connection).await?;
        let mut answer = Vec::new();
        order.encode(&mut answer)?;
        ensure!(answer == bytes);
    }
    Ok(json!(count))
}

async fn by_sqlx(connection: &mut sqlx::PgConnection, count: usize) -> Result<Value> {
    for id in 0..count as i32 / 4 {
        let rows: Vec<(i32, Option<String>)> = sqlx::query_as("SELECT id, note FROM orders WHERE id < $1 ORDER BY id")
            .bind(id % 40)
            .fetch_all(&mut *connection)
            .await?;
        ensure!(rows.len() as i32 == id % 40, "{} rows", rows.len());
        let mut transaction = connection.begin().await?;
        sqlx::query("UPDATE orders SET note = $1 WHERE id = $2")
            .bind(format!("sqlx secret {id}"))
            .bind(id % 50)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(json!(count / 4 * 4))
}

async fn copies_by_sqlx(connection: &mut sqlx::PgConnection, count: usize) -> Result<Value> {
    sqlx::query("DELETE FROM copied").execute(&mut *connection).await?;
    let mut copy = connection.copy_in_raw("COPY copied (id, note) FROM STDIN").await?;
    for id in 0..count {
        copy.send(format!("{id}\tsecret {id}\n").into_bytes()).await?;
    }
    ensure!(copy.finish().await? == count as u64);
    Ok(json!(2))
}

#[inline(never)]
fn decode(bytes: &[u8]) -> Result<Order> {
    Ok(Order::decode(bytes)?)
}

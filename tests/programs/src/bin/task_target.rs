//! A service of many tokio tasks on two threads. Each handles its messages with pauses between decode, Redis and encode, so the
//! threads change hands all the time.
//!
//! `own ADDRESS N` handles N messages with a connection for each task, `multiplexed ADDRESS N` with one for all, `lazy ADDRESS N` with
//! one for all that is made by the first handler that needs it. `spawned ADDRESS N` is like `multiplexed`, with a task that the
//! handler spawns for each command. The header of message `id` names the trace `id`; the keys and the size of the report tell which
//! message they are of.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use prost::Message;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::{JoinSet, yield_now};
use tracer_proto::tracer::TraceContext;
use tracer_test_programs::messages::{Order, Report, order};
use tracer_test_programs::{converse, number};

const TASKS: usize = 64;
/// The place of this trace id in an encoded message is where those of others go.
const TEMPLATE: &str = "0123456789abcdef0123456789abcdef";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Encoded once, before anybody looks: a sender is another process.
    let header = TraceContext { trace_id: TEMPLATE.to_owned(), span_id: "00000000000000ff".to_owned(), sampled: true };
    let template = Order { trace_context: Some(header), ..order(3) }.encode_to_vec();
    let mut next = 1;
    converse(|command, arguments| {
        let count = number(arguments, 1)?;
        let ids = next..next + count;
        next += count;
        match command {
            "own" => runtime.block_on(serve(ids, &template, async || Own::connect(arguments[0]).await)),
            "multiplexed" => {
                let client = Client::open(format!("redis://{}/", arguments[0]))?;
                let shared = runtime.block_on(client.get_multiplexed_async_connection())?;
                runtime.block_on(serve(ids, &template, async || Ok(shared.clone())))
            }
            "lazy" => {
                let shared = Lazy(Client::open(format!("redis://{}/", arguments[0]))?, Arc::default());
                runtime.block_on(serve(ids, &template, async || Ok(shared.clone())))
            }
            "spawned" => {
                let client = Client::open(format!("redis://{}/", arguments[0]))?;
                let shared = Spawned(runtime.block_on(client.get_multiplexed_async_connection())?);
                runtime.block_on(serve(ids, &template, async || Ok(shared.clone())))
            }
            _ => bail!("unknown command"),
        }
    })
}

/// What a task does with Redis.
trait Redis: Send + 'static {
    fn get(&mut self, key: String) -> impl Future<Output = Result<()>> + Send;
    fn set(&mut self, key: String, value: usize) -> impl Future<Output = Result<()>> + Send;
}

impl Redis for MultiplexedConnection {
    async fn get(&mut self, key: String) -> Result<()> {
        let _: Option<String> = AsyncCommands::get(self, key).await?;
        Ok(())
    }

    async fn set(&mut self, key: String, value: usize) -> Result<()> {
        Ok(AsyncCommands::set(self, key, value).await?)
    }
}

/// A connection whose driver task is spawned by the handler that comes first.
#[derive(Clone)]
struct Lazy(Client, Arc<OnceCell<MultiplexedConnection>>);

impl Lazy {
    async fn connection(&self) -> Result<MultiplexedConnection> {
        Ok(self.1.get_or_try_init(|| self.0.get_multiplexed_async_connection()).await?.clone())
    }
}

impl Redis for Lazy {
    async fn get(&mut self, key: String) -> Result<()> {
        Redis::get(&mut self.connection().await?, key).await
    }

    async fn set(&mut self, key: String, value: usize) -> Result<()> {
        Redis::set(&mut self.connection().await?, key, value).await
    }
}

/// Each command is given to a task of its own.
#[derive(Clone)]
struct Spawned(MultiplexedConnection);

impl Redis for Spawned {
    async fn get(&mut self, key: String) -> Result<()> {
        let mut connection = self.0.clone();
        tokio::spawn(async move { Redis::get(&mut connection, key).await }).await?
    }

    async fn set(&mut self, key: String, value: usize) -> Result<()> {
        let mut connection = self.0.clone();
        tokio::spawn(async move { Redis::set(&mut connection, key, value).await }).await?
    }
}

/// A connection without a driver task: the task writes and reads by itself.
struct Own(TcpStream);

impl Own {
    async fn connect(address: &str) -> Result<Self> {
        Ok(Self(TcpStream::connect(address).await?))
    }

    async fn ask(&mut self, words: &[&str]) -> Result<()> {
        let arguments = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let request = format!("*{}\r\n{}", words.len(), arguments.collect::<String>());
        self.0.write_all(request.as_bytes()).await?;
        // Every reply here is one line.
        let mut reply = [0; 64];
        let len = self.0.read(&mut reply).await?;
        ensure!(reply[..len].ends_with(b"\r\n"), "not a whole reply: {:?}", &reply[..len]);
        Ok(())
    }
}

impl Redis for Own {
    async fn get(&mut self, key: String) -> Result<()> {
        self.ask(&["GET", &key]).await
    }

    async fn set(&mut self, key: String, value: usize) -> Result<()> {
        self.ask(&["SET", &key, &value.to_string()]).await
    }
}

async fn serve<R: Redis>(ids: Range<usize>, template: &[u8], connect: impl AsyncFn() -> Result<R>) -> Result<Value> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(work(connect().await?, template.to_owned(), ids.clone().skip(task).step_by(TASKS)));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(json!(ids.len()))
}

async fn work(mut redis: impl Redis, mut bytes: Vec<u8>, ids: impl Iterator<Item = usize>) -> Result<()> {
    let place = bytes.windows(TEMPLATE.len()).position(|window| window == TEMPLATE.as_bytes()).expect("the header");
    for id in ids {
        bytes[place..place + TEMPLATE.len()].copy_from_slice(format!("{id:032x}").as_bytes());
        handle(&mut redis, &bytes, id).await?;
    }
    Ok(())
}

async fn handle(redis: &mut impl Redis, bytes: &[u8], id: usize) -> Result<()> {
    let order = Order::decode(bytes)?;
    yield_now().await;
    redis.get(format!("order:{id}")).await?;
    yield_now().await;
    let report = Report { order_id: order.id, text: vec!["x".repeat(id % 1_000)], price: 1.0 };
    let encoded = report.encode_to_vec();
    yield_now().await;
    redis.set(format!("report:{id}"), encoded.len()).await
}

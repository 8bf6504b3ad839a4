//! Carries orders through: marks them in Redis, writes them to the database, sends them to the counter over gRPC, and sends
//! its report back the way that they came.
//!
//! `msg_order_engine --aeron DIR --redis ADDRESS --mysql URL --counter ADDRESS [--log PATH]`. A task for each order; all of
//! them share one multiplexed Redis connection and a pool of database connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mysql_async::prelude::Queryable as _;
use mysql_async::{OptsBuilder, Pool, PoolConstraints, PoolOpts};
#[cfg(not(feature = "shim"))]
use prost::Message;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tracer_pipeline::aeron::{self, Publisher};
use tracer_pipeline::{Hops, Settings, Stop, now, streams};
use tracer_proto::order::counter_client::CounterClient;
use tracer_proto::order::{CounterRequest, ExecutionReport, Order, Outcome, RiskResult};
#[cfg(feature = "shim")]
use tracer_shim::Message;

/// For servers that hang.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 16;
const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (id BIGINT UNSIGNED PRIMARY KEY, account VARCHAR(32), \
                     exposure BIGINT, outcome VARCHAR(16)) ENGINE=InnoDB";

#[cfg(not(feature = "shim"))]
type Counter = CounterClient<Channel>;
#[cfg(feature = "shim")]
type Counter = CounterClient<tracer_shim::tonic::Client<Channel>>;

fn main() -> Result<()> {
    #[cfg(feature = "shim")]
    tracer_shim::init("msg_order_engine", &[]);
    let settings = Settings::from_args()?;
    let stop = Stop::on_signals()?;
    let dir = settings.get("aeron")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    let channel = Endpoint::from_shared(format!("http://{}", settings.get("counter")?))?;
    let channel = channel.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
    #[cfg(feature = "shim")]
    let channel = tower::Layer::layer(&tracer_shim::tonic::ClientLayer, channel);
    let engine = Arc::new(Engine {
        hops: Hops::create(&settings)?,
        reports: Publisher::open(dir, streams::EXECUTIONS),
        redis: Redis {
            client: redis::Client::open(format!("redis://{}/", settings.get("redis")?))?,
            connection: Mutex::default(),
        },
        database: database(settings.get("mysql")?)?,
        counter: CounterClient::new(channel),
    });

    let (queue, mut results) = mpsc::unbounded_channel::<(Vec<u8>, u64)>();
    let working = Arc::clone(&engine);
    runtime.spawn(async move {
        while let Some((bytes, queued)) = results.recv().await {
            let engine = Arc::clone(&working);
            tokio::spawn(async move { engine.result(&bytes, queued).await });
        }
    });
    // The task that takes them is there as long as the runtime.
    aeron::receive(dir, streams::RESULTS, &stop, |bytes| queue.send((bytes.to_vec(), now())).unwrap_or_default());
    drop(queue);
    runtime.shutdown_timeout(TIMEOUT);
    engine.hops.finish()
}

/// A pool whose connections stay, and that asks for nothing of its own: no reset between two users, no ping.
fn database(url: &str) -> Result<Pool> {
    let constraints = PoolConstraints::new(CONNECTIONS, CONNECTIONS).expect("no less than the minimum");
    let pool = PoolOpts::default().with_constraints(constraints).with_reset_connection(false);
    let options = OptsBuilder::from_opts(mysql_async::Opts::from_url(url)?)
        .pool_opts(pool)
        .prefer_socket(false)
        .init(vec![TABLE]);
    Ok(Pool::new(options))
}

struct Engine {
    hops: Hops,
    reports: Publisher,
    redis: Redis,
    database: Pool,
    counter: Counter,
}

impl Engine {
    async fn result(&self, bytes: &[u8], queued: u64) {
        let start = now();
        let Ok(RiskResult { order: Some(order), session, exposure }) = RiskResult::decode(bytes) else { return };
        let id = order.order_id;
        self.hops.add(id, "decode RiskResult", start);
        self.hops.add_until(id, "queue", queued, start);
        let mut report = match self.execute(order, exposure).await {
            Ok(report) => report,
            Err(error) => ExecutionReport {
                order_id: id,
                outcome: Outcome::Failed.into(),
                reason: format!("{error:#}"),
                ..ExecutionReport::default()
            },
        };
        report.session = session;
        let start = now();
        let bytes = report.encode_to_vec();
        self.hops.add(id, "encode ExecutionReport", start);
        if let Err(error) = self.reports.send(&bytes) {
            eprintln!("order {id}: risk_control: {error:#}");
        }
    }

    async fn execute(&self, order: Order, exposure: i64) -> Result<ExecutionReport> {
        let id = order.order_id;
        let () = self.redis.set(id, "open", &self.hops).await.context("Redis")?;
        let insert = self.insert(&order, exposure);
        timeout(TIMEOUT, insert).await.map_err(anyhow::Error::new).flatten().context("database")?;
        let start = now();
        let request = CounterRequest { order: Some(order), row: id, trace_context: None };
        let report = self.counter.clone().execute(request).await.context("counter")?.into_inner();
        self.hops.add(id, "order.Counter/Execute", start);
        let outcome = report.outcome().as_str_name();
        timeout(TIMEOUT, self.update(id, outcome)).await.map_err(anyhow::Error::new).flatten().context("database")?;
        let () = self.redis.set(id, outcome, &self.hops).await.context("Redis")?;
        Ok(report)
    }

    async fn insert(&self, order: &Order, exposure: i64) -> Result<()> {
        let mut connection = self.database.get_conn().await?;
        let start = now();
        let statement = "REPLACE INTO orders (id, account, exposure) VALUES (?, ?, ?)";
        connection.exec_drop(statement, (order.order_id, &order.account, exposure)).await?;
        self.hops.add(order.order_id, "REPLACE orders", start);
        Ok(())
    }

    async fn update(&self, id: u64, outcome: &str) -> Result<()> {
        let mut connection = self.database.get_conn().await?;
        let start = now();
        connection.query_drop(format!("UPDATE orders SET outcome = '{outcome}' WHERE id = {id}")).await?;
        self.hops.add(id, "UPDATE orders", start);
        Ok(())
    }
}

/// One connection for all tasks, made again after an error.
struct Redis {
    client: redis::Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// Keeps the state of an order.
    async fn set(&self, id: u64, state: &str, hops: &Hops) -> Result<()> {
        let mut connection = self.connection().await?;
        let start = now();
        let answer = timeout(TIMEOUT, connection.set::<_, _, ()>(format!("engine:{id}"), state)).await;
        hops.add(id, "SET", start);
        let answer = answer.map_err(anyhow::Error::new).and_then(|answer| Ok(answer?));
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        let mut connection = self.connection.lock().await;
        if connection.is_none() {
            *connection = Some(timeout(TIMEOUT, self.client.get_multiplexed_async_connection()).await??);
        }
        Ok(connection.clone().expect("it was just made"))
    }
}

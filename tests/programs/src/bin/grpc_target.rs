//! A service of many tokio tasks that make gRPC calls in the middle of what they do for a message.
//!
//! `serve` answers calls and says on which port. `handle PORT N HOW` handles N messages, each in a task of its own: it decodes the
//! message, makes the calls and encodes a report. `loop PORT N HOW` does so in a few tasks that each take one message after the
//! other, and `lazy PORT N HOW` as well, with a connection that is made by whoever needs it first. The header of message `id` names
//! the trace `id`; requests, answers and reports carry it too.
//!
//! `metadata PORT PATH` makes a call for each text of the JSON list in PATH, with the text in its metadata in several places; the server
//! refuses it with that text as its reason, and has it in the metadata of its answer.
//!
//! HOW is `once`, `twice` (one call after the other), `joined` (two at the same time), `failed` (one that is refused and one that
//! is not), `selected` (the first of two things that happen), `spawned` (two, in a task each), `blocking` (the report is encoded in a
//! blocking task) or `detached` (a task that nobody waits for makes the call and encodes the report).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking, yield_now};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tracer_proto::order::counter_client::CounterClient;
use tracer_proto::order::counter_server::{Counter, CounterServer};
use tracer_proto::order::{CounterRequest, ExecutionReport, Outcome};
use tracer_proto::tracer::TraceContext;
use tracer_test_programs::messages::{Order, Report, order};
use tracer_test_programs::{converse, number};

/// Messages that are handled at the same time.
const AT_ONCE: u64 = 64;
/// Tasks that nobody waits for: with thousands of streams at once, the server ends the connection.
const DETACHED_AT_ONCE: usize = 512;
/// The place of this trace id in an encoded message is where those of others go.
const TEMPLATE: &str = "0123456789abcdef0123456789abcdef";
/// A request for this row is refused.
const REFUSED: u64 = u64::MAX;

struct Service;

#[tonic::async_trait]
impl Counter for Service {
    async fn execute(&self, request: Request<CounterRequest>) -> Result<Response<ExecutionReport>, Status> {
        if let Some(token) = request.metadata().get("authorization") {
            let mut refused = Status::unauthenticated(token.to_str().unwrap_or_default());
            refused.metadata_mut().insert("x-token", token.clone());
            return Err(refused);
        }
        let row = request.into_inner().row;
        yield_now().await;
        if row == REFUSED {
            return Err(Status::failed_precondition("no such row"));
        }
        let outcome = Outcome::Filled.into();
        Ok(Response::new(ExecutionReport { order_id: row, session: row + 1, outcome, ..ExecutionReport::default() }))
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Encoded once, before anybody looks: a sender is another process.
    let header = TraceContext { trace_id: TEMPLATE.to_owned(), span_id: "00000000000000ff".to_owned(), sampled: true };
    let template: Arc<[u8]> = Order { trace_context: Some(header), ..order(3) }.encode_to_vec().into();
    converse(|command, arguments| match command {
        "serve" => runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            let server = Server::builder().add_service(CounterServer::new(Service));
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            Ok(json!(port))
        }),
        "handle" | "loop" | "lazy" => {
            let (port, count) = (number(arguments, 0)?, number(arguments, 1)? as u64);
            let how = How::named(arguments.get(2).context("argument 2 is missing")?)?;
            runtime.block_on(async {
                let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
                let channel = if command == "lazy" { endpoint.connect_lazy() } else { endpoint.connect().await? };
                let client = CounterClient::new(channel);
                let next = Arc::new(AtomicU64::new(1));
                let under_way = Arc::new(Semaphore::new(DETACHED_AT_ONCE));
                let mut tasks = JoinSet::new();
                for _ in 0..AT_ONCE {
                    let (client, template, under_way) = (client.clone(), Arc::clone(&template), Arc::clone(&under_way));
                    let worker = Worker { client, template, under_way, how };
                    let next = Arc::clone(&next);
                    let alone = command != "handle";
                    tasks.spawn(async move {
                        let mut detached = Vec::new();
                        loop {
                            let id = next.fetch_add(1, Ordering::Relaxed);
                            if id > count {
                                break;
                            }
                            let mut worker = worker.clone();
                            detached.extend(if alone {
                                worker.handle(id).await?
                            } else {
                                tokio::spawn(async move { worker.handle(id).await }).await??
                            });
                        }
                        for task in detached {
                            task.await??;
                        }
                        Ok(())
                    });
                }
                while let Some(done) = tasks.join_next().await {
                    let done: Result<()> = done?;
                    done?;
                }
                Ok(json!(count))
            })
        }
        "metadata" => {
            let port = number(arguments, 0)?;
            let path = arguments.get(1).context("argument 1 is missing")?;
            let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
            runtime.block_on(async {
                let mut client = CounterClient::connect(format!("http://127.0.0.1:{port}")).await?;
                for text in &texts {
                    let mut request = Request::new(CounterRequest::default());
                    let metadata = request.metadata_mut();
                    metadata.insert("authorization", format!("Bearer {text}").parse()?);
                    metadata.insert("cookie", format!("session={text}").parse()?);
                    metadata
                        .insert(MetadataKey::from_bytes(format!("x-{text}").to_lowercase().as_bytes())?, text.parse()?);
                    metadata.insert_bin("key-bin", MetadataValue::from_bytes(text.as_bytes()));
                    let refused = client.execute(request).await.err().context("it was not refused")?;
                    ensure!(refused.message().contains(text), "another reason: {refused}");
                }
                Ok(json!(texts.len()))
            })
        }
        _ => bail!("unknown command"),
    })
}

#[derive(Clone, Copy)]
enum How {
    Once,
    Twice,
    Joined,
    Failed,
    Selected,
    Spawned,
    Blocking,
    Detached,
}

impl How {
    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "once" => Self::Once,
            "twice" => Self::Twice,
            "joined" => Self::Joined,
            "failed" => Self::Failed,
            "selected" => Self::Selected,
            "spawned" => Self::Spawned,
            "blocking" => Self::Blocking,
            "detached" => Self::Detached,
            _ => bail!("unknown way to call"),
        })
    }
}

#[derive(Clone)]
struct Worker {
    client: CounterClient<Channel>,
    template: Arc<[u8]>,
    under_way: Arc<Semaphore>,
    how: How,
}

impl Worker {
    /// Handles a message; a task that goes on afterwards is returned.
    async fn handle(&mut self, id: u64) -> Result<Option<JoinHandle<Result<()>>>> {
        let permit = match self.how {
            How::Detached => Some(Arc::clone(&self.under_way).acquire_owned().await?),
            _ => None,
        };
        let mut bytes = self.template.to_vec();
        let place = bytes.windows(TEMPLATE.len()).position(|window| window == TEMPLATE.as_bytes());
        let place = place.context("the template has a header")?;
        bytes[place..place + TEMPLATE.len()].copy_from_slice(format!("{id:032x}").as_bytes());
        let order = Order::decode(&*bytes)?;
        yield_now().await;
        match self.how {
            How::Once | How::Blocking => call(&mut self.client, id).await?,
            How::Twice => {
                call(&mut self.client, id).await?;
                call(&mut self.client, id + (1 << 32)).await?;
            }
            How::Joined => {
                let mut other = self.client.clone();
                let (one, two) = tokio::join!(call(&mut self.client, id), call(&mut other, id + (1 << 32)));
                one.and(two)?;
            }
            How::Failed => {
                let refused = CounterRequest { order: None, row: REFUSED, trace_context: None };
                let refused = self.client.execute(refused).await;
                if refused.err().map(|status| status.code()) != Some(Code::FailedPrecondition) {
                    bail!("it was not refused");
                }
                call(&mut self.client, id).await?;
            }
            How::Selected => tokio::select! {
                called = call(&mut self.client, id) => called?,
                () = tokio::time::sleep(Duration::from_secs(60)) => bail!("no answer in a minute"),
            },
            How::Spawned => {
                let mut calls = JoinSet::new();
                for row in [id, id + (1 << 32)] {
                    let mut client = self.client.clone();
                    calls.spawn(async move {
                        yield_now().await;
                        call(&mut client, row).await
                    });
                }
                calls.join_all().await.into_iter().collect::<Result<()>>()?;
            }
            How::Detached => {
                let mut client = self.client.clone();
                return Ok(Some(tokio::spawn(async move {
                    yield_now().await;
                    call(&mut client, id).await?;
                    report(id, order.symbol);
                    drop(permit);
                    Ok(())
                })));
            }
        }
        yield_now().await;
        match self.how {
            How::Blocking => spawn_blocking(move || report(id, order.symbol)).await?,
            _ => report(id, order.symbol),
        }
        Ok(None)
    }
}

fn report(id: u64, symbol: String) {
    let report = Report { order_id: id, text: vec![symbol], price: 1.0 };
    std::hint::black_box(report.encode_to_vec());
}

async fn call(client: &mut CounterClient<Channel>, row: u64) -> Result<()> {
    let answer = client.execute(CounterRequest { order: None, row, trace_context: None }).await?.into_inner();
    if answer.order_id != row {
        bail!("an answer to another call");
    }
    Ok(())
}

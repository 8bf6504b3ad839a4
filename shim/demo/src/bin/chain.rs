//! Orders and acknowledgements between two parties, as services send them. `chain WAY COUNT LOG`, where WAY is
//!
//! - `unix` or `tcp`: between two processes over a socket,
//! - `channel`: between two threads,
//! - `tasks`: between 64 pairs of tokio tasks that await between decode and encode, on all cores.
//!
//! Either side writes to its log, `LOG.client` and `LOG.server`, which trace it sees each order in: the order's number, trace
//! id and span id. Nothing here passes a context on: the messages do.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::{env, thread};
use tokio::sync::mpsc as queue;
use tracer_shim::{Context, FutureExt, Message, Span};

#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
}

#[derive(Clone, PartialEq, Message)]
struct Ack {
    #[prost(uint64, tag = "1")]
    id: u64,
}

const TASKS: u64 = 64;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [way, count, log] = &arguments[..] else { bail!("usage: chain unix|tcp|channel|tasks COUNT LOG") };
    let count = count.parse().context("COUNT is a number")?;
    tracer_shim::init("chain", &[]);
    match way.as_str() {
        "unix" => {
            let listener = UnixListener::bind(format!("{log}.socket"))?;
            with_server("unix-server", log, || ask(listener.accept()?.0, count, &Log::new(log, "client")?))
        }
        "unix-server" => answer(UnixStream::connect(format!("{log}.socket"))?, &Log::new(log, "server")?),
        "tcp" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            std::fs::write(format!("{log}.port"), listener.local_addr()?.to_string())?;
            with_server("tcp-server", log, || {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                ask(stream, count, &Log::new(log, "client")?)
            })
        }
        "tcp-server" => {
            let stream = TcpStream::connect(std::fs::read_to_string(format!("{log}.port"))?)?;
            stream.set_nodelay(true)?;
            answer(stream, &Log::new(log, "server")?)
        }
        "channel" => channel(count, log),
        "tasks" => tasks(count, log),
        other => bail!("no such way: {other}"),
    }
}

/// What a side saw.
struct Log(Mutex<BufWriter<File>>);

impl Log {
    fn new(path: &str, side: &str) -> Result<Self> {
        Ok(Self(Mutex::new(BufWriter::new(File::create(format!("{path}.{side}"))?))))
    }

    fn see(&self, id: u64, context: Context) -> Result<()> {
        let mut file = self.0.lock().expect("no thread panics with it");
        Ok(writeln!(file, "{id} {} {}", context.trace_id(), context.span_id())?)
    }
}

fn order(id: u64) -> Order {
    Order { id, symbol: "ACME".to_owned() }
}

fn with_server(role: &str, log: &str, client: impl FnOnce() -> Result<()>) -> Result<()> {
    let program = env::current_exe()?;
    let mut server = Command::new(program).args([role, "0", log]).stdin(Stdio::null()).spawn()?;
    client()?;
    anyhow::ensure!(server.wait()?.success(), "the server failed");
    Ok(())
}

/// Reads one length-delimited message; `None` at the end of the stream.
fn read(stream: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut len = [0];
    if stream.read(&mut len)? == 0 {
        return Ok(None);
    }
    anyhow::ensure!(len[0] < 0x80, "the messages here are short");
    let mut bytes = vec![len[0]; 1 + usize::from(len[0])];
    stream.read_exact(&mut bytes[1..])?;
    Ok(Some(bytes))
}

fn ask(mut stream: impl Read + Write, count: u64, log: &Log) -> Result<()> {
    for id in 0..count {
        let span = Span::with_parent(Context::NONE, "order").entered();
        log.see(id, span.context())?;
        stream.write_all(&order(id).encode_length_delimited_to_vec())?;
        let ack = read(&mut stream)?.context("the server hung up")?;
        anyhow::ensure!(Ack::decode_length_delimited(&ack[..])?.id == id, "an answer to another order");
    }
    Ok(())
}

fn answer(mut stream: impl Read + Write, log: &Log) -> Result<()> {
    while let Some(bytes) = read(&mut stream)? {
        let order = Order::decode_length_delimited(&bytes[..])?;
        log.see(order.id, Context::current())?;
        stream.write_all(&Ack { id: order.id }.encode_length_delimited_to_vec())?;
    }
    Ok(())
}

fn channel(count: u64, log: &str) -> Result<()> {
    let (orders, inbox) = mpsc::channel::<Vec<u8>>();
    let (acks, outbox) = mpsc::channel::<Vec<u8>>();
    let seen = Log::new(log, "server")?;
    let server = thread::spawn(move || -> Result<()> {
        for bytes in inbox {
            let order = Order::decode(&bytes[..])?;
            seen.see(order.id, Context::current())?;
            acks.send(Ack { id: order.id }.encode_to_vec())?;
        }
        Ok(())
    });
    let log = Log::new(log, "client")?;
    for id in 0..count {
        let span = Span::with_parent(Context::NONE, "order").entered();
        log.see(id, span.context())?;
        orders.send(order(id).encode_to_vec())?;
        anyhow::ensure!(Ack::decode(&outbox.recv()?[..])?.id == id, "an answer to another order");
    }
    drop(orders);
    server.join().expect("the server does not panic")
}

#[tokio::main]
async fn tasks(count: u64, log: &str) -> Result<()> {
    let logs: &'static [Log; 2] = Box::leak(Box::new([Log::new(log, "client")?, Log::new(log, "server")?]));
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..TASKS {
        let (orders, inbox) = queue::unbounded_channel();
        let (acks, outbox) = queue::unbounded_channel();
        tasks.spawn(answer_in_task(inbox, acks, &logs[1]).with_context(Context::NONE));
        let ids = (first..count).step_by(TASKS as usize);
        tasks.spawn(ask_in_task(ids, orders, outbox, &logs[0]));
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    for log in logs {
        log.0.lock().expect("no task panics with it").flush()?;
    }
    Ok(())
}

type Sender = queue::UnboundedSender<Vec<u8>>;
type Receiver = queue::UnboundedReceiver<Vec<u8>>;

async fn ask_in_task(ids: impl Iterator<Item = u64>, orders: Sender, mut acks: Receiver, log: &Log) -> Result<()> {
    for id in ids {
        let span = Span::with_parent(Context::NONE, "order");
        log.see(id, span.context())?;
        let exchange = async {
            tokio::task::yield_now().await;
            orders.send(order(id).encode_to_vec())?;
            let bytes = acks.recv().await.context("the other task hung up")?;
            anyhow::ensure!(Ack::decode(&bytes[..])?.id == id, "an answer to another order");
            Ok(())
        };
        exchange.in_span(span).await?;
    }
    Ok(())
}

async fn answer_in_task(mut orders: Receiver, acks: Sender, log: &Log) -> Result<()> {
    while let Some(bytes) = orders.recv().await {
        let order = Order::decode(&bytes[..])?;
        for _ in 0..order.id % 3 {
            tokio::task::yield_now().await;
        }
        log.see(order.id, Context::current())?;
        acks.send(Ack { id: order.id }.encode_to_vec())?;
    }
    Ok(())
}

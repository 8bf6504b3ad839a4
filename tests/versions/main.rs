//! A small service: for each order it makes a gRPC call, to itself, and encodes a reply. `run N` handles N orders.
//!
//! Questions and answers of the call have the same shape, so that the compiler may make one function of their methods.

use std::io::{BufRead as _, Write as _};

#[cfg(not(feature = "shim"))]
use prost::Message;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
#[cfg(feature = "shim")]
use tracer_shim::Message;

mod echo {
    tonic::include_proto!("versions.Echo");
}

use echo::echo_client::EchoClient;
use echo::echo_server::{Echo, EchoServer};

#[derive(Clone, PartialEq, Message)]
pub struct Order {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub symbol: String,
    #[prost(message, repeated, tag = "3")]
    pub legs: Vec<Leg>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Leg {
    #[prost(string, tag = "1")]
    pub symbol: String,
    #[prost(uint32, tag = "2")]
    pub quantity: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub text: String,
    #[prost(uint32, tag = "3")]
    pub total: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub note: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pong {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub note: String,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Service;

#[tonic::async_trait]
impl Echo for Service {
    async fn echo(&self, request: Request<Ping>) -> Result<Response<Pong>, Status> {
        let Ping { id, note } = request.into_inner();
        Ok(Response::new(Pong { id, note: format!("answer to {note}") }))
    }
}

/// An order on the wire, written without prost.
fn order(id: u64) -> Vec<u8> {
    fn text(tag: u8, text: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, text.len() as u8], text].concat()
    }
    let mut bytes = vec![1 << 3];
    let mut rest = id;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend(text(2, format!("SYM{id:05}").as_bytes()));
    for quantity in 1..4 {
        let leg = [text(1, b"leg"), vec![2 << 3, quantity]].concat();
        bytes.extend(text(3, &leg));
    }
    bytes
}

async fn handle(id: u64, mut client: EchoClient<Channel>) -> Result<(), Error> {
    let order = Order::decode(&order(id)[..])?;
    let answer = client.echo(Ping { id, note: order.symbol.clone() }).await?.into_inner();
    let total = order.legs.iter().map(|leg| leg.quantity).sum();
    std::hint::black_box(Reply { id: answer.id, text: answer.note, total }.encode_to_vec());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder().add_service(EchoServer::new(Service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = EchoClient::connect(format!("http://{address}")).await?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let count: u64 = line.strip_prefix("run ").ok_or("unknown command")?.parse()?;
        for id in 100_000..100_000 + count {
            tokio::spawn(handle(id, client.clone())).await??;
        }
        println!("{count}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

//! The exchange's counter: carries orders out, and says at what prices.
//!
//! `counter --listen ADDRESS [--log PATH]` serves gRPC.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracer_pipeline::{Hops, Settings, now};
use tracer_proto::order::counter_server::{Counter, CounterServer};
use tracer_proto::order::{CounterRequest, ExecutionReport, Fill, Outcome, SubOrder};

/// How long calls may go on when the service has to end.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<()> {
    #[cfg(feature = "shim")]
    tracer_shim::init("counter", &[]);
    let settings = Settings::from_args()?;
    let hops = Arc::new(Hops::create(&settings)?);
    let server = Server::builder();
    #[cfg(feature = "shim")]
    let server = server.layer(tracer_shim::tonic::ServerLayer);
    let mut server = server;
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (ending, ended) = tokio::sync::oneshot::channel();
    let serving = server.add_service(CounterServer::new(Book { hops: Arc::clone(&hops) })).serve_with_shutdown(
        settings.get("listen")?.parse()?,
        async {
            // An error means that nobody will ask any more.
            let _ = ended.await;
        },
    );
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The server has ended already where nobody listens.
        let _ = ending.send(());
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served?,
        () = stop => {}
    }
    hops.finish()
}

struct Book {
    hops: Arc<Hops>,
}

#[tonic::async_trait]
impl Counter for Book {
    async fn execute(&self, request: Request<CounterRequest>) -> Result<Response<ExecutionReport>, Status> {
        let start = now();
        let CounterRequest { order, trace_context, .. } = request.into_inner();
        let order = order.ok_or_else(|| Status::invalid_argument("no order"))?;
        let report = ExecutionReport {
            order_id: order.order_id,
            outcome: Outcome::Filled.into(),
            fills: order.sub_orders.into_iter().map(fill).collect(),
            // Of a client that sent one: the answer says what it is an answer to.
            trace_context,
            ..ExecutionReport::default()
        };
        self.hops.add(order.order_id, "order.Counter/Execute", start);
        Ok(Response::new(report))
    }
}

fn fill(part: SubOrder) -> Fill {
    Fill { symbol: part.symbol, price: part.price, quantity: part.quantity }
}

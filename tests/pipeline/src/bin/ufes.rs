//! The front end: takes orders from clients over TCP, asks risk_control, and answers when the report comes back.
//!
//! `ufes --listen ADDRESS --aeron DIR [--log PATH]`. Each connection has a thread that reads; the orders go through a queue
//! to two workers.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
#[cfg(not(feature = "shim"))]
use prost::Message;
use tracer_pipeline::aeron::{self, Publisher};
use tracer_pipeline::{Hops, Settings, Stop, frames, now, streams};
use tracer_proto::order::{ExecutionReport, Order, OrderReply, Outcome, RiskRequest};
#[cfg(feature = "shim")]
use tracer_shim::Message;

const WORKERS: usize = 2;
/// After so long without a report an order is answered as failed.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    #[cfg(feature = "shim")]
    tracer_shim::init("ufes", &[]);
    let settings = Settings::from_args()?;
    let stop = Stop::on_signals()?;
    let dir = settings.get("aeron")?;
    let service = Arc::new(Service {
        hops: Hops::create(&settings)?,
        requests: Publisher::open(dir, streams::REQUESTS),
        clients: Mutex::default(),
        pending: Mutex::default(),
    });
    let listener = TcpListener::bind(settings.get("listen")?)?;
    listener.set_nonblocking(true)?;

    let (queue, orders) = mpsc::channel();
    let orders = Arc::new(Mutex::new(orders));
    for _ in 0..WORKERS {
        let (service, orders) = (Arc::clone(&service), Arc::clone(&orders));
        thread::spawn(move || {
            let next = || orders.lock().expect("no worker panics with it").recv();
            while let Ok(order) = next() {
                #[cfg(feature = "shim")]
                let (order, _scope) = tracer_shim::Traced::enter(order);
                let (order, session, queued): (Order, u64, u64) = order;
                #[cfg(feature = "shim")]
                let _span = tracer_shim::process("Order");
                let (start, id) = (now(), order.order_id);
                service.hops.add_until(id, "queue", queued, start);
                service.order(order, session);
                service.hops.add(id, "Order", start);
            }
        });
    }
    let (reports, stopping, dir) = (Arc::clone(&service), stop.clone(), dir.to_owned());
    let reports =
        thread::spawn(move || aeron::receive(&dir, streams::REPORTS, &stopping, |bytes| reports.report(bytes)));

    let sessions = AtomicU64::new(1);
    while !stop.is_set() {
        if let Ok((stream, _)) = listener.accept() {
            let session = sessions.fetch_add(1, Ordering::Relaxed);
            let (service, queue) = (Arc::clone(&service), queue.clone());
            service.welcome(session, &stream)?;
            thread::spawn(move || {
                let enqueue = |order: Order| {
                    let order = (order, session, now());
                    #[cfg(feature = "shim")]
                    let order = tracer_shim::Traced::new(order);
                    // The workers are there as long as the process.
                    let _ = queue.send(order);
                };
                service.read(stream, session, enqueue);
            });
        }
        service.give_up();
        thread::sleep(TICK);
    }
    reports.join().expect("the reports do not panic");
    service.hops.finish()
}

struct Service {
    hops: Hops,
    requests: Publisher,
    /// By session.
    clients: Mutex<HashMap<u64, Arc<Mutex<TcpStream>>>>,
    /// By order: whose it is, and until when its report may come.
    pending: Mutex<HashMap<u64, (u64, Instant)>>,
}

impl Service {
    fn welcome(&self, session: u64, stream: &TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let writer = Arc::new(Mutex::new(stream.try_clone()?));
        self.clients.lock().expect("no thread panics with it").insert(session, writer);
        Ok(())
    }

    /// Takes a client's orders until it hangs up.
    fn read(&self, mut stream: TcpStream, session: u64, enqueue: impl Fn(Order)) {
        while let Ok(Some(bytes)) = frames::read(&mut stream) {
            let start = now();
            let Ok(order) = Order::decode(bytes.as_slice()) else { break };
            self.hops.add(order.order_id, "decode Order", start);
            let until = Instant::now() + PATIENCE;
            self.pending.lock().expect("no thread panics with it").insert(order.order_id, (session, until));
            enqueue(order);
        }
        self.clients.lock().expect("no thread panics with it").remove(&session);
    }

    fn order(&self, order: Order, session: u64) {
        let id = order.order_id;
        let request = RiskRequest { order: Some(order), session, trace_context: None };
        let start = now();
        let bytes = request.encode_to_vec();
        self.hops.add(id, "encode RiskRequest", start);
        if let Err(error) = self.requests.send(&bytes) {
            self.answer(id, Outcome::Failed, 0, &format!("risk_control: {error:#}"));
        }
    }

    fn report(&self, bytes: &[u8]) {
        let start = now();
        let Ok(report) = ExecutionReport::decode(bytes) else { return };
        self.hops.add(report.order_id, "decode ExecutionReport", start);
        let filled = report.fills.iter().map(|fill| fill.quantity).sum();
        self.answer(report.order_id, report.outcome(), filled, &report.reason);
    }

    /// Answers an order that is still waited for; the client may be gone.
    fn answer(&self, order_id: u64, outcome: Outcome, filled: u32, reason: &str) {
        let waiting = self.pending.lock().expect("no thread panics with it").remove(&order_id);
        let Some((session, _)) = waiting else { return };
        let client = self.clients.lock().expect("no thread panics with it").get(&session).cloned();
        let reply = OrderReply { order_id, outcome: outcome.into(), filled, reason: reason.to_owned() };
        let start = now();
        let bytes = reply.encode_to_vec();
        self.hops.add(order_id, "encode OrderReply", start);
        if let Some(client) = client {
            // A broken connection ends its reader, which forgets the client.
            let _ = frames::write(&mut *client.lock().expect("no thread panics with it"), &bytes);
        }
    }

    /// Answers orders whose report has not come in time.
    fn give_up(&self) {
        let now = Instant::now();
        let late: Vec<u64> = {
            let pending = self.pending.lock().expect("no thread panics with it");
            pending.iter().filter(|(_, (_, until))| *until < now).map(|(id, _)| *id).collect()
        };
        for id in late {
            self.answer(id, Outcome::Failed, 0, "no report in time");
        }
    }
}

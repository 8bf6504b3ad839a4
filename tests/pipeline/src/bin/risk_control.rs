//! Checks orders: keeps each account's exposure in Redis, refuses what is not allowed, passes the rest on, and books the
//! reports that come back.
//!
//! `risk_control --aeron DIR --redis ADDRESS [--log PATH]`. One thread takes requests, one takes reports; both queue them for
//! two workers, each with a Redis connection of its own.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
#[cfg(not(feature = "shim"))]
use prost::Message;
use redis::{Client, Commands as _, Connection};
use tracer_pipeline::aeron::{self, Publisher};
use tracer_pipeline::{Hops, Settings, Stop, now, streams};
use tracer_proto::order::{ExecutionReport, Order, Outcome, RiskRequest, RiskResult};
#[cfg(feature = "shim")]
use tracer_shim::Message;

const WORKERS: usize = 2;
/// For a server that hangs.
const TIMEOUT: Duration = Duration::from_secs(1);

enum Work {
    Request(Box<RiskRequest>),
    Report(ExecutionReport),
}

fn main() -> Result<()> {
    #[cfg(feature = "shim")]
    tracer_shim::init("risk_control", &[]);
    let settings = Settings::from_args()?;
    let stop = Stop::on_signals()?;
    let dir = settings.get("aeron")?;
    let service = Arc::new(Service {
        hops: Hops::create(&settings)?,
        results: Publisher::open(dir, streams::RESULTS),
        reports: Publisher::open(dir, streams::REPORTS),
        redis: Client::open(format!("redis://{}/", settings.get("redis")?))?,
    });

    let (queue, work) = mpsc::channel();
    let work = Arc::new(Mutex::new(work));
    for _ in 0..WORKERS {
        let (service, work) = (Arc::clone(&service), Arc::clone(&work));
        thread::spawn(move || {
            let mut redis = Redis { client: service.redis.clone(), connection: None };
            let next = || work.lock().expect("no worker panics with it").recv();
            while let Ok(item) = next() {
                #[cfg(feature = "shim")]
                let (item, _scope) = tracer_shim::Traced::enter(item);
                let (item, queued): (Work, u64) = item;
                #[cfg(feature = "shim")]
                let _span = tracer_shim::process(Work::name(&item));
                let (start, order, name) = (now(), item.order(), item.name());
                service.hops.add_until(order, "queue", queued, start);
                match item {
                    Work::Request(request) => service.request(*request, &mut redis),
                    Work::Report(report) => service.report(report, &mut redis),
                }
                service.hops.add(order, name, start);
            }
        });
    }
    let enqueue = move |item: Work| {
        let item = (item, now());
        #[cfg(feature = "shim")]
        let item = tracer_shim::Traced::new(item);
        // The workers are there as long as the process.
        let _ = queue.send(item);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let enqueue = enqueue.clone();
            aeron::receive(dir, streams::EXECUTIONS, &stop, |bytes| {
                let start = now();
                let Ok(report) = ExecutionReport::decode(bytes) else { return };
                service.hops.add(report.order_id, "decode ExecutionReport", start);
                enqueue(Work::Report(report));
            });
        });
        aeron::receive(dir, streams::REQUESTS, &stop, |bytes| {
            let start = now();
            let Ok(request) = RiskRequest::decode(bytes) else { return };
            let order = request.order.as_ref().map_or(0, |order| order.order_id);
            service.hops.add(order, "decode RiskRequest", start);
            enqueue(Work::Request(Box::new(request)));
        });
    });
    service.hops.finish()
}

impl Work {
    fn order(&self) -> u64 {
        match self {
            Self::Request(request) => request.order.as_ref().map_or(0, |order| order.order_id),
            Self::Report(report) => report.order_id,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Request(_) => "RiskRequest",
            Self::Report(_) => "ExecutionReport",
        }
    }
}

struct Service {
    hops: Hops,
    results: Publisher,
    reports: Publisher,
    redis: Client,
}

impl Service {
    fn request(&self, request: RiskRequest, redis: &mut Redis) {
        let RiskRequest { order, session, .. } = request;
        let Some(order) = order else { return };
        let id = order.order_id;
        match self.check(&order, redis) {
            Ok(Some(exposure)) => {
                let result = RiskResult { order: Some(order), session, exposure };
                let start = now();
                let bytes = result.encode_to_vec();
                self.hops.add(id, "encode RiskResult", start);
                if let Err(error) = self.results.send(&bytes) {
                    self.refuse(id, session, Outcome::Failed, &format!("msg_order_engine: {error:#}"));
                }
            }
            Ok(None) => self.refuse(id, session, Outcome::Rejected, "a part without a quantity"),
            Err(error) => self.refuse(id, session, Outcome::Failed, &format!("Redis: {error:#}")),
        }
    }

    /// The account's exposure with this order; `None` if the order is not allowed.
    fn check(&self, order: &Order, redis: &mut Redis) -> Result<Option<i64>> {
        if order.sub_orders.iter().any(|part| part.quantity == 0) {
            return Ok(None);
        }
        let value: i64 = order.sub_orders.iter().map(|part| part.price * i64::from(part.quantity)).sum();
        let (id, account) = (order.order_id, format!("exposure:{}", order.account));
        let exposure = redis.ask(|connection| {
            let start = now();
            let exposure = connection.incr(&account, value)?;
            self.hops.add(id, "INCRBY", start);
            Ok(exposure)
        })?;
        redis.ask(|connection| {
            let start = now();
            let () = connection.hset(format!("order:{id}"), "exposure", exposure)?;
            self.hops.add(id, "HSET", start);
            Ok(())
        })?;
        Ok(Some(exposure))
    }

    fn report(&self, mut report: ExecutionReport, redis: &mut Redis) {
        let id = report.order_id;
        let booked = redis.ask(|connection| {
            let start = now();
            let () = connection.hset(format!("order:{id}"), "outcome", report.outcome)?;
            self.hops.add(id, "HSET", start);
            Ok(())
        });
        if let Err(error) = booked {
            report.reason = format!("not booked: {error:#}");
        }
        self.send(&report);
    }

    fn refuse(&self, order_id: u64, session: u64, outcome: Outcome, reason: &str) {
        self.send(&ExecutionReport {
            order_id,
            session,
            outcome: outcome.into(),
            reason: reason.to_owned(),
            ..ExecutionReport::default()
        });
    }

    fn send(&self, report: &ExecutionReport) {
        let start = now();
        let bytes = report.encode_to_vec();
        self.hops.add(report.order_id, "encode ExecutionReport", start);
        if let Err(error) = self.reports.send(&bytes) {
            eprintln!("order {}: ufes: {error:#}", report.order_id);
        }
    }
}

/// A connection that is made again after an error.
struct Redis {
    client: Client,
    connection: Option<Connection>,
}

impl Redis {
    fn ask<T>(&mut self, ask: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.client.get_connection_with_timeout(TIMEOUT).context("no connection")?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                connection.set_write_timeout(Some(TIMEOUT))?;
                connection
            }
        };
        let answer = ask(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

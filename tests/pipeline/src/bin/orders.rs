//! Sends orders to ufes and measures the answers: the load, and the ground truth of each order from outside.
//!
//! `orders --to ADDRESS [--count N] [--rate PER_SECOND] [--burst N] [--first ID] [--window N] [--log PATH]`. Orders are
//! evenly spaced, but that each second begins with a burst of N at once. With `--window` there is no rate: N orders are
//! always under way. It says what became of them as one line of JSON. It never has the shim: a client as any other.

use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost::Message;
use tracer_pipeline::{Hops, Settings, Stop, frames, now};
use tracer_proto::order::{Order, OrderReply, Outcome, Side, SubOrder};

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(10);
const SYMBOLS: [&str; 4] = ["600000.SH", "000001.SZ", "300750.SZ", "688981.SH"];

fn main() -> Result<()> {
    let settings = Settings::from_args()?;
    let (count, rate) = (settings.get_or("count", 100_u64)?, settings.get_or("rate", 100_u64)?);
    let (burst, first) = (settings.get_or("burst", 0_u64)?, settings.get_or("first", 1_u64)?);
    let window = settings.get_or("window", u64::MAX)?;
    let pace = Pace { rate, burst, saturate: window < u64::MAX };
    ensure!(rate > 0 && window > 0 && burst <= rate, "a rate and a window of at least 1, and no burst above the rate");
    let stop = Stop::on_signals()?;
    let hops = Hops::create(&settings)?;
    let mut stream = TcpStream::connect(settings.get("to")?)?;
    stream.set_nodelay(true)?;

    let sent = Arc::new(Mutex::new(vec![0_u64; count as usize]));
    let (open, fewer) = (Arc::new(Mutex::new(0_u64)), Arc::new(Condvar::new()));
    let (answers, answered) = mpsc::channel();
    let mut incoming = stream.try_clone()?;
    let (closing, less) = (Arc::clone(&open), Arc::clone(&fewer));
    thread::spawn(move || {
        while let Ok(Some(bytes)) = frames::read(&mut incoming) {
            let arrived = now();
            let Ok(reply) = OrderReply::decode(bytes.as_slice()) else { break };
            *closing.lock().expect("no thread panics with it") -= 1;
            less.notify_one();
            if answers.send((reply, arrived)).is_err() {
                break;
            }
        }
    });
    let noted = Arc::clone(&sent);
    let sender = thread::spawn(move || -> Result<u64> {
        let begin = Instant::now();
        for index in 0..count {
            if stop.is_set() {
                return Ok(index);
            }
            if let Some(wait) = (begin + pace.due(index)).checked_duration_since(Instant::now()) {
                thread::sleep(wait);
            }
            let mut under_way = open.lock().expect("no thread panics with it");
            while *under_way >= window {
                let waited = fewer.wait_timeout(under_way, PATIENCE).expect("no thread panics with it");
                ensure!(!waited.1.timed_out(), "no answer");
                under_way = waited.0;
            }
            *under_way += 1;
            drop(under_way);
            let bytes = order(first + index).encode_to_vec();
            noted.lock().expect("no thread panics with it")[index as usize] = now();
            frames::write(&mut stream, &bytes)?;
        }
        Ok(count)
    });

    let mut tally = Tally::default();
    let mut expected = None;
    let mut last = Instant::now();
    let mut sender = Some(sender);
    while expected.is_none_or(|expected| tally.total() < expected) {
        if sender.as_ref().is_some_and(thread::JoinHandle::is_finished) {
            let ended = sender.take().expect("it was just there").join().expect("the sender does not panic");
            // A broken connection: what was sent before it is waited for.
            expected = Some(ended.unwrap_or_else(|error| {
                eprintln!("{error:#}");
                sent.lock().expect("no thread panics with it").iter().filter(|sent| **sent > 0).count() as u64
            }));
        }
        match answered.recv_timeout(Duration::from_millis(50)) {
            Ok((reply, arrived)) => {
                last = Instant::now();
                let index = reply.order_id.checked_sub(first).and_then(|index| usize::try_from(index).ok());
                let at = sent.lock().expect("no thread panics with it").get(index.unwrap_or(usize::MAX)).copied();
                let at = at.with_context(|| format!("an answer to order {}, which was not sent", reply.order_id))?;
                hops.add_until(reply.order_id, reply.outcome().as_str_name(), at, arrived);
                tally.add(&reply, at, arrived);
            }
            Err(RecvTimeoutError::Timeout) if expected.is_none() || last.elapsed() < PATIENCE => {}
            Err(_) => break,
        }
    }
    hops.finish()?;
    println!("{}", tally.json(expected.unwrap_or(tally.total())));
    Ok(())
}

/// When orders are due.
struct Pace {
    rate: u64,
    burst: u64,
    saturate: bool,
}

impl Pace {
    fn due(&self, index: u64) -> Duration {
        if self.saturate {
            return Duration::ZERO;
        }
        let (second, within) = (index / self.rate, index % self.rate);
        // The burst at once, the others evenly over the second.
        let others = (self.rate - self.burst).max(1);
        let nanos = within.saturating_sub(self.burst) * 1_000_000_000 / others;
        Duration::from_secs(second) + Duration::from_nanos(nanos)
    }
}

/// An order whose size and parts depend on its number.
fn order(order_id: u64) -> Order {
    let part = |n: u64| SubOrder {
        symbol: SYMBOLS[((order_id + n) % 4) as usize].to_owned(),
        side: if order_id.is_multiple_of(2) { Side::Buy } else { Side::Sell }.into(),
        price: 1_000 + (order_id % 97) as i64,
        quantity: 100 * (1 + n as u32),
    };
    Order { order_id, account: format!("A{:03}", order_id % 50), sub_orders: (0..1 + order_id % 3).map(part).collect() }
}

#[derive(Default)]
struct Tally {
    filled: u64,
    rejected: u64,
    failed: u64,
    nanos: Vec<u64>,
    first: u64,
    last: u64,
}

impl Tally {
    fn total(&self) -> u64 {
        self.filled + self.rejected + self.failed
    }

    fn add(&mut self, reply: &OrderReply, sent: u64, arrived: u64) {
        match reply.outcome() {
            Outcome::Filled => self.filled += 1,
            Outcome::Rejected => self.rejected += 1,
            Outcome::Failed | Outcome::Unspecified => self.failed += 1,
        }
        if self.first == 0 {
            self.first = sent;
        }
        self.last = arrived;
        self.nanos.push(arrived - sent);
    }

    fn json(&mut self, sent: u64) -> String {
        self.nanos.sort_unstable();
        let quantile = |q: f64| match self.nanos.len() {
            0 => 0,
            len => self.nanos[((len - 1) as f64 * q) as usize] / 1_000,
        };
        let seconds = self.last.saturating_sub(self.first) as f64 / 1e9;
        format!(
            r#"{{"sent":{sent},"filled":{},"rejected":{},"failed":{},"p50_us":{},"p90_us":{},"p99_us":{},"max_us":{},"seconds":{seconds:.3}}}"#,
            self.filled,
            self.rejected,
            self.failed,
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(1.0),
        )
    }
}

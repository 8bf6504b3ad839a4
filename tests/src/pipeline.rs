//! The order services of tests/pipeline with their servers, as one thing that runs, is disturbed, and ends.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::redis::free_port;
use crate::{MariaDb, Network, RedisServer, Span};

/// The services, in the order in which an order meets them.
pub const SERVICES: [&str; 4] = ["ufes", "risk_control", "msg_order_engine", "counter"];

/// Orders that open all connections before a test begins. Their numbers are above those of the test.
const WARM_UP: u64 = 400;
/// Number of the first of them.
pub const FIRST_WARM_UP: u64 = 1 << 40;

/// Which build of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// With the shim.
    Shim,
    /// Without it, with line tables.
    Unmodified,
    /// Without it, without debug info: `cargo build --release`.
    Release,
    /// Without it, with fat link-time optimisation and line tables: prost is inlined everywhere.
    FatLto,
}

impl Build {
    /// The folder that `cargo xtask test` has put it into.
    fn folder(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Unmodified => "unmodified",
            Self::Release => "release",
            Self::FatLto => "lto",
        }
    }
}

/// Running services; dropping it kills them.
pub struct Pipeline {
    services: HashMap<&'static str, Child>,
    driver: Option<Child>,
    /// The Redis server.
    pub redis: RedisServer,
    /// The database server.
    pub database: MariaDb,
    /// Where the counter is that is on another host.
    elsewhere: Option<Network>,
    counter: SocketAddr,
    ufes: SocketAddr,
    folder: TempDir,
    shared: TempDir,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many orders.
    pub count: u64,
    /// Orders in a second.
    pub rate: u64,
    /// How many of them at once, at the beginning of each second.
    pub burst: u64,
    /// Number of the first one.
    pub first: u64,
}

/// A sender that is under way.
#[derive(Debug)]
pub struct Sender(Child);

/// One step of one order, by the clock of the service that made it: nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Start.
    pub start: u64,
    /// End.
    pub end: u64,
}

/// Steps by service, name and order, in order of time.
pub type Truth = HashMap<(String, String, u64), Vec<Step>>;

impl Pipeline {
    /// Starts the services, those of `with_shim` in the build with the shim, and lets orders through them.
    pub fn start(with_shim: &[&str]) -> Self {
        let build = |name: &str| if with_shim.contains(&name) { Build::Shim } else { Build::Unmodified };
        Self::start_with(&build, None)
    }

    /// The same with other builds, and perhaps with the counter on another host.
    pub fn start_with(build: &dyn Fn(&str) -> Build, elsewhere: Option<Network>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let shared = tempfile::tempdir_in("/dev/shm").expect("shared memory");
        // Files of its own: tests that run at the same time find their targets by path.
        std::fs::create_dir(folder.path().join("services")).expect("a folder");
        for program in SERVICES {
            let copy = folder.path().join("services").join(program);
            std::fs::copy(programs().join(build(program).folder()).join(program), copy).expect("a copy");
        }
        let local = |address: Ipv4Addr| SocketAddr::V4(SocketAddrV4::new(address, free_port()));
        let counter = elsewhere.as_ref().map_or(Ipv4Addr::LOCALHOST, Network::there);
        let mut pipeline = Self {
            services: HashMap::new(),
            driver: None,
            redis: RedisServer::start(),
            database: MariaDb::start(),
            elsewhere,
            counter: local(counter),
            ufes: local(Ipv4Addr::LOCALHOST),
            folder,
            shared,
        };
        pipeline.start_driver();
        SERVICES.iter().rev().for_each(|name| pipeline.start_service(name));
        pipeline.wait_until_whole();
        let warm_up = Load { count: WARM_UP, rate: WARM_UP, burst: WARM_UP, first: FIRST_WARM_UP };
        assert_eq!(pipeline.send(warm_up)["filled"], WARM_UP);
        pipeline
    }

    /// A glob that fits the services and nothing else.
    pub fn glob(&self) -> String {
        self.folder.path().join("services/*").display().to_string()
    }

    /// Process number of a service.
    pub fn pid(&self, name: &str) -> u32 {
        self.services[name].id()
    }

    /// Where the counter is that is on another host.
    pub fn network(&self) -> Option<&Network> {
        self.elsewhere.as_ref()
    }

    /// Where ufes takes orders.
    pub fn address(&self) -> SocketAddr {
        self.ufes
    }

    /// Sends one order after the other until one is filled: all of them have found each other.
    pub fn wait_until_whole(&self) {
        let mut number = FIRST_WARM_UP / 2;
        crate::wait_for("an order to go through all services", || {
            TcpStream::connect(self.ufes).ok()?;
            number += 1;
            let answer = self.send(Load { count: 1, rate: 1, burst: 0, first: number });
            (answer["filled"] == 1).then_some(())
        });
    }

    /// Sends orders and waits for all answers: what became of them, by the sender's count.
    pub fn send(&self, load: Load) -> Value {
        self.start_sending(load).wait()
    }

    /// Starts to send orders.
    pub fn start_sending(&self, load: Load) -> Sender {
        let mut orders = Command::new(programs().join("unmodified/orders"));
        orders.args(["--to", &self.ufes.to_string()]).arg("--log").arg(self.folder.path().join("orders.log"));
        let flags = [("--count", load.count), ("--rate", load.rate), ("--burst", load.burst), ("--first", load.first)];
        for (flag, value) in flags {
            orders.arg(flag).arg(value.to_string());
        }
        Sender(orders.stdout(Stdio::piped()).spawn().expect("the sender starts"))
    }

    /// Ends a service as an operator does, and starts it again.
    pub fn restart(&mut self, name: &'static str) {
        self.end_service(name);
        self.start_service(name);
    }

    /// Starts the media driver.
    pub fn start_driver(&mut self) {
        let mut driver = Command::new(programs().join("unmodified/media_driver"));
        let mut driver = driver.arg(self.aeron()).stdout(Stdio::piped()).spawn().expect("the media driver starts");
        let mut line = String::new();
        BufReader::new(driver.stdout.take().expect("it is piped")).read_line(&mut line).expect("it writes UTF-8");
        assert_eq!(line, "ready\n", "the media driver ended");
        self.driver = Some(driver);
    }

    /// Ends the media driver.
    pub fn stop_driver(&mut self) {
        end("media_driver", self.driver.take().expect("it runs"));
    }

    /// Ends the services in order: what each of them says about each order. Orders of the warm-up are left out.
    pub fn end(mut self) -> Truth {
        SERVICES.iter().for_each(|name| self.end_service(name));
        let mut truth = Truth::new();
        for name in SERVICES.iter().chain(&["orders"]) {
            let log = std::fs::read_to_string(self.log(name)).expect("a log");
            for line in log.lines() {
                let mut words = line.splitn(4, ' ');
                let mut number = || words.next().and_then(|word| word.parse().ok()).expect("ORDER START END NAME");
                let (order, start, end): (u64, u64, u64) = (number(), number(), number());
                let step = words.next().expect("a name").to_owned();
                if order < FIRST_WARM_UP / 2 {
                    truth.entry(((*name).to_owned(), step, order)).or_default().push(Step { start, end });
                }
            }
        }
        truth.values_mut().for_each(|steps| steps.sort_unstable());
        truth
    }

    fn start_service(&mut self, name: &'static str) {
        let path = self.folder.path().join("services").join(name);
        let mut command = match &self.elsewhere {
            Some(network) if name == "counter" => network.command(&path),
            _ => Command::new(path),
        };
        command.arg("--log").arg(self.log(name));
        if name != "counter" {
            command.arg("--aeron").arg(self.aeron());
        }
        match name {
            "ufes" => command.args(["--listen", &self.ufes.to_string()]),
            "counter" => command.args(["--listen", &self.counter.to_string()]),
            "risk_control" => command.args(["--redis", &self.redis.address()]),
            _ => command
                .args(["--redis", &self.redis.address(), "--mysql", &self.database.url()])
                .args(["--counter", &self.counter.to_string()]),
        };
        self.services.insert(name, command.stdin(Stdio::null()).spawn().expect("the service starts"));
    }

    fn end_service(&mut self, name: &str) {
        end(name, self.services.remove(name).expect("it runs"));
    }

    fn aeron(&self) -> PathBuf {
        self.shared.path().join("aeron")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for child in self.services.values_mut().chain(&mut self.driver) {
            // Either may fail because it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Sender {
    /// What became of the orders, by the sender's count.
    pub fn wait(mut self) -> Value {
        let mut said = String::new();
        self.0.stdout.take().expect("it is piped").read_to_string(&mut said).expect("it writes UTF-8");
        assert!(self.0.wait().expect("it is our child").success(), "the sender failed: {said}");
        serde_json::from_str(&said).expect("one line of JSON")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Either may fail because it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The order that a span names: Redis keys do, except those of accounts.
pub fn order(span: &Span) -> Option<u64> {
    let key = span.attribute("db.query.text").split(' ').nth(1)?;
    key.strip_prefix("order:").or_else(|| key.strip_prefix("engine:"))?.parse().ok()
}

/// As an operator does; it has to end well.
fn end(name: &str, mut child: Child) {
    // SAFETY: the process is our child and has not been waited for, so the number is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = crate::wait_for(name, || child.try_wait().expect("it is our child"));
    assert!(status.success(), "{name}: {status}");
}

/// Where `cargo xtask test` has put the builds.
fn programs() -> PathBuf {
    let folder = std::env::var_os("TRACER_PIPELINE").expect("`cargo xtask test` sets it");
    assert!(Path::new(&folder).is_dir(), "`cargo xtask test` builds the services");
    PathBuf::from(folder)
}

//! The services with their servers, as one thing that runs and ends.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{Variant, database, dir};
use crate::demo::{self, service::Service};

/// Names of the services, in the order in which an order meets them.
pub const SERVICES: [&str; 4] = ["ufes", "risk_control", "msg_order_engine", "counter"];

/// How long a service may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that an order meets, running. Dropping it ends all of it.
pub struct Chain {
    // In the order in which they end: services before what they need.
    services: Vec<(&'static str, Service)>,
    _servers: Vec<Service>,
    programs: PathBuf,
    ufes: SocketAddr,
    dir: PathBuf,
    _shared: TempDir,
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
    /// How many may be under way, in place of a rate.
    pub window: Option<u64>,
    /// Number of the first one.
    pub first: u64,
}

impl Chain {
    /// Starts the servers and the services; files are below `dir`.
    pub fn start(variant: Variant, dir_of_files: &Path) -> Result<Self> {
        Self::start_with(variant, dir_of_files, &[])
    }

    /// The same; the services have this in their environment as well.
    pub fn start_with(variant: Variant, dir_of_files: &Path, environment: &[(&str, String)]) -> Result<Self> {
        let (programs, dir) = (dir(variant), dir_of_files);
        let (redis, sql, counter, ufes) = (free()?, free()?, free()?, free()?);
        // Memory, as Aeron itself chooses; where there is none, a disk does too.
        let shared = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let aeron = shared.path().join("aeron");
        let mut driver = Command::new(programs.join("media_driver"));
        let mut driver = Service::start(driver.arg(&aeron).stdout(Stdio::piped()))?;
        let mut said = String::new();
        BufReader::new(driver.stdout()?).read_line(&mut said)?;
        ensure!(said == "ready\n", "the media driver ended");
        let (database, url) = database::start(sql, dir)?;
        let servers = vec![demo::start_redis(redis, dir)?, database, driver];

        let (redis, counter_address) = (redis.to_string(), counter.to_string());
        let aeron = aeron.to_str().context("a path that is text")?;
        let mut services = Vec::new();
        for name in SERVICES.into_iter().rev() {
            let mut service = Command::new(programs.join(name));
            match name {
                "ufes" => service.args(["--listen", &ufes.to_string(), "--aeron", aeron]),
                "risk_control" => service.args(["--aeron", aeron, "--redis", &redis]),
                "msg_order_engine" => {
                    service.args(["--aeron", aeron, "--redis", &redis, "--mysql", &url, "--counter", &counter_address])
                }
                _ => service.args(["--listen", &counter_address]),
            };
            service.envs(environment.iter().map(|(name, value)| (name, value)));
            service.stdin(Stdio::null()).stderr(File::create(dir.join(format!("{name}.log")))?);
            services.push((name, Service::start(&mut service)?));
        }
        services.reverse();
        let mut chain = Self { services, _servers: servers, programs, ufes, dir: dir.to_owned(), _shared: shared };
        chain.wait()?;
        Ok(chain)
    }

    /// Process number of a service.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.services.iter().find(|(service, _)| *service == name).map(|(_, service)| service.id())
    }

    /// An order goes the whole way.
    fn wait(&mut self) -> Result<()> {
        let ends = Instant::now() + PATIENCE;
        for attempt in 0.. {
            for (name, service) in &mut self.services {
                if let Some(status) = service.ended()? {
                    let said = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
                    bail!("{name} ended: {status}\n{said}");
                }
            }
            let one = Load { count: 1, rate: 1, burst: 0, window: None, first: u64::MAX / 2 + attempt };
            if TcpStream::connect(self.ufes).is_ok() && self.send(one)?["filled"] == 1 {
                return Ok(());
            }
            ensure!(Instant::now() < ends, "no order goes through the services; see {}", self.dir.display());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts sending orders; what became of them is one line of JSON.
    pub fn sender(&self, load: Load) -> Result<Service> {
        let mut orders = Command::new(self.programs.join("orders"));
        orders.args(["--to", &self.ufes.to_string()]);
        let flags = [("--count", load.count), ("--rate", load.rate), ("--burst", load.burst), ("--first", load.first)];
        for (flag, value) in flags.into_iter().chain(load.window.map(|window| ("--window", window))) {
            orders.arg(flag).arg(value.to_string());
        }
        Service::start(orders.stdin(Stdio::null()).stdout(Stdio::piped()))
    }

    /// Sends orders and says what became of them.
    pub fn send(&self, load: Load) -> Result<Value> {
        outcome(self.sender(load)?)
    }
}

/// What a sender says at its end.
pub fn outcome(mut sender: Service) -> Result<Value> {
    let mut said = String::new();
    BufReader::new(sender.stdout()?).read_line(&mut said)?;
    serde_json::from_str(&said).with_context(|| format!("the sender said {said:?}"))
}

/// An address that nobody listens on.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

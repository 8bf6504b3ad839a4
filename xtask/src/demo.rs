//! `cargo xtask demo`: an order service and a redis-server, both unmodified, and their traces in this terminal.

pub mod service;

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use self::service::Service;
use crate::{build_ebpf, run, setup, v0, workspace};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// End after so many orders, one each second; by default on Ctrl-C
    #[arg(long, value_name = "N")]
    orders: Option<u64>,
}

/// `cargo xtask demo`. However it ends, it leaves no process behind.
pub fn main(args: &Args) -> Result<()> {
    if !workspace::is_root() {
        bail!("the demo loads eBPF programs, which needs root: `sudo -E cargo xtask demo`");
    }
    setup::ensure(&setup::to_demo())?;
    build_ebpf::main()?;
    let mut build = workspace::cargo("build");
    run::visible(build.args(["--release", "--package", "tracer", "--bin", "tracer"]))?;
    v0::build(&["order_target"])?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let dir = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let _redis = start_redis(address, dir.path())?;
    let mut target = Command::new(v0::dir().join("order_target"));
    let mut target = Service::start(target.arg(address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut orders = target.stdin()?;
    let mut answers = BufReader::new(target.stdout()?).lines();
    answers.next().context("the order service ended")??;
    let mut agent = Command::new(workspace::target().join("release/tracer"));
    agent.args(["run", "--pid", &target.id().to_string(), "--export", "terminal"]);
    let mut agent = Service::start(&mut agent)?;

    eprintln!("an order each second; Ctrl-C ends");
    for _ in 0..args.orders.unwrap_or(u64::MAX) {
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            if let Some(status) = agent.ended()? {
                bail!("the agent ended: {status}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        writeln!(orders, "orders 1")?;
        answers.next().context("the order service ended")??;
    }
    // It exports what it still holds, and prints its balance.
    let status = agent.interrupt()?;
    ensure!(status.success(), "the agent ended: {status}");
    Ok(())
}

/// A server without persistence, when it listens.
pub fn start_redis(address: SocketAddr, dir: &std::path::Path) -> Result<Service> {
    let program = workspace::find_program("redis-server").context("redis-server was just set up")?;
    let mut redis = Command::new(program);
    redis.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""]);
    redis.arg("--dir").arg(dir).stdout(Stdio::null());
    let mut redis = Service::start(&mut redis)?;
    let ends = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = redis.ended()? {
            bail!("redis-server ended: {status}");
        }
        ensure!(Instant::now() < ends, "redis-server does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(redis)
}

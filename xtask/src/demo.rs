//! `cargo xtask demo`: the order services and their servers, traced in this terminal.

pub mod agent;
mod hops;
pub mod service;
mod slowest;
mod spans;
mod table;

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use self::{agent::Agent, service::Service};
use crate::{
    build_ebpf,
    pipeline::{self, Chain, Load, Variant},
    run, setup, workspace,
};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// How many orders to send; Ctrl-C ends it before
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    orders: u64,
    /// Orders in a second, a tenth of them at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// The services without the shim: what the agent sees of programs that know nothing of it
    #[arg(long)]
    unmodified: bool,
    /// Send the spans to a collector too, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
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
    let variant = if args.unmodified { Variant::Unmodified } else { Variant::Shim };
    pipeline::build(variant)?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let dir = tempfile::tempdir()?;
    let chain = run::step("start redis-server, MariaDB, the media driver and four services", || {
        Chain::start(variant, dir.path())
    })?;
    let file = dir.path().join("spans.jsonl");
    let mut agent = Agent::start(&file, args.otlp.as_deref())?;

    let burst = args.rate / 10;
    let mut sender = chain.sender(Load { count: args.orders, rate: args.rate, burst, window: None, first: 1 })?;
    let seconds = args.orders.div_ceil(args.rate);
    eprintln!("{} orders, {} a second, {burst} of them at once: {seconds} s; Ctrl-C ends", args.orders, args.rate);
    while sender.ended()?.is_none() {
        agent.running()?;
        if stop.load(Ordering::Relaxed) {
            sender.signal(libc::SIGTERM)?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let outcome = pipeline::outcome(sender)?;
    agent.finish()?;

    let spans = spans::read(&file)?;
    let traces = hops::traces(&spans);
    table::print(&traces);
    slowest::print(&traces);
    println!(
        "\n{} orders sent, {} filled; {} spans in {} traces",
        outcome["sent"],
        outcome["filled"],
        spans.len(),
        traces.len()
    );
    if args.unmodified {
        println!(
            "Without the shim no header says what caused a message: parents are found by its bytes, where they are known."
        );
    }
    Ok(())
}

/// A server without persistence, when it listens.
pub fn start_redis(address: SocketAddr, dir: &Path) -> Result<Service> {
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

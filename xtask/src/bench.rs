//! `cargo xtask bench`: what tracing costs, in one run and as ratios.
//!
//! One target process does one thing many times and times it itself: bare, in spans of an SDK, under the agent, and under
//! an equal bpftrace script. The variants take turns over several rounds, and a ratio is between figures of the same round,
//! so a noisy moment hurts both sides alike.

mod bpftrace;
mod collector;
mod empty_probe;
mod machine;
mod observer;
mod pipeline;
mod replay;
mod report;
mod samples;
mod server;
mod target;
mod uninvolved;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

use self::{
    bpftrace::Script,
    observer::Observer,
    pipeline::Pipeline,
    samples::{Row, Samples},
    target::Target,
};
use crate::{
    build_ebpf,
    demo::{self, service::Service},
    pipeline::Variant,
    run, setup, workspace,
};

#[derive(clap::Args)]
pub struct Args {
    /// How often the variants take turns
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Measure what has been built
    #[arg(long)]
    no_build: bool,
    /// Measure only this
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Calls, commands and servers
    Calls,
    /// The agent's processor time per span
    Replay,
    /// The order services
    Orders,
}

/// Messages per measurement: under the agent some tenths of a second, and their spans fit in its ring buffer.
const MESSAGES: usize = 20_000;
/// Redis commands per measurement.
const COMMANDS: usize = 5_000;
/// Rounds of the order services, each of which takes most of a minute.
const ORDER_ROUNDS: u16 = 3;
/// Requests of redis-benchmark per measurement, and how many it sends at a time.
const REQUESTS: usize = 100_000;
const PIPELINE: usize = 16;
/// Hits of the bare probe per measurement.
const HITS: usize = 100_000;

/// `cargo xtask bench`.
pub fn main(args: &Args) -> Result<()> {
    if !workspace::is_root() {
        bail!("the benchmark loads eBPF programs, which needs root: `sudo -E cargo xtask bench`");
    }
    setup::ensure(&setup::to_bench())?;
    if !args.no_build {
        build()?;
    }

    let dir = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let redis = demo::start_redis(address, dir.path())?;
    let mut bench = Bench {
        program: built("bench_target"),
        shim_program: built("bench_shim_target"),
        agent: built("tracer"),
        redis: address.to_string(),
        server: (address, redis.id()),
        dir: dir.path(),
        samples: Samples::default(),
    };
    let progress = ProgressBar::new(args.rounds.into())
        .with_style(indicatif::ProgressStyle::with_template("round {pos} of {len} {wide_bar} {eta}")?);
    let measures = |part| args.only.is_none_or(|only| only == part);
    for round in (1..=args.rounds).filter(|_| measures(Part::Calls)) {
        if progress.is_hidden() {
            eprintln!("round {round} of {} ...", args.rounds);
        }
        bench.round()?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let replays = if measures(Part::Replay) { run::step("record and replay", || bench.replays())? } else { Vec::new() };
    let mut orders = Pipeline::default();
    for round in (1..=args.rounds.min(ORDER_ROUNDS)).filter(|_| measures(Part::Orders)) {
        run::step(&format!("orders through the services, round {round}"), || orders.round(&bench.agent, dir.path()))?;
    }
    let path = workspace::target().join("bench.json");
    report::print(&bench.samples, &replays, args.rounds);
    if measures(Part::Orders) {
        orders.print();
    }
    report::write(&bench.samples, &replays, &orders, args.rounds, &path)?;
    println!("\n{}", path.display());
    Ok(())
}

/// The agent as users have it, and the target built for speed, as services are.
fn build() -> Result<()> {
    build_ebpf::main()?;
    let mut agent = workspace::cargo("build");
    run::visible(agent.args(["--release", "--package", "tracer", "--bin", "tracer"]))?;
    let mut target = workspace::cargo("build");
    target.args(["--profile", "bench", "--package", "tracer-test-programs"]);
    run::visible(target.args(["--bin", "bench_target", "--bin", "bench_shim_target"]))?;
    crate::pipeline::build(Variant::Unmodified)?;
    crate::pipeline::build(Variant::Otel)?;
    crate::pipeline::build(Variant::Shim)
}

/// cargo's profile `bench` has no folder of its own.
fn built(name: &str) -> PathBuf {
    workspace::target().join("release").join(name)
}

struct Bench<'a> {
    program: PathBuf,
    /// The agent leaves the prost functions of a program that has the shim alone, so that is another program.
    shim_program: PathBuf,
    agent: PathBuf,
    redis: String,
    /// Address and process of the Redis server.
    server: (SocketAddr, u32),
    dir: &'a Path,
    samples: Samples,
}

impl Bench<'_> {
    /// Every variant once. The targets are new processes in each round: where their memory lies is chance, too.
    fn round(&mut self) -> Result<()> {
        let mut target = Target::start(&self.program)?;
        self.alone(&mut target)?;
        self.under_the_agent(&mut target)?;
        self.under_bpftrace(&mut target)?;
        drop(target);
        let mut target = Target::start(&self.shim_program)?;
        self.shim_alone(&mut target)?;
        self.shim_under_the_agent(&mut target)?;
        drop(target);
        self.server_and_clients()
    }

    /// The server's throughput, without and with pipelines, bare, traced, and with traced clients.
    fn server_and_clients(&mut self) -> Result<()> {
        let (address, pid) = self.server;
        let single = [Row::ServerBare, Row::ServerTraced, Row::ServerAndClientTraced];
        let pipelined = [Row::PipelineBare, Row::PipelineServerTraced, Row::PipelineBothTraced];
        for (index, (single, pipelined)) in single.into_iter().zip(pipelined).enumerate() {
            let agent = match index {
                0 => None,
                _ => Some(server::attach(&self.agent, self.dir, pid, index == 2, &self.stats())?),
            };
            if index == 1 {
                self.samples.add(Row::CallUnderAgentOfServer, uninvolved::system_call());
            }
            self.samples.add(single, server::measure(address, REQUESTS, 1)?);
            self.samples.add(pipelined, server::measure(address, REQUESTS, PIPELINE)?);
            if let Some(agent) = agent {
                self.end_agent(agent, if index == 2 { 2 * REQUESTS } else { 0 })?;
            }
        }
        Ok(())
    }

    fn alone(&mut self, target: &mut Target) -> Result<()> {
        self.measure(target, Row::MessageBare, &format!("message {MESSAGES}"))?;
        self.measure(target, Row::MessageSdk, &format!("sdk message {MESSAGES}"))?;
        let get = self.get(COMMANDS);
        self.measure(target, Row::RedisBare, &get)?;
        self.measure(target, Row::RedisSdk, &format!("sdk {get}"))
    }

    fn under_the_agent(&mut self, target: &mut Target) -> Result<()> {
        let agent = self.attach_agent(target)?;
        self.measure(target, Row::MessageAgent, &format!("message {MESSAGES}"))?;
        let get = self.get(COMMANDS);
        self.measure(target, Row::RedisAgent, &get)?;
        self.end_agent(agent, 2 * MESSAGES + COMMANDS)
    }

    fn shim_alone(&mut self, target: &mut Target) -> Result<()> {
        self.samples.add(Row::CallBare, uninvolved::system_call());
        self.measure(target, Row::EncodeBare, &format!("encode {MESSAGES}"))?;
        self.measure(target, Row::EncodeShim, &format!("shim encode {MESSAGES}"))?;
        self.measure(target, Row::EncodeApi, &format!("otel encode {MESSAGES}"))?;
        self.measure(target, Row::EncodeSdk, &format!("sdk encode {MESSAGES}"))?;
        self.floor(target, Row::Floor)
    }

    fn shim_under_the_agent(&mut self, target: &mut Target) -> Result<()> {
        let agent = self.attach_agent(target)?;
        self.measure(target, Row::EncodeShimTraced, &format!("shim encode {MESSAGES}"))?;
        self.floor(target, Row::FloorUnderAgent)?;
        self.samples.add(Row::CallUnderAgent, uninvolved::system_call());
        let mut sample = Command::new(&self.agent);
        run::output(sample.args(["sample", "--ratio", "0.01", "--pid", &target.id().to_string()]))?;
        self.measure(target, Row::EncodeShimSampled, &format!("shim encode {MESSAGES}"))?;
        self.end_agent(agent, MESSAGES)
    }

    fn attach_agent(&self, target: &Target) -> Result<Observer> {
        Observer::agent(&self.agent, self.dir, "run", &[target.id()], |command| {
            command.args(["--export", "none", "--stats-json"]).arg(self.stats());
        })
    }

    /// Ends it and counts what it lost. Fewer spans than there were calls would make a cheap agent, and no benchmark.
    fn end_agent(&mut self, agent: Observer, calls: usize) -> Result<()> {
        agent.end()?;
        let stats = read_json(&self.stats())?;
        let lost = stats["lost"].as_object().context("the balance says what was lost")?;
        let lost: u64 = lost.values().filter_map(Value::as_u64).sum();
        self.samples.agent_lost(lost);
        let spans = stats["produced"].as_u64().context("the balance says how many spans there were")?;
        ensure!(spans + lost >= calls as u64, "{calls} calls gave {spans} spans: {stats:#}");
        Ok(())
    }

    fn stats(&self) -> PathBuf {
        self.dir.join("stats.json")
    }

    fn under_bpftrace(&mut self, target: &mut Target) -> Result<()> {
        let get = self.get(COMMANDS);
        let works = [
            (Row::MessageBpftrace, Script::Messages, format!("message {MESSAGES}"), "message 100".to_owned()),
            (Row::RedisBpftrace, Script::Redis, get, self.get(100)),
        ];
        for (row, script, work, warm_up) in works {
            if self.samples.failure(row).is_some() {
                continue;
            }
            // A kernel and a bpftrace that do not fit is a result, not an end.
            match bpftrace::attach(script, &self.program, target, self.dir, &warm_up) {
                Ok(observer) => {
                    self.measure(target, row, &work)?;
                    self.samples.bpftrace_lost(bpftrace::lost(&observer.end()?));
                }
                Err(error) => self.samples.fail(row, &format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// What any probe costs at the least.
    fn floor(&mut self, target: &mut Target, row: Row) -> Result<()> {
        let offset = target.ask("floor-site")?["offset"].as_u64().context("no \"offset\" in the answer")?;
        let _probe = empty_probe::attach(&self.shim_program, offset, target.id())?;
        self.measure(target, row, &format!("floor {HITS}"))
    }

    fn replays(&self) -> Result<Vec<replay::Replay>> {
        let works = [
            ("message", &self.program, format!("message {}", 5 * MESSAGES)),
            ("Redis GET", &self.program, self.get(4 * COMMANDS)),
            ("shim encode", &self.shim_program, format!("shim encode {}", 10 * MESSAGES)),
        ];
        let alone =
            works.iter().map(|(name, program, work)| replay::measure(name, work, &self.agent, program, self.dir));
        let orders = [("orders, unmodified", Variant::Unmodified), ("orders, shim", Variant::Shim)];
        let orders =
            orders.into_iter().map(|(name, variant)| replay::measure_orders(name, variant, &self.agent, self.dir));
        alone.chain(orders).collect()
    }

    fn measure(&mut self, target: &mut Target, row: Row, work: &str) -> Result<()> {
        let cost = target.cost(work)?;
        self.samples.add(row, cost.ns);
        // Most of a command's time is the server's and the scheduler's: what tracing adds shows in the processor time.
        let cpu_row = match row {
            Row::RedisBare => Row::RedisBareCpu,
            Row::RedisAgent => Row::RedisAgentCpu,
            Row::RedisSdk => Row::RedisSdkCpu,
            Row::RedisBpftrace => Row::RedisBpftraceCpu,
            _ => return Ok(()),
        };
        self.samples.add(cpu_row, cost.cpu_ns);
        Ok(())
    }

    fn get(&self, count: usize) -> String {
        format!("redis {} {count}", self.redis)
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

//! What it costs a Redis server to be traced: redis-benchmark against it, bare and under the agent.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result};

use super::observer::Observer;
use crate::{run, workspace};

/// Clients of redis-benchmark.
const CLIENTS: &str = "50";

/// Nanoseconds per GET of a run of `requests`, `pipeline` of them at a time.
pub fn measure(address: SocketAddr, requests: usize, pipeline: usize) -> Result<f64> {
    let program = workspace::find_program("redis-benchmark").context("redis-benchmark comes with redis-server")?;
    let mut benchmark = Command::new(program);
    benchmark.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-c", CLIENTS, "--csv"]);
    benchmark.args(["-t", "get", "-n", &requests.to_string(), "-P", &pipeline.to_string()]);
    let said = run::output(&mut benchmark)?;
    // "GET","123456.78",...
    let line = said.lines().find(|line| line.starts_with("\"GET\"")).context("redis-benchmark has no line of GET")?;
    let rate = line.split(',').nth(1).and_then(|cell| cell.trim_matches('"').parse::<f64>().ok());
    Ok(1e9 / rate.context("redis-benchmark tells no rate")?)
}

/// The agent on the server, and on the clients as well if `clients`.
pub fn attach(agent: &Path, dir: &Path, server: u32, clients: bool, stats: &Path) -> Result<Observer> {
    Observer::agent(agent, dir, "run", &[server], |command| {
        command.args(["--export", "none", "--stats-json"]).arg(stats);
        if clients {
            command.args(["--name", "redis-benchmark"]);
        }
    })
}

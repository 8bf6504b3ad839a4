//! What tracing costs the order services: orders in a second at saturation, and the slowest answers at a calm rate.
//!
//! The same running services are measured without the agent and then with it, with the shim and without; those with
//! tracing-opentelemetry by themselves. Each is measured with spans that are dropped and with spans that are sent to a collector on
//! the same machine. A ratio is between figures of one round; the base is the
//! unmodified build without an agent.

use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use serde_json::{Value, json};

use super::{collector::Collector, machine, observer::Observer};
use crate::pipeline::{Chain, Load, SERVICES, Variant};

/// Orders that are under way at saturation.
const WINDOW: u64 = 32;
/// Orders at saturation: some seconds.
const SATURATED: u64 = 8_000;
/// Orders at a calm rate.
const CALM: u64 = 2_000;
/// The calm rate, orders in a second.
const RATE: u64 = 500;

/// What is compared.
const ROWS: [&str; 8] = [
    "bare",
    "agent",
    "agent, to a collector",
    "shim, detached",
    "shim, agent attached",
    "shim, agent attached, to a collector",
    "tracing-opentelemetry",
    "tracing-opentelemetry, to a collector",
];

/// Figures of one row in one round.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Orders in a second at saturation.
    throughput: f64,
    /// Processor time of the whole machine for an order at saturation, in microseconds.
    cpu_us: f64,
    /// Microseconds within which 99 of 100 orders are answered at the calm rate.
    p99_us: f64,
}

/// All rounds, each with its rows.
#[derive(Debug, Default)]
pub struct Pipeline(Vec<[Figures; ROWS.len()]>);

impl Pipeline {
    /// Every row once.
    pub fn round(&mut self, agent: &Path, dir: &Path) -> Result<()> {
        let [bare, agent_drops, agent_sends] = build(Variant::Unmodified, agent, dir)?;
        let [detached, shim_drops, shim_sends] = build(Variant::Shim, agent, dir)?;
        let scratch = tempfile::tempdir_in(dir)?;
        let sdk_drops = warm(&Chain::start(Variant::Otel, scratch.path())?)?;
        let collector = Collector::start(scratch.path())?;
        let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.http))];
        let sdk_sends = warm(&Chain::start_with(Variant::Otel, scratch.path(), &endpoint)?)?;
        self.0.push([bare, agent_drops, agent_sends, detached, shim_drops, shim_sends, sdk_drops, sdk_sends]);
        Ok(())
    }

    /// For people.
    pub fn print(&self) {
        println!(
            "\n{:<40} {:>10} {:>8} {:>10} {:>8} {:>10} {:>8}",
            "an order, through four services", "orders/s", "ratio", "CPU, µs", "ratio", "p99, µs", "ratio"
        );
        for (row, name) in ROWS.iter().enumerate() {
            let [throughput, cpu, p99] = self.medians(row);
            print!("  {name:<38}");
            for (figure, ratio) in [throughput, cpu, p99] {
                print!(" {figure:>10.0} {ratio:>8.2}");
            }
            println!();
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows = ROWS.iter().enumerate().map(|(row, name)| {
            let [throughput, cpu, p99] = self.medians(row);
            json!({
                "name": name,
                "orders_per_second": throughput.0,
                "orders_per_second_ratio": throughput.1,
                "machine_cpu_us": cpu.0,
                "machine_cpu_ratio": cpu.1,
                "p99_us": p99.0,
                "p99_ratio": p99.1,
            })
        });
        json!({ "window": WINDOW, "saturated": SATURATED, "calm": CALM, "rate": RATE, "rounds": self.0.len(), "rows": rows.collect::<Vec<_>>() })
    }

    /// Throughput, processor time and p99, each with its ratio to the base.
    fn medians(&self, row: usize) -> [(f64, f64); 3] {
        let of = |figure: fn(&Figures) -> f64| {
            let values = self.0.iter().map(|round| figure(&round[row])).collect();
            let ratios = self.0.iter().map(|round| figure(&round[row]) / figure(&round[0])).collect();
            (median(values), median(ratios))
        };
        [of(|row| row.throughput), of(|row| row.cpu_us), of(|row| row.p99_us)]
    }
}

/// One build without the agent, with one that drops the spans, and with one that sends them.
fn build(variant: Variant, agent: &Path, dir: &Path) -> Result<[Figures; 3]> {
    let scratch = tempfile::tempdir_in(dir)?;
    let chain = Chain::start(variant, scratch.path())?;
    let without = warm(&chain)?;
    let pids: Vec<u32> = SERVICES.iter().filter_map(|name| chain.id(name)).collect();
    let under = |export: &str| {
        let observer = Observer::agent(agent, scratch.path(), "run", &pids, |command| {
            command.args(["--export", export]);
        })?;
        let figures = measure(&chain)?;
        observer.end()?;
        Ok::<_, Error>(figures)
    };
    let drops = under("none")?;
    let collector = Collector::start(scratch.path())?;
    let sends = under(&format!("otlp:http://{}", collector.grpc))?;
    Ok([without, drops, sends])
}

/// Measured once all connections are open and all code has run.
fn warm(chain: &Chain) -> Result<Figures> {
    measure(chain)?;
    measure(chain)
}

fn measure(chain: &Chain) -> Result<Figures> {
    let (throughput, cpu_us) = saturate(chain)?;
    let load = Load { count: CALM, rate: RATE, burst: 0, window: None, first: 1 };
    let calm = send(chain, load)?;
    Ok(Figures { throughput, cpu_us, p99_us: number(&calm, "p99_us")? })
}

/// As many orders as the services can take: orders in a second, and processor time of the whole machine for each, in microseconds.
pub fn saturate(chain: &Chain) -> Result<(f64, f64)> {
    let load = Load { count: SATURATED, rate: RATE, burst: 0, window: Some(WINDOW), first: 1 };
    let busy = machine::busy()?;
    let answers = send(chain, load)?;
    let busy = machine::busy()?.saturating_sub(busy);
    let count = SATURATED as f64;
    Ok((count / number(&answers, "seconds")?, busy.as_secs_f64() * 1e6 / count))
}

fn send(chain: &Chain, load: Load) -> Result<Value> {
    let answers = chain.send(load)?;
    ensure!(answers["filled"] == load.count, "an order was not filled: {answers}");
    Ok(answers)
}

fn number(answers: &Value, name: &str) -> Result<f64> {
    answers[name].as_f64().with_context(|| format!("{name} in {answers}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_within_a_round() {
        let row = |throughput, cpu_us, p99_us| Figures { throughput, cpu_us, p99_us };
        let round = |factor: f64| {
            let mut rows = [row(100.0 * factor, 5.0 / factor, 10.0 / factor); ROWS.len()];
            rows[1] = row(50.0 * factor, 10.0 / factor, 20.0 / factor);
            rows
        };
        let pipeline = Pipeline(vec![round(1.0), round(3.0), round(2.0)]);
        assert_eq!(pipeline.medians(1), [(100.0, 0.5), (5.0, 2.0), (10.0, 2.0)]);
    }
}

//! What tracing costs the order services: orders in a second at saturation, and the slowest answers at a calm rate.
//!
//! The same running services are measured without the agent and then with it, with the shim and without; those with
//! tracing-opentelemetry, whose exporter drops the spans, by themselves. A ratio is between figures of one round; the base is the
//! unmodified build without an agent.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::observer::Observer;
use crate::pipeline::{Chain, Load, SERVICES, Variant};

/// Orders that are under way at saturation.
const WINDOW: u64 = 32;
/// Orders at saturation, and at a calm rate.
const ORDERS: u64 = 2_000;
/// The calm rate, orders in a second.
const RATE: u64 = 500;

/// What is compared.
const ROWS: [&str; 5] =
    ["bare", "agent", "shim, detached", "shim, agent attached", "tracing-opentelemetry in the services"];

/// Figures of one row in one round.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Orders in a second at saturation.
    throughput: f64,
    /// Microseconds within which 99 of 100 orders are answered at the calm rate.
    p99_us: f64,
}

/// All rounds, each with its rows.
#[derive(Debug, Default)]
pub struct Pipeline(Vec<[Figures; ROWS.len()]>);

impl Pipeline {
    /// Every row once.
    pub fn round(&mut self, agent: &Path, dir: &Path) -> Result<()> {
        let [bare, traced] = build(Variant::Unmodified, agent, dir)?;
        let [detached, attached] = build(Variant::Shim, agent, dir)?;
        let scratch = tempfile::tempdir_in(dir)?;
        let sdk = warm(&Chain::start(Variant::Otel, scratch.path())?)?;
        self.0.push([bare, traced, detached, attached, sdk]);
        Ok(())
    }

    /// For people.
    pub fn print(&self) {
        println!(
            "\n{:<58} {:>10} {:>12} {:>10} {:>12}",
            "an order, through four services", "orders/s", "ratio", "p99, µs", "ratio"
        );
        for (row, name) in ROWS.iter().enumerate() {
            let [throughput, throughput_ratio, p99, p99_ratio] = self.medians(row);
            println!("  {name:<56} {throughput:>10.0} {throughput_ratio:>12.2} {p99:>10.0} {p99_ratio:>12.2}");
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows = ROWS.iter().enumerate().map(|(row, name)| {
            let [throughput, throughput_ratio, p99, p99_ratio] = self.medians(row);
            json!({
                "name": name,
                "orders_per_second": throughput,
                "orders_per_second_ratio": throughput_ratio,
                "p99_us": p99,
                "p99_ratio": p99_ratio,
            })
        });
        json!({ "window": WINDOW, "orders": ORDERS, "rate": RATE, "rounds": self.0.len(), "rows": rows.collect::<Vec<_>>() })
    }

    /// Throughput, its ratio to the base, p99, its ratio.
    fn medians(&self, row: usize) -> [f64; 4] {
        let of = |figure: fn(&Figures) -> f64| {
            let values = self.0.iter().map(|round| figure(&round[row])).collect();
            let ratios = self.0.iter().map(|round| figure(&round[row]) / figure(&round[0])).collect();
            [median(values), median(ratios)]
        };
        let ([throughput, throughput_ratio], [p99, p99_ratio]) = (of(|row| row.throughput), of(|row| row.p99_us));
        [throughput, throughput_ratio, p99, p99_ratio]
    }
}

/// One build without the agent and with it.
fn build(variant: Variant, agent: &Path, dir: &Path) -> Result<[Figures; 2]> {
    let scratch = tempfile::tempdir_in(dir)?;
    let chain = Chain::start(variant, scratch.path())?;
    let without = warm(&chain)?;
    let mut command = Command::new(agent);
    command.env("NO_COLOR", "1").args(["run", "--export", "none", "--pid"]);
    command.args(SERVICES.iter().filter_map(|name| chain.id(name)).map(|id| id.to_string()));
    let mut observer = Observer::start(&mut command, scratch.path())?;
    observer.wait_until("the agent attaches", |said| Ok(said.contains("Ctrl-C ends")))?;
    let with = measure(&chain)?;
    observer.end()?;
    Ok([without, with])
}

/// Measured once all connections are open and all code has run.
fn warm(chain: &Chain) -> Result<Figures> {
    measure(chain)?;
    measure(chain)
}

fn measure(chain: &Chain) -> Result<Figures> {
    let load = Load { count: ORDERS, rate: RATE, burst: 0, window: Some(WINDOW), first: 1 };
    let number = |answers: &Value, name: &str| answers[name].as_f64().with_context(|| format!("{name} in {answers}"));
    let saturated = chain.send(load)?;
    let calm = chain.send(Load { window: None, ..load })?;
    for answers in [&saturated, &calm] {
        ensure!(answers["filled"] == ORDERS, "an order was not filled: {answers}");
    }
    let throughput = ORDERS as f64 / number(&saturated, "seconds")?;
    Ok(Figures { throughput, p99_us: number(&calm, "p99_us")? })
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
        let row = |throughput, p99_us| Figures { throughput, p99_us };
        let round = |factor: f64| {
            [row(100.0, 10.0), row(50.0, 20.0), row(100.0, 10.0), row(80.0, 12.0), row(70.0, 15.0)]
                .map(|row| Figures { throughput: row.throughput * factor, p99_us: row.p99_us / factor })
        };
        let pipeline = Pipeline(vec![round(1.0), round(3.0), round(2.0)]);
        assert_eq!(pipeline.medians(1), [100.0, 0.5, 10.0, 2.0]);
    }
}

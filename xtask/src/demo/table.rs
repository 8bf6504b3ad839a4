//! Latencies of each hop over all orders.

use std::collections::HashMap;

use super::hops::Trace;

/// What is known of one hop.
struct Row {
    what: String,
    inner: bool,
    /// Where it is in the orders' way: the sum over orders of when it began.
    at: u64,
    nanos: Vec<u64>,
}

/// Prints the table: one row for each hop, in the order in which an order meets them.
pub fn print(traces: &[Trace<'_>]) {
    let rows = rows(traces);
    let width = rows.iter().map(|row| row.shown().chars().count()).max().unwrap_or(0).max(20);
    println!("\n{:<width$}  {:>7}  {:>9}  {:>9}  {:>9}  {:>9}", "hop, µs", "orders", "p50", "p90", "p99", "max");
    for row in &rows {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| micros(quantile(&row.nanos, q)));
        println!("{:<width$}  {:>7}  {p50:>9}  {p90:>9}  {p99:>9}  {max:>9}", row.shown(), row.nanos.len());
    }
}

fn rows(traces: &[Trace<'_>]) -> Vec<Row> {
    let mut rows: HashMap<String, Row> = HashMap::new();
    for trace in traces {
        // A service may make the same call several times for one order.
        let mut seen: HashMap<String, u32> = HashMap::new();
        for hop in trace.hops() {
            let times = seen.entry(hop.what.clone()).or_default();
            *times += 1;
            let what = if *times == 1 { hop.what } else { format!("{} ({times})", hop.what) };
            let row = rows.entry(what.clone()).or_insert(Row { what, inner: hop.inner, at: 0, nanos: Vec::new() });
            row.at += hop.at;
            row.nanos.push(hop.length);
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| row.at / row.nanos.len() as u64);
    for row in &mut rows {
        row.nanos.sort_unstable();
    }
    rows
}

impl Row {
    /// Parts stand below the hop that they are part of, without its name.
    fn shown(&self) -> String {
        if !self.inner {
            return self.what.clone();
        }
        let part = self.what.splitn(3, ": ").nth(2).unwrap_or(&self.what);
        format!("    {part}")
    }
}

/// Of sorted values; the largest one for 1.
fn quantile(sorted: &[u64], q: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(0)
}

/// Nanoseconds as microseconds.
pub fn micros(nanos: u64) -> String {
    format!("{:.1}", nanos as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let values: Vec<u64> = (0..=100).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|q| quantile(&values, q)), [50, 90, 99, 100]);
        assert_eq!((quantile(&[], 0.5), quantile(&[7], 0.99)), (0, 7));
        assert_eq!(micros(1_234_567), "1234.6");
    }
}

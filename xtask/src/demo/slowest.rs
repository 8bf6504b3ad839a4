//! Where the time of the slowest order went.

use super::{
    hops::{Hop, Trace},
    table::micros,
};

/// Columns of the bars.
const WIDTH: usize = 40;

/// Prints the longest trace as bars over time.
pub fn print(traces: &[Trace<'_>]) {
    let Some(trace) = traces.first() else { return };
    let length = trace.length().max(1);
    println!("\nthe slowest order: trace {}, {} µs", trace.spans[0].trace, micros(length));
    let mut hops = trace.hops();
    hops.sort_by_key(|hop| hop.at);
    let width = hops.iter().map(|hop| hop.what.chars().count()).max().unwrap_or(0);
    for hop in &hops {
        let share = 100.0 * hop.length as f64 / length as f64;
        println!("{:<width$}  {:>10}  {share:>5.1}%  {}", hop.what, micros(hop.length), bar(hop, length));
    }
}

fn bar(hop: &Hop, length: u64) -> String {
    let column = |at: u64| (at as f64 / length as f64 * WIDTH as f64) as usize;
    let start = column(hop.at).min(WIDTH - 1);
    let end = column(hop.at + hop.length).clamp(start + 1, WIDTH);
    format!("{}{}", " ".repeat(start), if hop.inner { "─" } else { "━" }.repeat(end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let hop = |at, length, inner| Hop { what: String::new(), inner, at, length };
        assert_eq!(bar(&hop(0, 100, false), 100), "━".repeat(WIDTH));
        assert_eq!(bar(&hop(50, 1, true), 100), format!("{}─", " ".repeat(WIDTH / 2)));
        assert_eq!(bar(&hop(100, 0, true), 100), format!("{}─", " ".repeat(WIDTH - 1)));
    }
}

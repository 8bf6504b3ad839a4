//! How a session is, for the page of the browser view.

use serde_json::{Value, json};

use crate::agent::{Balance, remedy};

/// The balance, what was lost and what helps. `targets` are the processes that are being traced, of a live session; `problem` is why not
/// all of a file could be read.
pub fn health(balance: &Balance, targets: Option<usize>, problem: Option<String>) -> Value {
    let equations: Vec<Value> = balance
        .equations()
        .iter()
        .map(|equation| {
            json!({
                "what": equation.what,
                "produced": equation.produced,
                "holds": equation.holds(),
                "fates": equation.fates.iter().filter(|(_, number)| *number > 0).collect::<Vec<_>>(),
            })
        })
        .collect();
    let dropped = balance.exporters.iter().flat_map(|exporter| {
        exporter.dropped.iter().map(|(cause, number)| (format!("{cause} of {}", exporter.name), *number))
    });
    let lost: Vec<Value> = balance
        .losses()
        .into_iter()
        .chain(dropped)
        .filter(|(_, number)| *number > 0)
        .map(|(cause, number)| json!({ "cause": cause, "number": number, "remedy": remedy(&cause) }))
        .collect();
    json!({ "targets": targets, "problem": problem, "balance": equations, "lost": lost })
}

//! A name that nothing has that runs: names that it may be meant for.

use std::collections::BTreeSet;

use crate::target::{Process, Selector};

/// From here on names are near, from 0 to 1 (Jaro-Winkler, as of flags and subcommands): a swapped, a missing or a wrong letter, or the
/// beginning of the name.
const NEAR: f64 = 0.85;
/// Names that are shown.
const MOST: usize = 3;
/// Shorter ones are near too much.
const SHORTEST: usize = 3;

/// Says of each name without wildcards that no process has, which ones that run are near it. It may well be right: what has it can
/// start later.
pub fn tell(names: &[String]) {
    if names.is_empty() {
        return;
    }
    let processes = Process::all();
    let running: BTreeSet<String> = processes.iter().flat_map(Process::names).collect();
    for name in names {
        let runs = |selector: Selector| processes.iter().any(|process| selector.matches(process));
        // A pattern that does not parse has been refused already.
        if Selector::new(std::slice::from_ref(name), &[], &[], &[]).is_ok_and(runs) {
            continue;
        }
        let near = near(name, &running);
        if !near.is_empty() {
            tracing::info!("nothing called {name} runs; names that are near it: {}", near.join(", "));
        }
    }
}

/// The nearest first.
fn near<'a>(name: &str, running: &'a BTreeSet<String>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let mut near: Vec<(f64, &str)> = running
        .iter()
        .filter(|other| other.len() >= SHORTEST)
        .map(|other| (strsim::jaro_winkler(&wanted, &other.to_lowercase()), other.as_str()))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(MOST).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn near_names_are_found_and_others_are_not() {
        let running = ["redis-server", "risk_control", "counter", "bash", "sh"].map(str::to_owned).into();
        let near = |name| near(name, &running);
        assert_eq!(near("redis-sever"), ["redis-server"]);
        assert_eq!(near("redis"), ["redis-server"]);
        assert_eq!(near("risk-control"), ["risk_control"]);
        assert_eq!(near("Conter"), ["counter"]);
        assert!(near("msg_order_engine").is_empty());
        assert!(near("s").is_empty());
        assert!(near("").is_empty());
    }
}

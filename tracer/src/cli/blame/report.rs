//! Adds up waits: by who waited for whom, and the worst moments.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::trace::Wait;
use crate::trace::server::{Holder, Own, Slot, Who};

/// Rows kept; further ones are summed in one.
const MAX_ROWS: usize = 4096;
/// Waits from which the worst moments are chosen.
const MAX_WORST: usize = 512;
/// Moments that are told.
const MOMENTS: usize = 10;
/// Lines of a moment.
const LINES: usize = 8;

/// A blocker or the server's own work, and who waited for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair {
    blocker: Arc<str>,
    what: Cow<'static, str>,
    kind: &'static str,
    waiting: Arc<str>,
    operation: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total_ns: u64,
    max_ns: u64,
    count: u64,
}

/// The report in the making.
#[derive(Debug, Default)]
pub struct Report {
    rows: HashMap<Pair, Sum>,
    /// The longest waits, unsorted.
    worst: Vec<Wait>,
    waits: u64,
    estimates: u64,
    commands: Option<[u64; 3]>,
}

impl Report {
    /// Takes a command that waited.
    pub fn add(&mut self, wait: Wait) {
        self.waits += 1;
        self.estimates += u64::from(wait.estimate);
        for blocker in &wait.blame.blockers {
            let Who { client, label, kind } = &blocker.who;
            self.count(&wait, Arc::clone(client), label.clone(), kind.name(), blocker.ns);
        }
        for &(own, ns) in &wait.blame.own {
            self.count(&wait, "(server)".into(), own.name().into(), "server", ns);
        }
        if wait.blame.rest_ns > 0 {
            self.count(&wait, "(others)".into(), "".into(), "rest", wait.blame.rest_ns);
        }
        self.worst.push(wait);
        if self.worst.len() > 2 * MAX_WORST {
            self.worst.sort_by_key(|wait| std::cmp::Reverse(wait.split.queue_ns));
            self.worst.truncate(MAX_WORST);
        }
    }

    /// Of how many commands: all, with their server's side, with an estimate of it.
    pub fn commands(&mut self, all: u64, served: u64, estimated: u64) {
        self.commands = Some([all, served, estimated]);
    }

    fn count(&mut self, wait: &Wait, blocker: Arc<str>, what: Cow<'static, str>, kind: &'static str, ns: u64) {
        let (waiting, operation) = (Arc::clone(&wait.service), wait.operation.clone());
        let mut pair = Pair { blocker, what, kind, waiting, operation };
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&pair) {
            pair = Pair {
                blocker: "(others)".into(),
                what: "".into(),
                kind: "rest",
                waiting: "".into(),
                operation: "".into(),
            };
        }
        let sum = self.rows.entry(pair).or_default();
        sum.total_ns += ns;
        sum.max_ns = sum.max_ns.max(ns);
        sum.count += 1;
    }

    fn sorted(&self) -> Vec<(&Pair, &Sum)> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|(a, sum_a), (b, sum_b)| {
            (sum_b.total_ns, &a.blocker, &a.what, &a.waiting).cmp(&(sum_a.total_ns, &b.blocker, &b.what, &b.waiting))
        });
        rows
    }

    /// The longest waits of which no two were at the same time at the same server.
    pub fn moments(&self) -> Vec<&Wait> {
        let mut waits: Vec<&Wait> = self.worst.iter().collect();
        waits.sort_by_key(|wait| (std::cmp::Reverse(wait.split.queue_ns), wait.start_ns));
        let mut moments: Vec<&Wait> = Vec::new();
        for wait in waits {
            let apart = |other: &&Wait| {
                other.server != wait.server || wait.end_ns <= other.start_ns || wait.start_ns >= other.end_ns
            };
            if moments.iter().all(apart) {
                moments.push(wait);
            }
            if moments.len() == MOMENTS {
                break;
            }
        }
        moments
    }

    /// Waits that have a part in the time of `moment`, at the same server; the longest first.
    pub fn beside(&self, moment: &Wait) -> Vec<&Wait> {
        let mut waits: Vec<&Wait> = self
            .worst
            .iter()
            .filter(|wait| wait.server == moment.server)
            .filter(|wait| wait.start_ns < moment.end_ns && moment.start_ns < wait.end_ns)
            .collect();
        waits.sort_by_key(|wait| (std::cmp::Reverse(wait.split.queue_ns), wait.start_ns));
        waits
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some([all, served, estimated]) = self.commands {
            writeln!(out, "{all} Redis commands: {served} with their server's side, {estimated} estimated")?;
        }
        if self.waits == 0 {
            return writeln!(out, "no command waited for another one");
        }
        writeln!(
            out,
            "{} commands waited for others{}\n",
            self.waits,
            match self.estimates {
                0 => String::new(),
                estimates => format!(" ({estimates} by estimate)"),
            }
        )?;
        writeln!(
            out,
            "{:<34} {:<11} {:<28} {:>10} {:>7} {:>10}",
            "held the server", "kind", "waited", "total", "count", "max"
        )?;
        for (pair, sum) in self.sorted() {
            let blocker = format!("{} {}", pair.blocker, pair.what);
            let waiting = format!("{} {}", pair.waiting, pair.operation);
            let (total, max) = (duration(sum.total_ns), duration(sum.max_ns));
            writeln!(out, "{blocker:<34} {:<11} {waiting:<28} {total:>10} {:>7} {max:>10}", pair.kind, sum.count)?;
        }
        writeln!(out, "\nthe worst moments")?;
        for (index, wait) in self.moments().into_iter().enumerate() {
            let estimate = if wait.estimate { ", estimated" } else { "" };
            let (whole, queue) = (duration(wait.end_ns - wait.start_ns), duration(wait.split.queue_ns));
            writeln!(
                out,
                "{:>2}. {} of {} at {}: {whole}, of which {queue} waiting{estimate}  trace {}",
                index + 1,
                wait.operation,
                wait.service,
                wait.server,
                wait.trace_id
            )?;
            let lines = story(wait);
            for line in lines.iter().take(LINES) {
                writeln!(out, "    {line}")?;
            }
            if lines.len() > LINES {
                writeln!(out, "    and {} more", lines.len() - LINES)?;
            }
        }
        Ok(())
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let rows: Vec<Value> = self
            .sorted()
            .into_iter()
            .map(|(pair, sum)| {
                json!({
                    "blocker": { "service": &*pair.blocker, "command": pair.what, "kind": pair.kind },
                    "waiting": { "service": &*pair.waiting, "command": pair.operation },
                    "total": seconds(sum.total_ns),
                    "max": seconds(sum.max_ns),
                    "count": sum.count,
                })
            })
            .collect();
        let moments: Vec<Value> = self
            .moments()
            .into_iter()
            .map(|wait| {
                let slots: Vec<Value> = wait
                    .story
                    .iter()
                    .map(|(slot, who)| {
                        let (client, command) = named(slot, who.as_ref());
                        json!({
                            "from": slot.start_ns as f64 / 1e9 - wait.start_ns as f64 / 1e9,
                            "to": slot.end_ns as f64 / 1e9 - wait.start_ns as f64 / 1e9,
                            "service": client,
                            "command": command,
                        })
                    })
                    .collect();
                json!({
                    "service": &*wait.service,
                    "command": wait.operation,
                    "server": &*wait.server,
                    "trace_id": wait.trace_id.to_string(),
                    "duration": seconds(wait.end_ns - wait.start_ns),
                    "queue": seconds(wait.split.queue_ns),
                    "service_time": seconds(wait.split.service_ns),
                    "network": seconds(wait.split.network_ns),
                    "estimate": wait.estimate,
                    "timeline": slots,
                })
            })
            .collect();
        json!({ "waits": self.waits, "estimates": self.estimates, "pairs": rows, "moments": moments })
    }
}

/// Client and command of a slot; the server itself where it is nobody's.
pub fn named(slot: &Slot, who: Option<&Who>) -> (String, String) {
    match (slot.holder, who) {
        (Holder::Own(own), _) => ("(server)".to_owned(), Own::name(own).to_owned()),
        (_, Some(who)) => (who.client.to_string(), who.label.to_string()),
        _ => ("(unknown)".to_owned(), String::new()),
    }
}

/// One line for each run of slots of the same client and command.
fn story(wait: &Wait) -> Vec<String> {
    let mut runs: Vec<(String, u64, u64, u64, u64)> = Vec::new();
    for (slot, who) in &wait.story {
        let (client, command) = named(slot, who.as_ref());
        let name = format!("{client} {command}");
        let busy = slot.end_ns - slot.start_ns;
        match runs.last_mut().filter(|run| run.0 == name) {
            Some(run) => {
                run.2 = slot.end_ns;
                run.3 += busy;
                run.4 += 1;
            }
            None => runs.push((name, slot.start_ns, slot.end_ns, busy, 1)),
        }
    }
    // The longest, in their order.
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(runs[index].3));
    order.truncate(LINES);
    let mut lines: Vec<String> = Vec::new();
    for (index, (name, from, _, busy, count)) in runs.iter().enumerate() {
        if order.contains(&index) {
            let at = duration(from.saturating_sub(wait.start_ns));
            let times = if *count > 1 { format!(" in {count} turns") } else { String::new() };
            lines.push(format!("+{at:>10}  {:>10}  {name}{times}", duration(*busy)));
        }
    }
    lines
}

/// Three decimals and a unit.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

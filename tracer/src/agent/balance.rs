//! The balance: every record and every span has one fate, and the counters of all layers agree on it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::export::ExporterStats;
use crate::export::metrics::{Counter, export_counters};
use crate::inspect::Limit;
use crate::model::Value as SpanValue;
use crate::trace::Counts;

/// What the eBPF programs have counted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KernelCounts(pub BTreeMap<&'static str, u64>);

impl KernelCounts {
    /// A counter; 0 if there is none of that name.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// The counters of all layers at one time.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Of the eBPF programs; empty in a replay of a recording.
    pub kernel: KernelCounts,
    /// Of the correlator.
    pub counts: Counts,
    /// Of the exporters.
    pub exporters: Vec<ExporterStats>,
}

/// One equation between counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// What is counted.
    pub what: String,
    /// Produced.
    pub produced: u64,
    /// Where it went, by fate.
    pub fates: Vec<(String, u64)>,
}

impl Equation {
    /// Whether every one has a fate.
    pub fn holds(&self) -> bool {
        self.produced == self.fates.iter().map(|(_, number)| number).sum::<u64>()
    }
}

impl Balance {
    /// All equations. They hold at the end of a session; while one runs, some things are on the way.
    pub fn equations(&self) -> Vec<Equation> {
        let counts = &self.counts;
        let fate = |name: &str, number: u64| (name.to_owned(), number);
        let mut equations = Vec::new();
        if !self.kernel.0.is_empty() {
            let kernel = |what: &str, due: &str, lost: &str, received: u64| Equation {
                what: what.to_owned(),
                produced: self.kernel.get(due),
                fates: vec![fate("received", received), fate("ring full", self.kernel.get(lost))],
            };
            equations.push(kernel("prost calls recorded", "messages", "messages_ring_full", counts.messages));
            equations.push(kernel("socket records", "sockets", "sockets_ring_full", counts.sockets));
            let (due, lost) = ("grpc_calls", "grpc_calls_ring_full");
            equations.push(kernel("gRPC calls recorded", due, lost, counts.grpc_calls));
            let (due, lost) = ("task_spawns", "task_spawns_ring_full");
            equations.push(kernel("spawned tasks recorded", due, lost, counts.task_spawns));
            equations.push(kernel("shim spans recorded", "shim", "shim_ring_full", counts.shim));
            let ended = vec![
                fate("received", counts.lifecycle),
                fate("of earlier processes", self.kernel.get("lifecycle_stale")),
                fate("ring full", self.kernel.get("lifecycle_ring_full")),
            ];
            let (what, produced) = ("starts, forks and ends of processes".to_owned(), self.kernel.get("lifecycle"));
            equations.push(Equation { what, produced, fates: ended });
            let connections = counts.connections;
            equations.push(kernel("connection records", "connections", "connections_ring_full", connections));
            let steps = counts.server_steps;
            equations.push(kernel("steps of Redis servers", "server_steps", "server_steps_ring_full", steps));
        }
        equations.push(Equation {
            what: "prost calls received".to_owned(),
            produced: counts.messages,
            fates: vec![
                fate("traced", counts.messages_traced),
                fate("packed commands", counts.packs),
                fate("unknown process", counts.messages_unknown),
            ],
        });
        equations.push(Equation {
            what: "shim spans received".to_owned(),
            produced: counts.shim,
            fates: vec![
                fate("traced", counts.shim_traced),
                fate("unknown process", counts.shim_unknown),
                fate("malformed", counts.shim_malformed),
            ],
        });
        equations.push(Equation {
            what: "Redis commands".to_owned(),
            produced: counts.commands,
            fates: vec![
                fate("with their server's side", counts.commands_served),
                fate("with an estimate of it", counts.commands_estimated),
                fate("without an answer to take apart", counts.commands_whole),
                fate("unmatched at their server", counts.commands_unmatched),
                fate("still held", counts.served_open),
            ],
        });
        for exporter in &self.exporters {
            let exported_at_once = exporter.exported - exporter.exported_from_spool;
            let mut fates = vec![fate("exported", exported_at_once), fate("sampled out", counts.sampled_out)];
            if exporter.exported_from_spool > 0 {
                fates.push(fate("exported from the spool", exporter.exported_from_spool));
            }
            fates.extend(exporter.dropped.iter().map(|(cause, number)| fate(&cause.replace('_', " "), *number)));
            if exporter.spooled > 0 {
                fates.push(fate("left in the spool", exporter.spooled));
            }
            if exporter.on_the_way > 0 {
                fates.push(fate("on the way", exporter.on_the_way));
            }
            let what = match exporter.recovered {
                0 => format!("spans for {}", exporter.name),
                recovered => format!("spans for {}, with {recovered} that were in the spool", exporter.name),
            };
            equations.push(Equation { what, produced: counts.spans + exporter.recovered, fates });
        }
        equations
    }

    /// Whether every equation holds.
    pub fn holds(&self) -> bool {
        self.equations().iter().all(Equation::holds)
    }

    /// Everything that was lost on the way, by cause.
    pub fn losses(&self) -> Vec<(String, u64)> {
        let redis = &self.counts.redis;
        let mut losses: Vec<(String, u64)> = [
            "messages_ring_full",
            "messages_map_full",
            "sites_unknown",
            "sockets_ring_full",
            "socket_calls_map_full",
            "connections_map_full",
            "socket_bytes_unseen",
            "socket_calls_uring",
            "redis_connections_encrypted",
            "lifecycle_ring_full",
            "connections_ring_full",
            "targets_map_full",
            "executables_map_full",
            "servers_map_full",
            "served_map_full",
            "advice_map_full",
            "grpc_calls_ring_full",
            "task_spawns_ring_full",
            "shim_ring_full",
            "server_steps_ring_full",
            "server_other_threads",
            "user_read_failed",
            "probe_sites_missing",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), self.kernel.get(name)))
        .collect();
        losses.extend([
            ("records_malformed".to_owned(), self.counts.records_malformed),
            ("messages_unknown".to_owned(), self.counts.messages_unknown),
            ("sockets_unknown".to_owned(), self.counts.sockets_unknown),
            ("shim_unknown".to_owned(), self.counts.shim_unknown),
            ("state_evicted".to_owned(), self.counts.state_evicted),
            ("packs_dropped".to_owned(), self.counts.packs_dropped),
            ("shim_malformed".to_owned(), self.counts.shim_malformed),
            ("redis_commands_unpaired".to_owned(), redis.commands_unpaired),
            ("redis_commands_unaligned".to_owned(), redis.commands_unaligned),
            ("redis_commands_overflow".to_owned(), redis.commands_overflow),
            ("redis_commands_truncated".to_owned(), redis.commands_truncated),
            ("redis_replies_overflow".to_owned(), redis.replies_overflow),
        ]);
        for (name, database) in self.counts.databases() {
            let lost = database.diagnostics.losses();
            losses.extend(lost.map(|(cause, number)| (format!("{name}_{cause}"), number)));
        }
        losses.retain(|(_, number)| *number > 0);
        losses
    }

    /// As OTLP counters: `tracer.spans` of each exporter, `tracer.produced`, `tracer.sampled_out`, and `tracer.lost` by cause.
    pub fn counters(&self) -> Vec<Counter> {
        let counter = |name, attributes, value| Counter { name, attributes, value };
        let mut counters = export_counters(&self.exporters);
        counters.push(counter("tracer.produced", Vec::new(), self.counts.spans));
        counters.push(counter("tracer.sampled_out", Vec::new(), self.counts.sampled_out));
        counters.extend(self.losses().into_iter().map(|(cause, number)| {
            counter("tracer.lost", vec![("tracer.cause".into(), SpanValue::Str(cause.into()))], number)
        }));
        counters
    }

    /// Whether nothing was lost, by any cause.
    pub fn is_whole(&self) -> bool {
        self.holds() && self.losses().is_empty() && self.exporters.iter().all(|exporter| exporter.dropped.is_empty())
    }

    /// For people at the end of a session: one line if nothing was lost, else all that is not zero.
    pub fn brief(&self) -> String {
        if !self.is_whole() {
            return self.lines(|equation| equation.produced > 0 || !equation.holds());
        }
        let of_exporter = |exporter: &ExporterStats| {
            let mut fates = vec![format!("{} exported", exporter.exported)];
            let others = [(self.counts.sampled_out, "sampled out"), (exporter.spooled, "left in the spool")];
            let others = others.into_iter().filter(|(number, _)| *number > 0);
            fates.extend(others.map(|(number, fate)| format!("{number} {fate}")));
            format!("{} spans for {}: {}", self.counts.spans + exporter.recovered, exporter.name, fates.join(", "))
        };
        let mut parts: Vec<String> = self.exporters.iter().map(of_exporter).collect();
        parts.push("nothing was lost".to_owned());
        parts.join("; ")
    }

    /// For people: one line per equation, and what was lost.
    pub fn text(&self) -> String {
        self.lines(|_| true)
    }

    fn lines(&self, is_shown: impl Fn(&Equation) -> bool) -> String {
        let mut text = String::new();
        for equation in self.equations().into_iter().filter(is_shown) {
            let fates: Vec<String> = equation.fates.iter().map(|(name, number)| format!("{number} {name}")).collect();
            let sign = if equation.holds() { "=" } else { "!=" };
            text.push_str(&format!("{}: {} {sign} {}\n", equation.what, equation.produced, fates.join(" + ")));
        }
        let encrypted = self.kernel.get("tls_connections");
        if encrypted > 0 {
            text.push_str(&format!("connections with TLS, of which only the peer is known: {encrypted}\n"));
        }
        for limit in Limit::ALL {
            let number = self.kernel.get(limit.counter());
            if number > 0 {
                text.push_str(&format!("{}: {number}\n", limit.counter()));
            }
        }
        for (cause, number) in self.losses() {
            text.push_str(&format!("lost: {cause} {number}\n"));
        }
        text
    }

    /// For programs (`--stats-json`).
    pub fn json(&self) -> Value {
        let counts = &self.counts;
        let mut all = json!({
            "balanced": self.holds(),
            "produced": counts.spans,
            "sampled_out": counts.sampled_out,
            "exporters": self.exporters,
            "lost": self.losses().into_iter().collect::<BTreeMap<_, _>>(),
            "kernel": self.kernel,
            "agent": {
                "records": counts.records,
                "messages": counts.messages,
                "messages_traced": counts.messages_traced,
                "sockets": counts.sockets,
                "sockets_ignored": counts.sockets_ignored,
                "connections_rejected": counts.connections_rejected,
                "connections_unannounced": counts.connections_unannounced,
                "commands": counts.commands,
                "commands_open": counts.commands_open,
                "commands_served": counts.commands_served,
                "commands_estimated": counts.commands_estimated,
                "commands_unmatched": counts.commands_unmatched,
                "server_steps": counts.server_steps,
                "timeline_evicted": counts.timeline_evicted,
                "flows_evicted": counts.flows_evicted,
                "connections_evicted": counts.connections_evicted,
                "leads_evicted": counts.leads_evicted,
                "held_evicted": counts.held_evicted,
                "encodes_evicted": counts.encodes_evicted,
                "estimates_evicted": counts.estimates_evicted,
                "packs": counts.packs,
                "packs_unsent": counts.packs_unsent,
                "payload_parents": counts.payload_parents,
                "payload_ambiguous": counts.payload_ambiguous,
                "payload_answers": counts.payload_answers,
                "grpc_calls": counts.grpc_calls,
                "grpc_bodies_unknown": counts.grpc_bodies_unknown,
                "grpc_calls_evicted": counts.grpc_calls_evicted,
                "grpc_parents": counts.grpc_parents,
                "grpc_answers": counts.grpc_answers,
                "task_spawns": counts.task_spawns,
                "task_spawns_unknown": counts.task_spawns_unknown,
                "tasks_in_flows": counts.tasks_in_flows,
                "payloads_evicted": counts.payloads_evicted,
                "content_parents": counts.content_parents,
                "lead_parents": counts.lead_parents,
                "content_ambiguous": counts.content_ambiguous,
                "contents_evicted": counts.contents_evicted,
                "shim_traced": counts.shim_traced,
            },
        });
        for (name, database) in counts.databases() {
            all["agent"][format!("commands_{name}")] = database.commands.into();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Balance, KernelCounts};
    use crate::export::ExporterStats;
    use crate::trace::Counts;

    fn balance(lost: u64) -> Balance {
        let exporter =
            ExporterStats { name: "terminal".to_owned(), accepted: 7, exported: 7, ..ExporterStats::default() };
        let counts = Counts { spans: 9, sampled_out: 2, ..Counts::default() };
        let kernel = KernelCounts([("sockets", lost), ("sockets_ring_full", lost)].into());
        Balance { kernel, counts, exporters: vec![exporter] }
    }

    #[test]
    fn it_is_one_line_unless_something_was_lost() {
        assert_eq!(balance(0).brief(), "9 spans for terminal: 7 exported, 2 sampled out; nothing was lost");
        assert!(balance(0).text().lines().count() > 8);
        let text = balance(3).brief();
        assert!(text.contains("socket records: 3 = 0 received + 3 ring full"), "{text}");
        assert!(text.contains("lost: sockets_ring_full 3"), "{text}");
        assert!(!text.contains("prost calls"), "what is zero is not in it: {text}");
    }

    #[test]
    fn a_span_without_a_fate_is_not_hidden() {
        let mut balance = balance(0);
        balance.counts.spans = 10;
        assert!(!balance.is_whole());
        assert!(balance.brief().contains("10 != 7 exported + 2 sampled out"), "{}", balance.brief());
    }
}

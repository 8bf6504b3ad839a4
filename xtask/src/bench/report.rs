//! The table and the JSON.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    machine,
    pipeline::Pipeline,
    replay::Replay,
    samples::{Row, Samples, Spread},
};

/// A group of rows that are compared with the first of them.
struct Group {
    key: &'static str,
    title: &'static str,
    rows: &'static [(Row, &'static str)],
}

const GROUPS: [Group; 7] = [
    Group {
        key: "message",
        title: "a message: prost encode + decode, 2 spans",
        rows: &[
            (Row::MessageBare, "bare"),
            (Row::MessageAgent, "agent"),
            (Row::MessageSdk, "tracing-opentelemetry"),
            (Row::MessageBpftrace, "bpftrace, uprobes + uretprobes"),
        ],
    },
    Group {
        key: "redis",
        title: "a Redis GET, 1 span, time that the caller waits",
        rows: &[
            (Row::RedisBare, "bare"),
            (Row::RedisAgent, "agent"),
            (Row::RedisSdk, "tracing-opentelemetry"),
            (Row::RedisBpftrace, "bpftrace, tracepoints"),
        ],
    },
    Group {
        key: "redis_cpu",
        title: "the same GET, processor time of the target",
        rows: &[
            (Row::RedisBareCpu, "bare"),
            (Row::RedisAgentCpu, "agent"),
            (Row::RedisSdkCpu, "tracing-opentelemetry"),
            (Row::RedisBpftraceCpu, "bpftrace, tracepoints"),
        ],
    },
    Group {
        key: "encode",
        title: "an encode, 1 span",
        rows: &[
            (Row::EncodeBare, "plain prost"),
            (Row::EncodeShim, "shim, detached"),
            (Row::EncodeShimTraced, "shim, agent attached"),
            (Row::EncodeShimSampled, "shim, agent attached, 1 % sampled"),
            (Row::EncodeApi, "OpenTelemetry API"),
            (Row::EncodeSdk, "tracing-opentelemetry"),
            (Row::Floor, "an empty probe on a nop5"),
            (Row::FloorUnderAgent, "the same, agent attached"),
        ],
    },
    Group {
        key: "uninvolved",
        title: "getppid of a process that is not traced",
        rows: &[
            (Row::CallBare, "bare"),
            (Row::CallUnderAgent, "agent on a service"),
            (Row::CallUnderAgentOfServer, "agent on a Redis server"),
        ],
    },
    Group {
        key: "redis_server",
        title: "redis-benchmark -c 50, time per GET",
        rows: &[
            (Row::ServerBare, "bare"),
            (Row::ServerTraced, "agent on the server"),
            (Row::ServerAndClientTraced, "agent on server and clients"),
        ],
    },
    Group {
        key: "redis_server_pipelined",
        title: "redis-benchmark -c 50 -P 16, time per GET",
        rows: &[
            (Row::PipelineBare, "bare"),
            (Row::PipelineServerTraced, "agent on the server"),
            (Row::PipelineBothTraced, "agent on server and clients"),
        ],
    },
];

/// Ratios that the project has set itself aims for: key, title, row, base.
const AIMS: [(&str, &str, Row, Row); 2] = [
    ("shim_attached_to_floor", "shim, agent attached / empty probe (aim: 1.5)", Row::EncodeShimTraced, Row::Floor),
    (
        "shim_attached_to_sdk",
        "shim, agent attached / tracing-opentelemetry (aim: 0.25)",
        Row::EncodeShimTraced,
        Row::EncodeSdk,
    ),
];

/// What the figures do not say.
const NOTES: [&str; 4] = [
    "the kernel turns a probe on a nop5 into a system call, so the tracepoints that follow a Redis server see it, too",
    "bpftrace's uretprobes abort a target that panics and catches it; this target does not panic",
    "tracing-opentelemetry and the API export to nothing: the cost of OTLP in the target comes on top",
    "each figure is the median over rounds of a median over batches; a ratio is between figures of one round",
];

/// For people.
pub fn print(samples: &Samples, replays: &[Replay], rounds: u16) {
    println!("{}, {}, load {}, {rounds} rounds", machine::kernel(), machine::cpus(), machine::load());
    for group in GROUPS.iter().filter(|_| !samples.is_empty()) {
        line(group.title, "ns, median", "ratio: min", "median", "max");
        for (row, name) in group.rows {
            let Some(ns) = samples.spread(*row) else {
                let reason = samples.failure(*row).unwrap_or("not measured");
                println!("  {name}: {}", reason.replace('\n', "\n    "));
                continue;
            };
            let base = group.rows[0].0;
            let ratio = samples.ratio(*row, base).filter(|_| *row != base);
            spread(&format!("  {name}"), &format!("{:.0}", ns.median), ratio);
        }
    }
    if !samples.is_empty() {
        line("aims", "", "ratio: min", "median", "max");
    }
    for (_, title, row, base) in AIMS.iter().filter(|_| !samples.is_empty()) {
        spread(&format!("  {title}"), "", samples.ratio(*row, *base));
    }
    if let Some(Spread { min, median, max }) = detached(samples) {
        println!("  shim, detached - plain prost (aim: 10 ns): {median:.1} ns, from {min:.1} to {max:.1}");
    }
    if !replays.is_empty() {
        println!("\nthe agent's processor time per span, replayed");
    }
    for replay in replays {
        println!("  {:<58} {:>10.0} ns   {} spans", replay.name, replay.per_span(), replay.spans);
    }
    let (agent, bpftrace) = samples.lost();
    println!("\nevents lost: agent {agent}, bpftrace {bpftrace}");
    for note in NOTES {
        println!("{note}");
    }
}

fn line(title: &str, ns: &str, min: &str, median: &str, max: &str) {
    println!("\n{title:<58} {ns:>10} {min:>12} {median:>8} {max:>8}");
}

fn spread(title: &str, ns: &str, spread: Option<Spread>) {
    print!("{title:<58} {ns:>10}");
    match spread {
        Some(Spread { min, median, max }) => println!(" {min:>12.2} {median:>8.2} {max:>8.2}"),
        None => println!(),
    }
}

fn detached(samples: &Samples) -> Option<Spread> {
    samples.difference(Row::EncodeShim, Row::EncodeBare)
}

/// For programs.
pub fn write(samples: &Samples, replays: &[Replay], orders: &Pipeline, rounds: u16, path: &Path) -> Result<()> {
    let group = |group: &Group| {
        let rows = group.rows.iter().map(|(row, name)| {
            json!({
                "name": name,
                "ns": samples.ns(*row),
                "spread": samples.spread(*row).map(of_spread),
                "ratio": samples.ratio(*row, group.rows[0].0).map(of_spread),
                "failure": samples.failure(*row),
            })
        });
        json!({ "key": group.key, "title": group.title, "rows": rows.collect::<Vec<_>>() })
    };
    let aim = |(key, title, row, base): &(&str, &str, Row, Row)| json!({ "key": key, "title": title, "ratio": samples.ratio(*row, *base).map(of_spread) });
    let replay = |replay: &Replay| {
        json!({
            "name": replay.name,
            "spans": replay.spans,
            "cpu_ns": replay.cpu_ns,
            "cpu_ns_per_span": replay.per_span(),
            "lost": replay.lost,
        })
    };
    let (agent, bpftrace) = samples.lost();
    let report = json!({
        "kernel": machine::kernel(),
        "cpus": machine::cpus(),
        "load": machine::load(),
        "rounds": rounds,
        "groups": GROUPS.iter().map(group).collect::<Vec<_>>(),
        "aims": AIMS.iter().map(aim).collect::<Vec<_>>(),
        "shim_detached_minus_plain_ns": detached(samples).map(of_spread),
        "replay": replays.iter().map(replay).collect::<Vec<_>>(),
        "pipeline": orders.json(),
        "lost": { "agent": agent, "bpftrace": bpftrace },
        "notes": NOTES,
    });
    fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| format!("cannot write {}", path.display()))
}

fn of_spread(spread: Spread) -> Value {
    json!({ "min": spread.min, "median": spread.median, "max": spread.max })
}

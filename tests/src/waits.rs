//! Two services at one Redis server: one keeps it busy, the other one waits for it.

use std::collections::HashMap;
use std::process::Command;

use crate::{Agent, Outcome, Span, Target};

/// OTLP's number of this kind of span.
pub const CLIENT: u64 = 3;
/// OTLP's number of this kind of span.
pub const SERVER: u64 = 2;
/// In nanoseconds.
pub const MS: f64 = 1e6;
/// Shorter waits blame nobody.
pub const MIN_WAIT_NS: f64 = 100_000.0;

/// A service with a connection of its own.
pub fn service(name: &str, url: &str) -> Target {
    let mut command = Command::new(crate::program("blame_target"));
    let mut target = Target::spawn(command.env("OTEL_SERVICE_NAME", name));
    target.ask(&format!("connect {url}"));
    target
}

/// Runs `work` in one service while another one does GETs, and says what was traced. The agent finds the server by itself if it
/// `attaches`.
pub fn beside_gets(url: &str, attaches: bool, work: impl FnOnce(&mut Target) + Send) -> Outcome {
    let mut blocker = service("blocker", url);
    let mut getter = service("getter", url);
    let pids = [blocker.pid().to_string(), getter.pid().to_string()];
    let mut agent = Agent::run(&["-p", &pids[0], &pids[1]]);
    // Both connections were open before: the first commands introduce them, and the server with them.
    blocker.ask("run 1 PING");
    if attaches {
        agent.wait_until("as a server");
    }
    getter.ask("run 50 GET k");
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            work(&mut blocker);
            blocker
        });
        while !busy.is_finished() {
            getter.ask("run 200 GET k");
        }
        assert!(busy.join().expect("the work is done").end().success());
    });
    getter.ask("run 50 GET k");
    assert!(getter.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    parts_add_up(&outcome);
    if attaches {
        let (served, commands) = (outcome.count("/agent/commands_served"), outcome.count("/agent/commands"));
        assert!(served * 100 >= commands * 90, "{served} of {commands} served\n{:#}", outcome.stats);
    }
    outcome
}

/// The spans of clients with this name.
pub fn clients<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a Span> {
    outcome.spans.iter().filter(|span| span.kind == CLIENT && span.name == name).collect()
}

/// How long a command waited, in nanoseconds.
pub fn queue(span: &Span) -> Option<f64> {
    span.seconds("tracer.redis.queue")
}

/// The parts of each span are its duration, and nearly every command has them.
fn parts_add_up(outcome: &Outcome) {
    let commands: Vec<&Span> = outcome.spans.iter().filter(|span| span.kind == CLIENT).collect();
    let mut split = 0;
    for span in &commands {
        let part = |name: &str| span.seconds(&format!("tracer.redis.{name}"));
        let (Some(network), Some(queue), Some(service)) = (part("network"), part("queue"), part("service")) else {
            continue;
        };
        split += 1;
        let (sum, duration) = (network + queue + service, span.nanos() as f64);
        assert!((sum - duration).abs() <= (duration * 0.05).max(20_000.0), "{sum} ns of {duration} ns: {span:?}");
        assert!(network >= 0.0 && queue >= 0.0 && service >= 0.0, "{span:?}");
        assert_eq!(
            span.attribute("tracer.redis.blocked_by").is_empty(),
            span.links.is_empty() && span.attribute("tracer.redis.blocked_by.server").is_empty(),
            "{span:?}"
        );
    }
    assert!(split * 100 >= commands.len() * 95, "{split} of {}\n{:#}", commands.len(), outcome.stats);
}

/// The GETs that waited for longer than this, each with its main blocker: command, service and kind. Not the first one: the
/// server may sleep since before it was attached to, and how late it woke is not known then.
pub fn blamed(outcome: &Outcome, longer_ns: f64) -> Vec<(&Span, [&str; 3])> {
    let mut gets = clients(outcome, "GET");
    gets.sort_by_key(|span| span.start);
    gets.into_iter()
        .skip(1)
        .filter(|span| queue(span).is_some_and(|queue| queue > longer_ns))
        .map(|span| {
            let main = span.links.first().map(|link| {
                ["", ".service", ".kind"].map(|name| {
                    link.attributes.get(&format!("tracer.redis.blocked_by{name}")).map_or("", String::as_str)
                })
            });
            (span, main.unwrap_or_default())
        })
        .collect()
}

/// The GETs of [`blamed`] that waited over a millisecond, most of it while the server did work of such a name; then the others,
/// and those of which that cannot be told.
pub fn behind(outcome: &Outcome, is_it: impl Fn(&str) -> bool) -> [Vec<(&Span, [&str; 3])>; 2] {
    let server = |is_it: &dyn Fn(&Span) -> bool| -> Vec<&Span> {
        outcome.spans.iter().filter(|span| span.kind == SERVER && is_it(span)).collect()
    };
    let work = server(&|span| is_it(&span.name));
    let own: HashMap<&str, &Span> =
        server(&|span| span.name == "GET").into_iter().map(|span| (span.parent.as_str(), span)).collect();
    let during = |from: u64, to: u64| -> u64 {
        work.iter().map(|span| span.end.min(to).saturating_sub(span.start.max(from))).sum()
    };
    let is_behind = |get: &Span, queue: u64| {
        let Some(own) = own.get(get.id.as_str()) else { return false };
        // It waited before its execution, and if there was no time for that, behind it. The network's part is around all that.
        let before = own.start.saturating_sub(get.start).min(queue);
        2 * (during(own.start - before, own.start) + during(own.end, own.end + queue - before)) >= queue
    };
    let all = blamed(outcome, MS).into_iter();
    let (behind, others) = all.partition(|(span, _)| is_behind(span, queue(span).unwrap_or_default() as u64));
    [behind, others]
}

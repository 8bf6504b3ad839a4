//! Who waits for whom, against a real server: the parts of a command's time, and the blame for its wait.

use tracer_tests::waits::{MIN_WAIT_NS, MS, SERVER, behind, beside_gets, blamed, clients, queue};
use tracer_tests::{Outcome, RedisServer, Span, Target, require_root, wait_for};

/// Runs `work` in one service while another one does GETs, and says what was traced.
fn traced(server: &RedisServer, work: impl FnOnce(&mut Target) + Send) -> Outcome {
    beside_gets(&format!("redis://{}/", server.address()), true, work)
}

/// Fails unless at least one GET waited for the blocker, and nearly all that did blame `expected` (command, kind) of it. A GET
/// that the server had no processor for has another cause, and must say so.
fn assert_blamed(outcome: &Outcome, expected: &[(&str, &str)]) {
    let [behind, others] = behind(outcome, |name| name != "GET");
    assert!(!behind.is_empty(), "no GET waited: {:#}", outcome.stats);
    let right = |[label, service, kind]: &[&str; 3]| {
        *service == "blocker" && expected.iter().any(|(name, of)| name == label && of == kind)
    };
    let wrong: Vec<_> = behind.iter().filter(|(_, main)| !right(main)).collect();
    eprintln!("{} GETs waited for the blocker, {} perhaps for something else", behind.len(), others.len());
    assert!(wrong.len() * 100 <= behind.len(), "{} of {}: {:#?}", wrong.len(), behind.len(), wrong);
    for (span, main) in others {
        let own = span.seconds("tracer.redis.blocked_by.server.duration").unwrap_or_default();
        assert!(right(&main) || own > 0.0, "neither the blocker nor the server itself: {span:?}");
    }
}

/// Microseconds per call since the statistics were reset.
fn usec_per_call(server: &RedisServer, command: &str) -> f64 {
    let answer = server.ask("INFO commandstats").expect("the server answers");
    let line = answer.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:"))).expect("it was called");
    let (_, rest) = line.split_once("usec_per_call=").expect("it is told");
    rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// The longest command since the latency monitor was switched on, in whole milliseconds.
fn longest_command_ms(server: &RedisServer) -> f64 {
    let answer = server.ask("LATENCY LATEST").expect("the server answers");
    let (_, event) = answer.split_once("\r\ncommand\r\n").expect("a slow command");
    // When, the latest, the longest.
    let longest = event.lines().nth(2).and_then(|line| line.strip_prefix(':'));
    longest.and_then(|number| number.parse().ok()).expect("a number")
}

fn longest_service_ms(outcome: &Outcome) -> f64 {
    let spans = clients(outcome, "SCAN").into_iter().chain(clients(outcome, "KEYS"));
    spans.filter_map(|span| span.seconds("tracer.redis.service")).fold(0.0, f64::max) / 1e6
}

fn mean_service_usec(outcome: &Outcome, name: &str) -> f64 {
    let spans = clients(outcome, name);
    let sum: f64 = spans.iter().filter_map(|span| span.seconds("tracer.redis.service")).sum();
    sum / spans.len() as f64 / 1e3
}

#[test]
fn gets_behind_a_scan_of_a_million_keys_blame_it() {
    require_root();
    let server = RedisServer::start();
    server.ask("DEBUG POPULATE 1000000");
    server.ask("CONFIG RESETSTAT");
    server.ask("CONFIG SET slowlog-log-slower-than 10000");
    server.ask("CONFIG SET latency-monitor-threshold 10");
    let outcome = traced(&server, |blocker| {
        blocker.ask("scan 20000");
        blocker.ask("run 2 KEYS *");
    });
    assert_blamed(&outcome, &[("SCAN", "keyspace"), ("KEYS", "keyspace")]);
    for span in clients(&outcome, "GET") {
        if queue(span).is_some_and(|queue| queue < MIN_WAIT_NS) {
            assert!(span.links.is_empty(), "it did not wait: {span:?}");
        }
    }
    // The blocker is linked by its own span.
    let ids: std::collections::HashSet<(&str, &str)> =
        outcome.spans.iter().map(|span| (span.trace.as_str(), span.id.as_str())).collect();
    for (span, _) in blamed(&outcome, MS) {
        assert!(span.links.iter().all(|link| ids.contains(&(link.trace.as_str(), link.id.as_str()))), "{span:?}");
    }
    for command in ["scan", "keys"] {
        let (said, seen) = (usec_per_call(&server, command), mean_service_usec(&outcome, &command.to_uppercase()));
        assert!((said - seen).abs() <= said * 0.2, "{command}: the server says {said} us, the spans {seen} us");
    }
    // The server's own slow log has the same two commands.
    let slow = server.ask("SLOWLOG GET 10").expect("the server answers");
    assert!(slow.contains("KEYS"), "{slow}");
    // Its latency monitor has the longest of them.
    let (said, seen) = (longest_command_ms(&server), longest_service_ms(&outcome));
    assert!((said - seen).abs() <= said * 0.2 + 1.0, "the server says {said} ms, the spans {seen} ms");
    // The server's work is below the client's span.
    let work: Vec<&Span> = outcome.spans.iter().filter(|span| span.kind == SERVER && span.name == "KEYS").collect();
    assert_eq!(work.len(), 2);
    for span in work {
        let client = clients(&outcome, "KEYS").into_iter().find(|client| client.id == span.parent).expect("its parent");
        assert_eq!((span.service.as_str(), &span.trace), ("redis-server", &client.trace));
        assert!(client.start <= span.start && span.end <= client.end);
    }
}

#[test]
fn scripts_transactions_pipelines_and_sleeps_are_told_apart() {
    require_root();
    for (what, label, kind) in [
        ("lua 200", "EVAL", "script"),
        ("transaction 10000", "MULTI", "transaction"),
        ("pipeline 10000", "PIPELINE SET", "pipeline"),
        ("run 1 DEBUG SLEEP 0.2", "DEBUG", "command"),
        ("run 1 DEBUG POPULATE 300000 other", "DEBUG", "command"),
    ] {
        let server = RedisServer::start();
        // More than once: a GET has to come in the middle, and short work is soon over.
        let outcome = traced(&server, |blocker| {
            for _ in 0..5 {
                blocker.ask(what);
            }
        });
        eprintln!(
            "{what}: {:?}",
            blamed(&outcome, MS).iter().map(|(span, main)| (span.nanos(), main)).collect::<Vec<_>>()
        );
        if what.starts_with("pipeline") {
            // The server reads 16 KiB at a time: the others get their turns between, and wait for a part of it each.
            let waited = blamed(&outcome, MIN_WAIT_NS).into_iter().filter(|(_, main)| main[1] == "blocker");
            let waited: Vec<_> = waited.collect();
            assert!(!waited.is_empty(), "no GET waited: {:#}", outcome.stats);
            for (span, main) in waited {
                assert_eq!(main, [label, "blocker", kind], "{span:?}");
            }
            continue;
        }
        assert_blamed(&outcome, &[(label, kind)]);
    }
}

#[test]
fn a_fork_is_the_commands_that_asked_for_it() {
    require_root();
    let server = RedisServer::start();
    // The more memory, the longer the server copies its page tables: a GET that comes meanwhile shall wait for milliseconds.
    let mut keys = 0;
    wait_for("a fork that takes long", || {
        keys += 500_000;
        server.ask(&format!("DEBUG POPULATE {keys} key 100"));
        server.ask("BGSAVE");
        server.stop_saving();
        (server.info("stats", "latest_fork_usec") >= 3_000).then_some(())
    });
    let outcome = traced(&server, |blocker| {
        // More than once: a GET has to come in the middle.
        for _ in 0..10 {
            blocker.ask("run 1 BGSAVE");
            blocker.ask("run 2000 SET written 1");
            server.stop_saving();
        }
    });
    let [behind, others] = behind(&outcome, |name| name == "BGSAVE");
    eprintln!("{} GETs waited for a fork of {keys} keys, {} perhaps for something else", behind.len(), others.len());
    assert!(!behind.is_empty(), "no GET waited: {:#}", outcome.stats);
    for (span, main) in behind {
        assert_eq!(main, ["BGSAVE", "blocker", "command"], "{span:?}");
    }
    // A SET can take long as well, as it copies the page that it writes to.
    for (span, main) in others {
        let own = span.seconds("tracer.redis.blocked_by.server.duration").unwrap_or_default();
        assert!(main[1] == "blocker" || own > 0.0, "neither the blocker nor the server itself: {span:?}");
    }
}

#[test]
fn blocking_commands_blame_nobody_and_are_blamed_by_nobody() {
    require_root();
    let server = RedisServer::start();
    let outcome = traced(&server, |blocker| {
        blocker.ask("run 2 BLPOP nothing 0.2");
        blocker.ask("run 2 XREAD BLOCK 200 STREAMS nothing $");
    });
    for name in ["BLPOP", "XREAD"] {
        let spans = clients(&outcome, name);
        assert_eq!(spans.len(), 2);
        for span in spans {
            assert!(span.nanos() as f64 >= 190.0 * MS && span.links.is_empty(), "{span:?}");
            assert!(span.seconds("tracer.redis.service").is_some_and(|parked| parked > 180.0 * MS), "{span:?}");
        }
    }
    // What they are blamed for is their execution at most, never the time for which they were parked.
    for span in clients(&outcome, "GET") {
        for link in &span.links {
            let of = |name: &str| link.attributes.get(name).map_or("", String::as_str);
            if matches!(of("tracer.redis.blocked_by"), "BLPOP" | "XREAD") {
                let seconds: f64 = of("tracer.redis.blocked_by.duration").parse().expect("seconds");
                assert!(seconds < 0.1, "{span:?}");
            }
        }
    }
}

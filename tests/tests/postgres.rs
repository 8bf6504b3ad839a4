//! PostgreSQL spans against a real server: one per command, no more and no less.

use std::collections::BTreeMap;
use std::process::Command;

use tracer_tests::postgres::{PASSWORD, without_values};
use tracer_tests::{Agent, Outcome, Postgres, Span, Target, require_root};

/// A process that uses psycopg, on the distribution's Python.
fn psycopg() -> Target {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/src/psycopg_target.py");
    Target::spawn(Command::new("/usr/bin/python3").arg(script))
}

fn commands(outcome: &Outcome) -> impl Iterator<Item = &Span> {
    outcome.spans.iter().filter(|span| span.attribute("db.system.name") == "postgresql")
}

fn of_kind<'a>(outcome: &'a Outcome, kind: &str) -> Vec<&'a Span> {
    commands(outcome).filter(|span| span.attribute("tracer.postgresql.command") == kind).collect()
}

fn named<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a Span> {
    commands(outcome).filter(|span| span.name == name).collect()
}

/// Statements that were run, by their texts, as the server counts them: none that failed.
fn by_text(outcome: &Outcome) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for span in commands(outcome) {
        let runs = matches!(span.attribute("tracer.postgresql.command"), "QUERY" | "EXECUTE");
        if runs && span.status != 2 {
            *counts.entry(without_values(span.attribute("db.query.text"))).or_default() += 1;
        }
    }
    counts
}

/// A server with a table of a hundred rows, a target, and an agent on it.
fn traced(arguments: &[&str]) -> (Postgres, Target, Agent) {
    require_root();
    let server = Postgres::start();
    let mut target = Target::start("postgres_target");
    target.ask(&format!("setup {} 100", server.url()));
    server.reset_statements();
    let pid = target.pid().to_string();
    let agent = Agent::run(&[&["-p", &pid], arguments].concat());
    (server, target, agent)
}

#[test]
fn spans_equal_what_the_server_counts_of_100_000_statements_of_three_clients() {
    require_root();
    let server = Postgres::start();
    let mut rust = Target::start("postgres_target");
    let mut python = psycopg();
    rust.ask(&format!("setup {} 100", server.url()));
    server.reset_statements();
    let agent = Agent::run(&["-p", &rust.pid().to_string(), "-p", &python.pid().to_string()]);
    // Half of them over the Unix socket.
    for url in [server.url(), server.unix_url()] {
        python.send(&format!("plain {url} 8000"));
        for (how, count) in [("simple", 9_000), ("prepared", 9_000), ("pipelined", 6_000), ("transactions", 250)] {
            rust.ask(&format!("{how} {url} {count}"));
        }
        rust.ask(&format!("sqlx {url} 16000"));
        python.answer();
        python.ask(&format!("pipeline {url} 1000"));
    }
    assert!(rust.end().success() && python.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let (counted, seen) = (server.statements(), by_text(&outcome));
    assert_eq!(seen, counted, "{:#}", outcome.stats);
    let all: u64 = seen.values().sum();
    assert!(all >= 100_000, "{all}");
    assert!(commands(&outcome).all(|span| span.attribute("tracer.postgresql.pairing").is_empty()));
    let exported = &outcome.exported;
    assert!(!exported.contains("secret") && !exported.contains(PASSWORD), "values stay in the agent");
}

#[test]
fn a_span_says_what_the_conventions_want() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("prepared {} 80", server.url()));
    target.ask(&format!("transactions {} 1", server.unix_url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let mut selects = named(&outcome, "SELECT orders");
    selects.sort_by_key(|span| span.start);
    assert_eq!(selects.len(), 40);
    for (index, span) in selects.into_iter().enumerate() {
        assert_eq!(span.kind, 3, "CLIENT");
        assert_eq!(span.attribute("tracer.postgresql.command"), "EXECUTE");
        assert_eq!(span.attribute("db.query.text"), "SELECT id, note FROM orders WHERE id BETWEEN $1 AND $2");
        assert_eq!(span.attribute("db.query.summary"), "SELECT orders");
        assert_eq!(span.attribute("db.response.returned_rows"), (index + 1).to_string());
        assert_eq!(span.attribute("db.namespace"), "shop");
        assert_eq!(span.attribute("server.address"), "127.0.0.1");
        assert_eq!(span.attribute("server.port"), server.port().to_string());
        assert_eq!(span.attribute("tracer.slow"), "");
        assert_eq!(span.status, 0);
    }
    assert_eq!(named(&outcome, "UPDATE orders")[0].attribute("tracer.postgresql.affected_rows"), "1");
    assert_eq!(named(&outcome, "PARSE UPDATE orders").len(), 1);
    let insert = named(&outcome, "INSERT orders");
    assert_eq!(insert.len(), 1);
    assert_eq!((insert[0].attribute("network.transport"), insert[0].attribute("server.address")), ("unix", ""));
}

#[test]
fn errors_are_states_without_their_text() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("errors {} 20", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    for (kind, code) in [("QUERY", "42P01"), ("QUERY", "42601"), ("PARSE", "42P01"), ("EXECUTE", "23505")] {
        let spans = of_kind(&outcome, kind);
        let failed: Vec<_> = spans.iter().filter(|span| span.attribute("db.response.status_code") == code).collect();
        assert_eq!(failed.len(), 20, "{kind} {code}");
        assert!(failed.iter().all(|span| span.status == 2 && span.attribute("error.type") == code));
    }
    assert!(!outcome.exported.contains("does not exist") && !outcome.exported.contains("Key (id)"));
}

#[test]
fn copies_are_commands_with_their_rows() {
    require_root();
    let server = Postgres::start();
    let mut rust = Target::start("postgres_target");
    let mut python = psycopg();
    rust.ask(&format!("setup {} 100", server.url()));
    server.reset_statements();
    let agent = Agent::run(&["-p", &rust.pid().to_string(), "-p", &python.pid().to_string()]);
    rust.ask(&format!("copies {} 5000", server.url()));
    rust.ask(&format!("sqlx-copies {} 5000", server.url()));
    python.ask(&format!("copy {} 5000", server.url()));
    assert!(rust.end().success() && python.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(by_text(&outcome), server.statements(), "{:#}", outcome.stats);
    let rows = |spans: Vec<&Span>, name: &str| -> Vec<String> {
        spans.into_iter().map(|span| span.attribute(name).to_owned()).filter(|rows| !rows.is_empty()).collect()
    };
    assert_eq!(rows(named(&outcome, "COPY copied"), "tracer.postgresql.affected_rows"), ["5000"; 3]);
    assert_eq!(rows(named(&outcome, "COPY SELECT copied"), "db.response.returned_rows"), ["5000"; 2]);
    let given_up = commands(&outcome).filter(|span| span.attribute("error.type") == "57014").count();
    assert_eq!(given_up, 1, "the copy that the client gave up");
    assert!(!outcome.exported.contains("secret"));
}

#[test]
fn what_follows_an_error_in_a_pipeline_was_skipped() {
    require_root();
    let server = Postgres::start();
    let mut target = psycopg();
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("failing {} 25", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for span in of_kind(&outcome, "EXECUTE") {
        *kinds.entry(span.attribute("error.type")).or_default() += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("", 25), ("22012", 25), ("skipped", 25)]));
    assert_eq!(by_text(&outcome), BTreeMap::from([("SELECT ?".to_owned(), 25)]));
    assert_eq!(server.statements(), by_text(&outcome));
}

#[test]
fn a_connection_that_was_open_before_is_followed() {
    require_root();
    let server = Postgres::start();
    for url in [server.url(), server.unix_url()] {
        let mut target = Target::start("postgres_target");
        target.ask(&format!("setup {url} 10"));
        target.ask(&format!("open {url} 0"));
        target.ask(&format!("kept {url} 3"));
        server.reset_statements();
        let agent = Agent::run(&["-p", &target.pid().to_string()]);
        target.ask(&format!("kept {url} 500"));
        let outcome = agent.stop();
        outcome.assert_complete();
        let counted: u64 = server.statements().values().sum();
        let (queries, executes) = (of_kind(&outcome, "QUERY").len(), of_kind(&outcome, "EXECUTE").len());
        assert_eq!((queries, executes, counted), (500, 500, 1000));
        assert_eq!(commands(&outcome).count(), 1000);
        // What was prepared before is not known.
        assert!(of_kind(&outcome, "EXECUTE").iter().all(|span| span.name == "EXECUTE"));
        let first = commands(&outcome).min_by_key(|span| span.start).expect("there are some");
        assert_eq!(first.attribute("tracer.postgresql.pairing"), "opened_before");
    }
}

#[test]
fn values_of_20_mb_pass_and_the_agent_keeps_none_of_them() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("large {} 20971520", server.url()));
    target.ask(&format!("simple {} 300", server.url()));
    let peak = agent.memory_kb("VmHWM");
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    // 64 MiB of it are the ring buffer, which is mapped twice.
    assert!(peak < 128 * 1024, "the agent needed {peak} kB");
    let counted = server.statements();
    // The server keeps the start of a text.
    assert_eq!(by_text(&outcome).values().sum::<u64>(), counted.values().sum::<u64>(), "{counted:?}");
    let large = |name: &str| -> u64 {
        let sizes = commands(&outcome).filter_map(|span| span.attribute(name).parse::<u64>().ok());
        sizes.filter(|size| *size > 1_000_000).sum()
    };
    let (sent, received) = (large("tracer.postgresql.request.size"), large("tracer.postgresql.response.size"));
    assert!((2 * 20_971_520..2 * 20_971_520 + 1_000).contains(&sent), "{sent}");
    assert!((20_971_520..20_971_520 + 1_000).contains(&received), "{received}");
}

#[test]
fn secrets_in_statements_stay_here() {
    let (server, mut target, agent) = traced(&["-vv", "--query-text", "full"]);
    target.ask(&format!("roles {} 50", server.url()));
    target.ask(&format!("prepared {} 40", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    assert_eq!(commands(&outcome).filter(|span| span.name.starts_with("ALTER")).count(), 100);
    for said in [&outcome.exported, &outcome.said] {
        assert!(!said.contains("secret-") && !said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn a_command_that_is_cancelled_or_whose_server_ends_has_failed() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("cancelled {} 0", server.url()));
    target.send(&format!("killed {} 0", server.url()));
    let pid = target.answer();
    // It may not have begun yet.
    tracer_tests::wait_for("the query", || {
        let running = server
            .ask(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE 'SELECT pg_sl%'"));
        (running.trim() == "1").then_some(())
    });
    server.ask(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(target.answer(), pid);
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    // A statement may be closed when the server is gone.
    let queries = of_kind(&outcome, "QUERY").into_iter();
    let failed: Vec<&str> = queries.filter(|span| span.status == 2).map(|span| span.attribute("error.type")).collect();
    assert_eq!(failed, ["57014", "57P01"]);
    assert!(!of_kind(&outcome, "CANCEL").is_empty());
}

#[test]
fn slow_commands_are_marked() {
    let (server, mut target, agent) = traced(&["--slow-query", "200"]);
    target.ask(&format!("slow {} 250", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let sleep = commands(&outcome).find(|span| span.attribute("db.query.text") == "SELECT pg_sleep(?)");
    let sleep = sleep.expect("there is one");
    assert_eq!(sleep.attribute("tracer.slow"), "true");
    assert!(sleep.nanos() >= 250_000_000, "{}", sleep.nanos());
}

#[test]
fn what_follows_a_decode_is_in_its_trace() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("flow {} 200", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let queries = named(&outcome, "SELECT orders");
    assert_eq!(queries.len(), 200);
    let processes: BTreeMap<(&str, &str), &Span> = outcome
        .spans
        .iter()
        .filter(|span| span.name.starts_with("process "))
        .map(|span| ((span.trace.as_str(), span.id.as_str()), span))
        .collect();
    for query in queries {
        assert!(processes.contains_key(&(query.trace.as_str(), query.parent.as_str())), "{query:?}");
    }
}

#[test]
fn the_command_line_client_is_traced_whole() {
    require_root();
    let server = Postgres::start();
    server.reset_statements();
    let sql = "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, 'hidden-value'), (2, NULL); SELECT * FROM t WHERE b = 'hidden-value'";
    let url = server.url();
    let outcome = Agent::start(&["--", "psql", "--no-psqlrc", &url, "--command", sql]).wait();
    outcome.assert_complete();
    // It sends all of it as one query.
    let spans: Vec<&Span> = commands(&outcome).collect();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "CREATE TABLE t INSERT t SELECT t");
    assert_eq!(spans[0].attribute("db.operation.batch.size"), "3");
    assert_eq!(spans[0].attribute("db.response.returned_rows"), "1");
    assert_eq!(spans[0].attribute("tracer.postgresql.affected_rows"), "2");
    assert!(spans[0].attribute("db.query.text").contains("INSERT INTO t VALUES (?, ?), ...;"));
    assert!(!outcome.exported.contains("hidden-value"));
}

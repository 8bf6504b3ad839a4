//! MySQL spans against a real MariaDB: one per command, no more and no less.

use std::collections::BTreeMap;

use tracer_tests::mariadb::PASSWORD;
use tracer_tests::{Agent, MariaDb, Outcome, Span, Target, require_root};

fn commands(outcome: &Outcome) -> impl Iterator<Item = &Span> {
    outcome.spans.iter().filter(|span| span.attribute("db.system.name") == "mariadb")
}

fn of_kind<'a>(outcome: &'a Outcome, kind: &str) -> Vec<&'a Span> {
    commands(outcome).filter(|span| span.attribute("tracer.mysql.command") == kind).collect()
}

fn named<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a Span> {
    commands(outcome).filter(|span| span.name == name).collect()
}

/// Statements that were run, by their first words, and commands for prepared statements, as the server counts them.
fn by_counter(outcome: &Outcome) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for span in commands(outcome) {
        let kind = span.attribute("tracer.mysql.command");
        let counter = match kind {
            "STMT_PREPARE" => Some("Com_stmt_prepare"),
            "STMT_EXECUTE" => Some("Com_stmt_execute"),
            _ => None,
        };
        if let Some(counter) = counter {
            *counts.entry(counter).or_default() += 1;
        }
        // A statement that cannot be parsed is none of these.
        if matches!(kind, "QUERY" | "STMT_EXECUTE") && span.attribute("db.response.status_code") != "1064" {
            for word in span.attribute("db.query.summary").split(' ') {
                let counter = match word {
                    "SELECT" => "Com_select",
                    "UPDATE" => "Com_update",
                    "INSERT" => "Com_insert",
                    "DELETE" => "Com_delete",
                    "USE" => "Com_change_db",
                    "COMMIT" => "Com_commit",
                    _ => continue,
                };
                *counts.entry(counter).or_default() += 1;
            }
        }
    }
    counts
}

/// Fails unless the spans are exactly what the server counted since `before`.
fn assert_same(server: &MariaDb, before: &BTreeMap<String, u64>, outcome: &Outcome) {
    outcome.assert_complete();
    let after = server.status();
    let names = [
        "Com_stmt_prepare",
        "Com_stmt_execute",
        "Com_select",
        "Com_update",
        "Com_insert",
        "Com_delete",
        "Com_change_db",
        "Com_commit",
    ];
    let counted: BTreeMap<&str, u64> =
        names.into_iter().map(|name| (name, after[name] - before[name])).filter(|(_, calls)| *calls > 0).collect();
    assert_eq!(by_counter(outcome), counted, "{:#}", outcome.stats);
}

/// A server with a table of a hundred rows, a target and an agent on it.
fn traced(arguments: &[&str]) -> (MariaDb, Target, Agent) {
    require_root();
    let server = MariaDb::start();
    let mut target = Target::start("mysql_target");
    target.ask(&format!("setup {} 100", server.url()));
    let pid = target.pid().to_string();
    let agent = Agent::run(&[&["-p", &pid], arguments].concat());
    (server, target, agent)
}

#[test]
fn commands_of_mysql_async_are_as_many_spans() {
    let (server, mut target, agent) = traced(&[]);
    let before = server.status();
    for (how, count) in [("text", 3_000), ("prepared", 3_000), ("mixed", 50), ("multi", 50), ("tasks", 1_000)] {
        assert_eq!(target.ask(&format!("{how} {} {count}", server.url())), count);
    }
    assert!(target.end().success());
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
    let (pings, resets) = (of_kind(&outcome, "PING").len(), of_kind(&outcome, "RESET_CONNECTION").len());
    assert_eq!(pings, 50);
    // 50 are of `mixed`. How many more the pool makes before it closes its connections is chance, but the server counts them.
    assert!(resets >= 50, "{resets}");
    assert_eq!((pings + resets) as u64, server.status()["Com_admin_commands"] - before["Com_admin_commands"]);
    assert_eq!(of_kind(&outcome, "STMT_EXECUTE").len(), 3_000 + 50 + 1_000);
    let everything = format!("{:?}{}", outcome.spans, outcome.said);
    assert!(!everything.contains("secret") && !everything.contains(PASSWORD), "values stay in the agent");
}

#[test]
fn a_span_says_what_the_conventions_want() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("prepared {} 80", server.url()));
    target.ask(&format!("multi {} 1", server.url()));
    target.ask(&format!("mixed {} 1", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let mut selects = named(&outcome, "SELECT orders");
    selects.sort_by_key(|span| span.start);
    assert_eq!(selects.len(), 40);
    for (index, span) in selects.into_iter().enumerate() {
        assert_eq!(span.kind, 3, "CLIENT");
        assert_eq!(span.attribute("tracer.mysql.command"), "STMT_EXECUTE");
        assert_eq!(span.attribute("db.query.text"), "SELECT id, note FROM orders WHERE id BETWEEN ? AND ?");
        assert_eq!(span.attribute("db.query.summary"), "SELECT orders");
        assert_eq!(span.attribute("db.response.returned_rows"), (index + 1).to_string());
        assert_eq!(span.attribute("db.namespace"), "shop");
        assert_eq!(span.attribute("server.address"), "127.0.0.1");
        assert_eq!(span.attribute("server.port"), server.port().to_string());
        assert_eq!(span.attribute("tracer.slow"), "");
        assert_eq!(span.status, 0);
    }
    let multi = named(&outcome, "SELECT UPDATE orders SELECT orders");
    assert_eq!(multi.len(), 1);
    assert_eq!(multi[0].attribute("db.operation.batch.size"), "3");
    assert_eq!(multi[0].attribute("db.response.returned_rows"), "8");
    let elsewhere: Vec<&str> = named(&outcome, "SELECT").iter().map(|span| span.attribute("db.namespace")).collect();
    assert!(elsewhere.contains(&"mysql"), "the schema follows USE: {elsewhere:?}");
}

#[test]
fn errors_are_numbers_without_their_text() {
    let (server, mut target, agent) = traced(&[]);
    target.ask(&format!("errors {} 20", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    for (kind, code, count) in [("QUERY", "1146", 20), ("QUERY", "1064", 20), ("STMT_PREPARE", "1146", 20)] {
        let spans = of_kind(&outcome, kind);
        let failed: Vec<_> = spans.iter().filter(|span| span.attribute("db.response.status_code") == code).collect();
        assert_eq!(failed.len(), count, "{kind} {code}");
        assert!(failed.iter().all(|span| span.status == 2 && span.attribute("error.type") == code));
    }
    assert!(!format!("{:?}", outcome.spans).contains("doesn't exist"));
}

#[test]
fn values_of_20_mb_pass_and_the_agent_keeps_none_of_them() {
    let (server, mut target, agent) = traced(&[]);
    let before = server.status();
    target.ask(&format!("large {} 20971520", server.url()));
    target.ask(&format!("text {} 300", server.url()));
    let peak = agent.memory_kb("VmHWM");
    assert!(target.end().success());
    let outcome = agent.stop();
    assert_same(&server, &before, &outcome);
    // 64 MiB of it are the ring buffer, which is mapped twice.
    assert!(peak < 128 * 1024, "the agent needed {peak} kB");
    let large = |name: &str| -> u64 {
        let sizes = commands(&outcome).filter_map(|span| span.attribute(name).parse::<u64>().ok());
        sizes.filter(|size| *size > 1_000_000).sum()
    };
    // One value each way in text and one in binary form; mysql_async sends the latter in pieces of 16 MiB.
    for name in ["tracer.mysql.request.size", "tracer.mysql.response.size"] {
        assert!((2 * 20_971_520..2 * 20_971_520 + 1_000).contains(&large(name)), "{name}: {}", large(name));
    }
}

#[test]
fn a_connection_that_was_open_before_is_followed() {
    require_root();
    let server = MariaDb::start();
    let mut target = Target::start("mysql_target");
    let url = server.url();
    target.ask(&format!("setup {url} 10"));
    target.ask(&format!("open {url} 0"));
    target.ask(&format!("kept {url} 3"));
    let before = server.status();
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("kept {url} 500"));
    let outcome = agent.stop();
    outcome.assert_complete();
    let spans: Vec<&Span> = outcome.spans.iter().filter(|span| span.attribute("db.system.name") == "mysql").collect();
    let kinds = |kind: &str| spans.iter().filter(|span| span.attribute("tracer.mysql.command") == kind).count() as u64;
    let after = server.status();
    assert_eq!(kinds("STMT_EXECUTE"), after["Com_stmt_execute"] - before["Com_stmt_execute"]);
    assert_eq!((kinds("STMT_EXECUTE"), kinds("QUERY"), spans.len()), (500, 500, 1000));
    // What was prepared before is not known.
    assert!(spans.iter().all(|span| span.attribute("tracer.mysql.command") == "QUERY" || span.name == "STMT_EXECUTE"));
    assert_eq!(spans[0].attribute("tracer.mysql.pairing"), "opened_before");
}

#[test]
fn a_killed_connection_ends_its_command_with_an_error() {
    let (server, mut target, agent) = traced(&[]);
    target.send(&format!("killed {} 0", server.url()));
    let id = target.answer();
    // It may not have begun yet.
    tracer_tests::wait_for("the query", || {
        let running = server.ask(&format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id} AND info LIKE 'SELECT SLEEP%'"
        ));
        (running.trim() == "1").then_some(())
    });
    server.ask(&format!("KILL CONNECTION {id}"));
    assert_eq!(target.answer(), id);
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let failed: Vec<&Span> = commands(&outcome).filter(|span| span.status == 2).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].attribute("db.query.text"), "SELECT SLEEP(?)");
    assert!(
        ["connection_closed", "1317", "1927", "1053"].contains(&failed[0].attribute("error.type")),
        "{:?}",
        failed[0]
    );
}

#[test]
fn slow_commands_are_marked() {
    let (server, mut target, agent) = traced(&["--slow-query", "200"]);
    target.ask(&format!("slow {} 250", server.url()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let sleep = named(&outcome, "SELECT").into_iter().find(|span| span.attribute("db.query.text") == "SELECT SLEEP(?)");
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
    let server = MariaDb::start();
    let before = server.status();
    let client = server.client();
    let sql = "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, 'hidden-value'), (2, NULL); SELECT * FROM t WHERE b = 'hidden-value'";
    let mut arguments = vec!["--"];
    arguments.extend(client.iter().map(String::as_str));
    arguments.extend(["--execute", sql]);
    let outcome = Agent::start(&arguments).wait();
    assert_same(&server, &before, &outcome);
    let insert = named(&outcome, "INSERT t");
    assert_eq!(insert.len(), 1);
    assert_eq!(insert[0].attribute("db.query.text"), "INSERT INTO t VALUES (?, ?), ...");
    assert_eq!(insert[0].attribute("tracer.mysql.affected_rows"), "2");
    assert_eq!(named(&outcome, "SELECT t")[0].attribute("db.response.returned_rows"), "1");
    let everything = format!("{:?}", outcome.spans);
    assert!(!everything.contains("hidden-value"), "{everything}");
}

#[test]
fn a_compressed_connection_is_counted_and_not_guessed_at() {
    require_root();
    let server = MariaDb::start();
    let client = server.client();
    let mut arguments = vec!["--"];
    arguments.extend(client.iter().map(String::as_str));
    arguments.extend(["--compress", "--execute", "SELECT 1"]);
    let outcome = Agent::start(&arguments).wait();
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(commands(&outcome).count(), 0);
    assert_eq!(outcome.count("/lost/mysql_connections_compressed"), 1);
}

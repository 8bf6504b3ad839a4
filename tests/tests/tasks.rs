//! What a tokio task does belongs to the message that the task has decoded, on whichever thread it runs.

use std::collections::HashMap;

use tracer_tests::{Agent, Outcome, RedisServer, Span, Target, require_root};

const MESSAGES: usize = 50_000;

/// Runs the program without the shim and returns what the agent saw.
fn run(how: &str) -> Outcome {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("task_target");
    // All of it fits, however the machine shares its time between the agent, the target and the server: this is about parents.
    let ring = (128 << 20).to_string();
    let agent = Agent::run(&["-p", &target.pid().to_string(), "--query-text", "full", "--ring-size", &ring]);
    target.ask(&format!("{how} {} {MESSAGES}", server.address()));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    outcome
}

/// The message that a command is of, as its key tells.
fn told(span: &Span) -> Option<usize> {
    let text = span.attribute("db.query.text");
    let key = text.strip_prefix("GET order:").or_else(|| text.strip_prefix("SET report:"))?;
    let digits: String = key.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Shares of the commands and reports whose parent is the message's `process` span.
fn right_parents(outcome: &Outcome) -> (f64, f64) {
    let processes: HashMap<(&str, &str), usize> = outcome
        .spans
        .iter()
        .filter(|span| span.name.starts_with("process "))
        .map(|span| {
            ((&*span.trace, &*span.id), usize::from_str_radix(&span.trace, 16).expect("the number of a message"))
        })
        .collect();
    assert_eq!(processes.len(), MESSAGES);
    let (mut commands, mut right_commands, mut reports, mut right_reports) = (0, 0, 0, 0);
    for span in &outcome.spans {
        let parent = processes.get(&(&*span.trace, &*span.parent)).copied();
        if let Some(id) = told(span) {
            commands += 1;
            right_commands += usize::from(parent == Some(id));
        } else if span.name.starts_with("encode ") {
            reports += 1;
            let size: usize = span.attribute("tracer.message.size").parse().expect("a size");
            right_reports += usize::from(parent.is_some_and(|id| report_size(id) == size));
        }
    }
    assert_eq!((commands, reports), (2 * MESSAGES, MESSAGES));
    (right_commands as f64 / commands as f64, right_reports as f64 / reports as f64)
}

/// Size of the report of a message: the order's number is one byte, the text has its length before it, the price eight.
fn report_size(id: usize) -> usize {
    let text = id % 1_000;
    let length = if text < 128 { 1 } else { 2 };
    2 + (1 + length + text) + 9
}

#[test]
fn sixty_four_tasks_with_a_connection_each() {
    let outcome = run("own");
    let (commands, reports) = right_parents(&outcome);
    assert!(reports >= 0.999, "{reports} of the reports");
    assert!(commands >= 0.999, "{commands} of the commands");
}

#[test]
fn sixty_four_tasks_with_one_connection() {
    let outcome = run("multiplexed");
    let (commands, reports) = right_parents(&outcome);
    assert!(reports >= 0.999, "{reports} of the reports");
    assert!(commands >= 0.999, "{commands} of the commands");
}

/// Its driver is spawned in the trace of one message, and works for all.
#[test]
fn sixty_four_tasks_with_a_connection_that_one_of_them_makes() {
    let outcome = run("lazy");
    let (commands, reports) = right_parents(&outcome);
    assert!(reports >= 0.999, "{reports} of the reports");
    assert!(commands >= 0.999, "{commands} of the commands");
}

#[test]
fn sixty_four_tasks_that_spawn_one_for_each_command() {
    let outcome = run("spawned");
    let (commands, reports) = right_parents(&outcome);
    assert!(reports >= 0.999, "{reports} of the reports");
    assert!(commands >= 0.999, "{commands} of the commands");
}

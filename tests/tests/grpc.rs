//! A gRPC call in the middle of a handler belongs to the message that is handled, and so does what follows it.

use std::collections::HashMap;

use tracer_tests::{Agent, Outcome, Span, Target, require_root};

/// What a test runs.
struct Case {
    /// `handle`: a task for each message; `loop`: tasks that take one message after the other; `lazy`: those, on a connection that the
    /// first handler makes for all.
    command: &'static str,
    how: &'static str,
    /// Calls that are answered, for each message.
    answered: usize,
    /// Calls that are refused, for each message.
    refused: usize,
    /// The server is another process.
    apart: bool,
    messages: usize,
}

impl Case {
    fn run(&self) -> Outcome {
        require_root();
        let mut target = Target::start("grpc_target");
        let mut server = self.apart.then(|| Target::start("grpc_target"));
        let port = server.as_mut().unwrap_or(&mut target).ask("serve");
        let server_pid = server.as_ref().unwrap_or(&target).pid().to_string();
        let agent = Agent::run(&["-p", &target.pid().to_string(), "-p", &server_pid]);
        target.ask(&format!("{} {port} {} {}", self.command, self.messages, self.how));
        assert!(target.end().success());
        drop(server);
        let outcome = agent.stop();
        outcome.assert_complete();
        outcome
    }

    /// Every span of every message has the parent that it should have, and none is elsewhere.
    fn check(&self) {
        let outcome = self.run();
        let spans: HashMap<&str, &Span> = outcome.spans.iter().map(|span| (&*span.id, span)).collect();
        let parent = |span: &Span| spans.get(&*span.parent).map_or("none", |parent| parent.name.as_str());
        let mut seen: HashMap<(u64, &str, &str), usize> = HashMap::new();
        for span in &outcome.spans {
            let trace = u128::from_str_radix(&span.trace, 16).expect("hexadecimal digits");
            let message = u64::try_from(trace).unwrap_or(0);
            *seen.entry((message, span.name.as_str(), parent(span))).or_default() += 1;
        }
        let calls = self.answered + self.refused;
        let expected = [
            ("process Order", "none", 1),
            ("decode Order", "process Order", 1),
            ("encode CounterRequest", "process Order", calls),
            ("decode ExecutionReport", "process Order", self.answered),
            ("encode Report", "process Order", 1),
            ("process CounterRequest", "encode CounterRequest", self.answered),
            ("decode CounterRequest", "process CounterRequest", self.answered),
            ("encode ExecutionReport", "process CounterRequest", self.answered),
            // Equal requests: a refused one has no bytes of its own.
        ];
        let mut right = 0;
        for message in 1..=self.messages as u64 {
            let whole = expected
                .iter()
                .all(|(name, parent, number)| seen.get(&(message, *name, *parent)).copied().unwrap_or(0) == *number);
            right += usize::from(whole);
        }
        let mut totals: HashMap<(&str, &str, bool), usize> = HashMap::new();
        for ((message, name, parent), number) in &seen {
            *totals.entry((name, parent, *message != 0)).or_default() += number;
        }
        assert_eq!(right, self.messages, "{totals:#?}\n{:#}", outcome.stats["agent"]);
        // And nothing else is in a trace, but a refused request that arrives while no equal one has been sent.
        let alone = ("decode CounterRequest", "encode CounterRequest", true);
        let is_known = |key: &(&str, &str, bool)| key.2 && !(self.refused > 0 && *key == alone);
        let spans: usize = expected.iter().map(|(_, _, number)| number).sum();
        let all = totals.iter().filter(|(key, _)| is_known(key)).map(|(_, number)| number).sum::<usize>();
        assert_eq!(all, spans * self.messages, "{totals:#?}");
    }
}

const CASE: Case = Case { command: "handle", how: "once", answered: 1, refused: 0, apart: true, messages: 10_000 };

#[test]
fn a_call_to_another_process() {
    CASE.check();
}

#[test]
fn a_call_to_the_process_itself() {
    Case { apart: false, ..CASE }.check();
}

#[test]
fn one_call_after_the_other() {
    Case { how: "twice", answered: 2, ..CASE }.check();
}

#[test]
fn two_calls_at_the_same_time() {
    Case { how: "joined", answered: 2, ..CASE }.check();
}

#[test]
fn tasks_that_take_one_message_after_the_other() {
    Case { command: "loop", ..CASE }.check();
    Case { command: "loop", how: "joined", answered: 2, ..CASE }.check();
}

#[test]
fn a_call_that_is_refused() {
    Case { how: "failed", refused: 1, ..CASE }.check();
}

#[test]
fn a_call_that_is_waited_for_among_others() {
    Case { how: "selected", ..CASE }.check();
}

#[test]
fn calls_in_tasks_that_the_handler_spawns() {
    Case { how: "spawned", answered: 2, ..CASE }.check();
    Case { command: "loop", how: "spawned", answered: 2, apart: false, ..CASE }.check();
}

#[test]
fn a_report_by_a_blocking_task() {
    Case { how: "blocking", ..CASE }.check();
}

/// The task that has decoded the message goes on to the next one at once.
#[test]
fn a_task_that_nobody_waits_for() {
    Case { how: "detached", ..CASE }.check();
    Case { command: "loop", how: "detached", ..CASE }.check();
}

/// The tasks of the connection are spawned by a handler, and work for all of them.
#[test]
fn a_connection_that_a_handler_makes() {
    Case { command: "lazy", ..CASE }.check();
    Case { command: "lazy", how: "spawned", answered: 2, apart: false, ..CASE }.check();
}

//! The order services without the shim, as they are built by `cargo build --release`, and with fat link-time optimisation and
//! line tables: how many of the parents are found, and how many of them are right.

use std::collections::{HashMap, HashSet};

use tracer_tests::pipeline::{Build, Load, Pipeline, Truth, order};
use tracer_tests::spans::by_trace;
use tracer_tests::{Agent, Outcome, Span, require_root};

/// How far a span may reach out of what its service says about the step, in nanoseconds: the spans' clock is set anew for
/// each batch.
const CLOCK_NS: i64 = 20_000;

/// One span of each order's trace.
struct Row {
    service: &'static str,
    name: &'static str,
    /// What a service says about the step that the span is in: service, step, and which of those of this name.
    step: (&'static str, &'static str, usize),
    /// Row of the parent.
    parent: usize,
}

const UFES: &str = "ufes";
const RISK: &str = "risk_control";
const ENGINE: &str = "msg_order_engine";
const COUNTER: &str = "counter";
const CALL: (&str, &str, usize) = (ENGINE, "order.Counter/Execute", 0);

/// A span in a step of its own name.
const fn row(service: &'static str, name: &'static str, parent: usize) -> Row {
    Row { service, name, step: (service, name, 0), parent }
}

const fn within(step: (&'static str, &'static str, usize), row: Row) -> Row {
    Row { step, ..row }
}

/// The first one is the root.
const ROWS: [Row; 21] = [
    row(UFES, "decode Order", 0),
    row(UFES, "encode RiskRequest", 0),
    row(RISK, "decode RiskRequest", 1),
    row(RISK, "INCRBY", 2),
    row(RISK, "HSET", 2),
    row(RISK, "encode RiskResult", 2),
    row(ENGINE, "decode RiskResult", 5),
    row(ENGINE, "SET", 6),
    within((ENGINE, "REPLACE orders", 0), row(ENGINE, "STMT_EXECUTE", 6)),
    within(CALL, row(ENGINE, "encode CounterRequest", 6)),
    within(CALL, row(COUNTER, "decode CounterRequest", 9)),
    within(CALL, row(COUNTER, "encode ExecutionReport", 10)),
    within(CALL, row(ENGINE, "decode ExecutionReport", 6)),
    within((ENGINE, "UPDATE orders", 0), row(ENGINE, "QUERY", 6)),
    within((ENGINE, "SET", 1), row(ENGINE, "SET", 6)),
    row(ENGINE, "encode ExecutionReport", 6),
    row(RISK, "decode ExecutionReport", 15),
    within((RISK, "HSET", 1), row(RISK, "HSET", 16)),
    row(RISK, "encode ExecutionReport", 16),
    row(UFES, "decode ExecutionReport", 18),
    row(UFES, "encode OrderReply", 19),
];

/// Whether a span is what the row says, if the message is known; a `process` span is that of the decode.
fn is(span: &Span, row: &Row) -> bool {
    if span.service != row.service {
        return false;
    }
    if matches!(row.name, "STMT_EXECUTE" | "QUERY") {
        return span.attribute("tracer.mysql.command") == row.name;
    }
    let said = span.name.replace("process ", "decode ");
    said == row.name || said.strip_suffix(" unknown").is_some_and(|verb| row.name.starts_with(verb))
}

/// Parents found.
#[derive(Debug, Default)]
struct Score {
    /// Spans that should have one.
    expected: usize,
    /// Spans that have the right one.
    right: usize,
    /// Spans that have one.
    given: usize,
    /// By row, what is missing.
    missing: [usize; ROWS.len()],
}

impl Score {
    fn precision(&self) -> f64 {
        self.right as f64 / self.given as f64
    }

    fn recall(&self) -> f64 {
        self.right as f64 / self.expected as f64
    }
}

/// Holds the spans against what the services say.
fn score(outcome: &Outcome, truth: &Truth, orders: u64) -> Score {
    let by_id: HashMap<&str, &Span> = outcome.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    // The decode that began a `process` span says the same once more.
    let again = |span: &&Span| {
        by_id.get(span.parent.as_str()).is_some_and(|parent| {
            parent.name.starts_with("process ") && span.name.starts_with("decode ") && span.start == parent.start
        })
    };
    let spans: Vec<&Span> =
        outcome.spans.iter().filter(|span| span.service != "redis-server" && !again(span)).collect();
    let traces = by_trace(spans.iter().copied());
    // One thread decodes the orders, so they are in the same order in both.
    let mut steps: Vec<(u64, u64)> = (1..=orders)
        .map(|order| (truth[&(UFES.to_owned(), "decode Order".to_owned(), order)][0].start, order))
        .collect();
    let mut roots: Vec<&Span> =
        spans.iter().copied().filter(|span| is(span, &ROWS[0]) && span.parent.is_empty()).collect();
    steps.sort_unstable();
    roots.sort_by_key(|span| span.start);
    assert_eq!(roots.len(), steps.len(), "one trace for each order");
    let mut offsets: Vec<i64> =
        roots.iter().zip(&steps).map(|(span, (start, _))| span.start as i64 - *start as i64).collect();
    offsets.sort_unstable();
    let offset = offsets[offsets.len() / 2];

    let mut score = Score { given: spans.iter().filter(|span| !span.parent.is_empty()).count(), ..Score::default() };
    for (root, (_, number)) in roots.iter().zip(steps) {
        let mut found: [Option<&Span>; ROWS.len()] = [None; ROWS.len()];
        let mut used = HashSet::new();
        for (index, row) in ROWS.iter().enumerate() {
            let (service, name, which) = row.step;
            let step = truth[&(service.to_owned(), name.to_owned(), number)][which];
            let inside = |unix_ns: u64| {
                let at = unix_ns as i64 - offset;
                at >= step.start as i64 - CLOCK_NS && at <= step.end as i64 + CLOCK_NS
            };
            let fits = |span: &&&Span| {
                is(span, row)
                    && !used.contains(&span.id)
                    && inside(span.start)
                    && (span.name.starts_with("process ") || inside(span.end))
                    && order(span).is_none_or(|said| said == number)
            };
            let span = traces[root.trace.as_str()].iter().find(fits).copied();
            used.extend(span.map(|span| span.id.clone()));
            found[index] = span;
            if index > 0 {
                let right = span.zip(found[row.parent]).is_some_and(|(span, parent)| span.parent == parent.id);
                score.expected += 1;
                score.right += usize::from(right);
                score.missing[index] += usize::from(!right);
            }
        }
    }
    score
}

/// Orders at 500/s with bursts, through services that know nothing of the tracer.
fn check(build: Build, count: u64) -> Score {
    require_root();
    let pipeline = Pipeline::start_with(&|_| build, None);
    let agent = Agent::run(&["-e", &pipeline.glob(), "--query-text", "full"]);
    let answers = pipeline.send(Load { count, rate: 500, burst: 50, first: 1 });
    assert_eq!((&answers["sent"], &answers["filled"]), (&count.into(), &count.into()), "{answers}");
    let outcome = agent.stop();
    let truth = pipeline.end();
    outcome.assert_complete();
    let score = score(&outcome, &truth, count);
    println!(
        "{count} orders: precision {:.5}, recall {:.5} of {} parents",
        score.precision(),
        score.recall(),
        score.expected
    );
    for (row, missing) in ROWS.iter().zip(score.missing).filter(|(_, missing)| *missing > 0) {
        println!("{missing} times not found: {} of {}", row.name, row.service);
    }
    println!("{:#}", outcome.stats["agent"]);
    score
}

/// The agent learns from each worker's first messages how it works, which weighs more in a short run: on a busy machine that
/// is a whole burst.
const SHORT_RECALL: f64 = 0.98;

#[test]
fn orders_through_release_builds_are_one_trace_each() {
    let score = check(Build::Release, 2_000);
    assert!(score.precision() >= 0.999 && score.recall() >= SHORT_RECALL, "{score:?}");
}

#[test]
fn orders_through_builds_with_link_time_optimisation_are_one_trace_each() {
    let score = check(Build::FatLto, 2_000);
    assert!(score.precision() >= 0.999 && score.recall() >= SHORT_RECALL, "{score:?}");
}

#[test]
#[ignore = "two times forty seconds of load: `cargo xtask test --full`"]
fn twenty_thousand_orders_through_both() {
    for build in [Build::Release, Build::FatLto] {
        let score = check(build, 20_000);
        assert!(score.precision() >= 0.999 && score.recall() >= 0.99, "{build:?} {score:?}");
    }
}

//! prost spans of unmodified processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tracer_tests::{Agent, Span, Target, program, require_root};

const ROUNDS: u64 = 10_000;
/// Largest difference of the medians, by the project's own bar.
const MEDIAN_DIFFERENCE_NS: u64 = 5_000;

/// Spans of calls, without the `process` spans around them.
fn calls(spans: &[Span]) -> impl Iterator<Item = &Span> {
    spans.iter().filter(|span| span.name.starts_with("encode ") || span.name.starts_with("decode "))
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Traces rounds of every call in a program; returns what the target says and the spans of calls.
fn traced_rounds(program: &Path) -> (BTreeMap<String, Value>, Vec<Span>) {
    require_root();
    let mut target = Target::spawn(&mut Command::new(program));
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let truth = target.ask(&format!("messages {ROUNDS}"));
    let outcome = agent.stop();
    outcome.assert_complete();
    assert!(target.end().success());
    let truth = truth.as_object().expect("an object").clone().into_iter().collect();
    (truth, calls(&outcome.spans).cloned().collect())
}

fn short_type(span: &Span) -> &str {
    span.attribute("tracer.message.type").rsplit("::").next().unwrap_or_default()
}

/// With v0 symbols every type and every size is known.
#[test]
fn every_call_is_one_span_with_its_type_size_and_time() {
    let (truth, spans) = traced_rounds(&tracer_tests::v0_program("prost_target"));
    let mut seen: BTreeMap<String, Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        let call = format!("{} {}", span.attribute("tracer.message.operation"), short_type(span));
        seen.entry(call).or_default().push(span);
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (call, truth) in &truth {
        let spans = &seen[call];
        assert_eq!(spans.len() as u64, truth["count"], "{call}");
        let bytes: u64 =
            spans.iter().map(|span| span.attribute("tracer.message.size").parse::<u64>().unwrap_or(0)).sum();
        assert_eq!(bytes, truth["bytes"], "{call}");
        let ours = median(spans.iter().map(|span| span.nanos()).collect());
        let theirs = truth["median_ns"].as_u64().expect("a number");
        assert!(theirs.abs_diff(ours) <= MEDIAN_DIFFERENCE_NS, "{call}: {ours} ns, the target says {theirs} ns");
    }
}

/// With legacy symbols a type can be unknown, but never wrong, and no call is missed.
#[test]
fn with_legacy_symbols_no_call_is_missed_and_no_type_is_wrong() {
    let (truth, spans) = traced_rounds(&program("prost_target"));
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    let mut possible: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (call, truth) in &truth {
        let (operation, message) = call.split_once(' ').expect("operation and type");
        *expected.entry(operation).or_default() += truth["count"].as_u64().expect("a number");
        possible.insert((operation, message));
    }
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for span in &spans {
        let operation = span.attribute("tracer.message.operation");
        *seen.entry(operation).or_default() += 1;
        let message = short_type(span);
        assert!(message.is_empty() || possible.contains(&(operation, message)), "{operation} {message}");
    }
    assert_eq!(seen, expected);
    assert!(spans.iter().any(|span| short_type(span) == "Order"), "some types are found through the callees");
}

/// In fat LTO calls are inlined into their callers, and the line tables say where: every call is one span, with its type.
#[test]
fn inlined_calls_are_spans_with_their_place_in_the_source() {
    let (truth, spans) = traced_rounds(&tracer_tests::lto_program("prost_target"));
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for span in &spans {
        *seen.entry(format!("{} {}", span.attribute("tracer.message.operation"), short_type(span))).or_default() += 1;
    }
    let expected: BTreeMap<String, u64> =
        truth.iter().map(|(call, truth)| (call.clone(), truth["count"].as_u64().expect("a number"))).collect();
    assert_eq!(seen, expected);
    let inlined: Vec<&Span> = spans.iter().filter(|span| !span.attribute("code.line.number").is_empty()).collect();
    assert!(inlined.len() as u64 >= ROUNDS, "{} inlined calls", inlined.len());
    for span in inlined {
        assert!(span.attribute("code.file.path").ends_with("src/messages.rs"), "{span:?}");
        assert!(span.attribute("code.function.name").contains("round_"), "{span:?}");
    }
    assert!(spans.iter().all(|span| span.status != 2), "no call fails");
}

#[test]
fn a_target_whose_probed_functions_panic_survives_and_is_traced() {
    require_root();
    let mut target = Target::start("prost_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let truth = target.ask("panics 1000");
    assert_eq!(truth["caught"], 1000);
    assert_eq!(truth["joined"], 1000);
    target.ask("messages 1");
    let outcome = agent.stop();
    outcome.assert_complete();
    assert!(target.end().success());
    let panicked = calls(&outcome.spans).filter(|span| span.attribute("error.type") == "panic");
    assert_eq!(panicked.filter(|span| span.status == 2).count(), 2000);
}

#[test]
fn failed_calls_are_errors() {
    require_root();
    let mut target = Target::start("prost_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    let truth = target.ask("errors 100");
    let outcome = agent.stop();
    outcome.assert_complete();
    for (error, count) in [("DecodeError", &truth["decodes"]), ("EncodeError", &truth["encodes"])] {
        let failed = calls(&outcome.spans).filter(|span| span.attribute("error.type") == error && span.status == 2);
        assert_eq!(failed.count() as u64, *count, "{error}");
    }
}

#[test]
fn a_header_in_the_message_gives_the_parent() {
    require_root();
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    let mut target = Target::start("prost_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("header {TRACE} {SPAN}"));
    let outcome = agent.stop();
    outcome.assert_complete();
    let names: Vec<&str> = calls(&outcome.spans)
        .filter(|span| span.trace == TRACE && span.parent == SPAN)
        .map(|span| &span.name[..6])
        .collect();
    assert_eq!(names.len(), 2, "{:#?}", outcome.spans);
    assert!(names.contains(&"encode") && names.contains(&"decode"));
}

#[test]
fn killing_the_agent_leaves_the_target_and_the_kernel_alone() {
    require_root();
    let mut target = Target::start("prost_target");
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.send("messages 50000");
    agent.kill();
    let truth = target.answer();
    assert_eq!(truth["merge Order"]["count"], 50_000);
    assert!(target.end().success());
    tracer_tests::wait_for("the kernel to drop the programs", || programs_of_ours().is_empty().then_some(()));
}

/// eBPF programs with our names that are in the kernel.
fn programs_of_ours() -> Vec<String> {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|program| Some(program.name_as_str()?.to_owned()))
        .filter(|name| name.starts_with("message_") || name.starts_with("syscall_") || name.starts_with("process_e"))
        .collect()
}

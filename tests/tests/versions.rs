//! A service with the versions of prost and tonic that people have, in the builds that they make: every prost call is seen, or it is said
//! that it is not; none has a wrong type, and all spans of an order have the right parents.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tracer_tests::{Agent, Span, Target, require_root};

const ORDERS: usize = 500;

/// Builds `tests/versions/NAME` with a profile and features of it.
fn build(name: &str, profile: &str, features: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("versions").join(name);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("versions").join(name).join(features);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--profile", profile, "--features", features, "--target-dir"]);
    cargo.arg(&target).current_dir(package);
    assert!(cargo.status().expect("cargo starts").success(), "{name} does not compile");
    target.join(profile).join("service")
}

/// The types that a message of this size can have: sizes tell them apart.
fn types(span: &Span) -> &'static str {
    match span.attribute("tracer.message.size").parse() {
        Ok(15) => "Ping",
        Ok(25) => "Pong",
        Ok(27) => "Reply",
        _ => "Order",
    }
}

fn check(name: &str, profile: &str) {
    require_root();
    let mut target = Target::spawn(&mut Command::new(build(name, profile, "")));
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("run {ORDERS}"));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();

    let spans: HashMap<&str, &Span> = outcome.spans.iter().map(|span| (&*span.id, span)).collect();
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut wrong_types, mut parents) = (Vec::new(), HashMap::new());
    for span in &outcome.spans {
        let Some((operation, named)) = span.name.split_once(' ') else { continue };
        let parent = spans.get(&*span.parent).map_or("none", |parent| parent.name.split(' ').next().unwrap_or(""));
        if operation == "process" {
            continue;
        }
        let message = types(span);
        *seen.entry((operation, message)).or_default() += 1;
        *parents.entry((operation, message, parent)).or_insert(0) += 1;
        if named != "unknown" && !named.split(" or ").any(|name| name == message) {
            wrong_types.push(&span.name);
        }
    }
    let mut unseen = Vec::new();
    let calls = [("decode", ["Order", "Ping", "Pong"]), ("encode", ["Ping", "Pong", "Reply"])];
    for (operation, messages) in calls {
        for message in messages {
            let count = seen.get(&(operation, message)).copied().unwrap_or(0);
            if count == 0 && outcome.said.contains("inlined into other functions, and not seen") {
                unseen.push((operation, message));
                continue;
            }
            assert_eq!(count, ORDERS, "{operation} {message}: {seen:?}\n{}", outcome.said);
        }
    }
    assert!(wrong_types.is_empty(), "{wrong_types:?}");
    assert!(parents.keys().all(|(.., parent)| *parent == "process" || *parent == "none"), "{parents:?}");
    for (operation, message) in [("decode", "Order"), ("encode", "Ping"), ("decode", "Pong"), ("encode", "Reply")] {
        if !unseen.contains(&(operation, message)) {
            assert_eq!(parents.get(&(operation, message, "process")), Some(&ORDERS), "{parents:?}\n{}", outcome.said);
        }
    }
    // With line tables nothing is out of sight, and without them what is not mixed with its surroundings.
    let most = if profile == "lines" { 0 } else { 2 };
    assert!(unseen.len() <= most, "{unseen:?}");
}

#[test]
#[ignore = "builds a service; `cargo xtask test --full`"]
fn prost_0_14_and_tonic_0_14() {
    check("prost-0_14", "release");
    check("prost-0_14", "lines");
}

#[test]
#[ignore = "builds a service; `cargo xtask test --full`"]
fn prost_0_13_and_tonic_0_12() {
    check("prost-0_13", "release");
}

/// Those of the article.
#[test]
#[ignore = "builds a service; `cargo xtask test --full`"]
fn prost_0_12_and_tonic_0_10() {
    check("prost-0_12", "release");
    check("prost-0_12", "lines");
}

#[test]
#[ignore = "builds a service; `cargo xtask test --full`"]
fn prost_0_11_and_tonic_0_8() {
    check("prost-0_11", "release");
}

/// The shim with a version of prost: each reply is in the trace of its order.
fn check_shim(name: &str) {
    require_root();
    let mut target = Target::spawn(&mut Command::new(build(name, "release", "shim")));
    let agent = Agent::run(&["-p", &target.pid().to_string()]);
    target.ask(&format!("run {ORDERS}"));
    assert!(target.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    let of = |name: &str| -> Vec<&Span> { outcome.spans.iter().filter(|span| span.name == name).collect() };
    let orders: HashMap<&str, &Span> = of("decode Order").into_iter().map(|span| (&*span.trace, span)).collect();
    let replies = of("encode Reply");
    assert_eq!((orders.len(), replies.len()), (ORDERS, ORDERS), "{}", outcome.said);
    let right = replies.iter().filter(|reply| orders.get(&*reply.trace).is_some_and(|order| order.id == reply.parent));
    assert_eq!(right.count(), ORDERS);
}

#[test]
#[ignore = "builds services; `cargo xtask test --full`"]
fn the_shim_with_each_version_of_prost() {
    for name in ["prost-0_12", "prost-0_13", "prost-0_14"] {
        check_shim(name);
    }
}

/// Who has chosen none, or two, is told what to choose.
#[test]
#[ignore = "builds the shim; `cargo xtask test --full`"]
fn the_shim_without_a_version_of_prost_says_what_is_missing() {
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shim");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("versions/none");
    for (features, text) in [("tokio", "the version of prost is missing"), ("prost-0_12,prost-0_14", "two versions")] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["check", "--no-default-features", "--features", features, "--target-dir"]).arg(&target);
        let output = cargo.current_dir(&shim).output().expect("cargo starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(text), "{said}");
    }
}

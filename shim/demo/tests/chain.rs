//! 100,000 orders each way: one trace per order, with the right parents and the ids that the program logged.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::Listener;
use tracer_shim::record::{Operation, PARENT_REMOTE, SpanRecord};

const COUNT: usize = 100_000;

type TraceId = [u8; 16];
type SpanId = [u8; 8];

struct Seen {
    id: SpanId,
    parent: SpanId,
    operation: Operation,
    name: String,
    remote: bool,
}

/// Order, trace and span of each line.
fn log(path: &str, side: &str) -> Vec<(usize, TraceId, SpanId)> {
    let text = std::fs::read_to_string(format!("{path}.{side}")).unwrap();
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let trace = tracer_shim::TraceId::from_hex(words[1]).unwrap().to_bytes();
        (words[0].parse().unwrap(), trace, tracer_shim::SpanId::from_hex(words[2]).unwrap().to_bytes())
    };
    text.lines().map(line).collect()
}

fn check(original: &Path, way: &str, at: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log").to_str().unwrap().to_owned();
    // A probe is on a file, so every test has a file of its own. Copied by another process: a file that this one holds open
    // for writing, in a child that another test is starting, cannot be executed.
    let program = &folder.path().join("chain");
    assert!(Command::new("cp").args([original, program]).status().unwrap().success());
    // Room for all of them: what is missing in the end was never sent.
    let mut listener = Listener::for_spans(program, at, 5 * COUNT, 184).unwrap();
    let mut child = Command::new(program).args([way, &COUNT.to_string(), &path]).spawn().unwrap();
    let mut traces: HashMap<TraceId, Vec<Seen>> = HashMap::new();
    let mut keep = |bytes: &[u8]| {
        let span = SpanRecord::parse(bytes).unwrap();
        traces.entry(span.head.trace_id).or_default().push(Seen {
            id: span.head.span_id,
            parent: span.head.parent_span_id,
            operation: span.operation,
            name: span.name.rsplit("::").next().unwrap().to_owned(),
            remote: span.head.flags & PARENT_REMOTE != 0,
        });
    };
    let status = loop {
        let status = child.try_wait().unwrap();
        if listener.drain(&mut keep) == 0 {
            if let Some(status) = status {
                break status;
            }
            std::thread::yield_now();
        }
    };
    assert!(status.success());

    let (client, server) = (log(&path, "client"), log(&path, "server"));
    assert_eq!((traces.len(), client.len(), server.len()), (COUNT, COUNT, COUNT), "one trace per order");
    let server: HashMap<_, _> = server.into_iter().map(|(order, trace, span)| (order, (trace, span))).collect();
    for (order, trace, root) in client {
        let spans = &traces[&trace];
        let find = |operation, name: &str| {
            let mut found = spans.iter().filter(|span| span.operation == operation && span.name == name);
            let one = found.next().unwrap_or_else(|| panic!("order {order} has no {operation:?} {name}"));
            assert!(found.next().is_none(), "order {order} has two {operation:?} {name}");
            one
        };
        let chain = [
            find(Operation::Custom, "order"),
            find(Operation::Encode, "Order"),
            find(Operation::Decode, "Order"),
            find(Operation::Encode, "Ack"),
            find(Operation::Decode, "Ack"),
        ];
        assert_eq!((spans.len(), chain[0].id, chain[0].parent), (5, root, [0; 8]), "order {order}");
        for pair in chain.windows(2) {
            assert_eq!(
                pair[1].parent, pair[0].id,
                "order {order}: {} is not a child of {}",
                pair[1].name, pair[0].name
            );
            assert_eq!(pair[1].remote, pair[1].operation == Operation::Decode);
        }
        assert_eq!(server[&order], (trace, chain[2].id), "what the server logged of order {order}");
    }
}

fn debug_build() -> PathBuf {
    env!("CARGO_BIN_EXE_chain").into()
}

/// The same program with fat LTO, one codegen unit and no symbols.
fn stripped_build() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let build = || {
        let folder = debug_build().ancestors().nth(2).unwrap().join("stripped");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--package", "tracer-shim-demo", "--bin", "chain", "--target-dir"])
            .arg(&folder)
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .status();
        assert!(status.unwrap().success());
        folder.join("release/chain")
    };
    BUILT.get_or_init(build).clone()
}

macro_rules! ways {
    ($($name:ident: $build:ident $way:literal),*) => { $(
        #[test]
        fn $name() {
            // The fastest way to attach that this kernel has.
            check(&$build(), $way, *support::offsets().last().unwrap());
        }
    )* };
}

ways! {
    over_a_unix_socket: debug_build "unix",
    over_tcp: debug_build "tcp",
    over_a_channel: debug_build "channel",
    between_tasks: debug_build "tasks",
    stripped_over_a_unix_socket: stripped_build "unix",
    stripped_over_tcp: stripped_build "tcp",
    stripped_over_a_channel: stripped_build "channel",
    stripped_between_tasks: stripped_build "tasks"
}

#[test]
fn the_stripped_program_still_shows_its_site_and_its_thread_context() {
    use object::{Object, ObjectSymbol};
    let path = stripped_build();
    assert_eq!(support::sites(&path).len(), 1);
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert_eq!(file.symbols().count(), 0);
    assert!(file.dynamic_symbols().any(|symbol| symbol.name() == Ok("otel_thread_ctx_v1")));
}

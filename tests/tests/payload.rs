//! Messages without a header over shared memory: who encoded the bytes is the parent of who decoded them.

use std::process::Command;

use tracer_tests::{Agent, Outcome, Span, Target, require_root, v0_program};

/// One process writes, another one reads what it wrote.
fn run(what: &str, count: u64) -> Outcome {
    require_root();
    let memory = tempfile::NamedTempFile::new_in("/dev/shm").expect("shared memory");
    let path = memory.path().display();
    // With the names of the buffers: legacy symbols do not always tell where the bytes are.
    let start = || Target::spawn(&mut Command::new(v0_program("relay_target")));
    let (mut writer, mut reader) = (start(), start());
    let pids = [writer.pid().to_string(), reader.pid().to_string()];
    let agent = Agent::run(&["-p", &pids[0], "-p", &pids[1]]);
    assert_eq!(writer.ask(&format!("{what} {path} {count}")), count);
    assert_eq!(reader.ask(&format!("read-{what} {path}")), count);
    assert!(writer.end().success() && reader.end().success());
    let outcome = agent.stop();
    outcome.assert_complete();
    outcome
}

/// Spans of a name's first word, in the order of time: that of the messages.
fn in_order<'a>(outcome: &'a Outcome, operation: &str) -> Vec<&'a Span> {
    let mut spans: Vec<&Span> = outcome.spans.iter().filter(|span| span.name.starts_with(operation)).collect();
    spans.sort_by_key(|span| span.start);
    spans
}

#[test]
fn different_messages_make_one_trace_each() {
    const ORDERS: u64 = 20_000;
    // What the kernel can hold until the agent looks.
    let outcome = run("orders", ORDERS);
    let (encodes, decodes) = (in_order(&outcome, "encode "), in_order(&outcome, "decode "));
    assert_eq!((encodes.len() as u64, decodes.len() as u64), (ORDERS, ORDERS));
    let right = |(encode, decode): &(&&Span, &&Span)| {
        (&*decode.trace, &*decode.parent) == (&*encode.trace, &*encode.id)
            && decode.attribute("tracer.link") == "payload"
            && encode.pid != decode.pid
    };
    let wrong = encodes.iter().zip(&decodes).filter(|pair| !right(pair)).count();
    assert_eq!(wrong, 0, "{:#}", outcome.stats);
    assert_eq!(outcome.count("/agent/payload_parents"), ORDERS);
}

#[test]
fn equal_messages_have_links_and_no_parent() {
    const HEARTBEATS: u64 = 1_000;
    let outcome = run("heartbeats", HEARTBEATS);
    let (encodes, decodes) = (in_order(&outcome, "encode "), in_order(&outcome, "decode "));
    assert_eq!((encodes.len() as u64, decodes.len() as u64), (HEARTBEATS, HEARTBEATS));
    for (encode, decode) in encodes.iter().zip(&decodes) {
        assert_eq!(decode.parent, "");
        assert_eq!(
            decode.links.iter().map(|link| (&link.trace, &link.id)).collect::<Vec<_>>(),
            [(&encode.trace, &encode.id)]
        );
    }
    assert_eq!(outcome.count("/agent/payload_ambiguous"), HEARTBEATS);
}

//! The JSON demo: the receiver sees every message in the sender's trace, and its spans below the sender's.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use support::Listener;
use tracer_shim::record::SpanRecord;

#[test]
fn both_processes_are_in_one_trace_per_message() {
    let program = env!("CARGO_BIN_EXE_json");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let mut listener = Listener::attach(program.as_ref(), 0).unwrap();
    let start = |arguments: &[&str]| {
        Command::new(program)
            .arg(arguments[0])
            .arg(&socket)
            .args(&arguments[1..])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };

    let mut receiver = start(&["receiver"]);
    let mut received = BufReader::new(receiver.stdout.take().unwrap());
    let mut ready = String::new();
    received.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let mut sender = start(&["sender", "100"]);
    let mut sent = String::new();
    sender.stdout.take().unwrap().read_to_string(&mut sent).unwrap();
    let mut seen = String::new();
    received.read_to_string(&mut seen).unwrap();
    assert!(sender.wait().unwrap().success() && receiver.wait().unwrap().success());
    assert_eq!(seen, sent);
    assert_eq!(sent.lines().count(), 100);

    let mut spans = HashMap::new();
    listener.drain(|bytes| {
        let span = SpanRecord::parse(bytes).unwrap();
        spans.insert((span.head.trace_id, span.name.to_owned()), (span.head.span_id, span.head.parent_span_id));
    });
    assert_eq!(spans.len(), 200);
    for line in sent.lines() {
        let trace = tracer_shim::TraceId::from_hex(line.split(' ').nth(1).unwrap()).unwrap().to_bytes();
        let (sender, _) = spans[&(trace, "sender".to_owned())];
        let (_, parent) = spans[&(trace, "process_cross_process_msg".to_owned())];
        assert_eq!(parent, sender);
    }
}

//! Peers that know nothing of the header: other implementations of protobuf read the messages, and send them on.
//!
//! Needs `protoc` and python with protobuf (Debian: protobuf-compiler, python3-protobuf). Where they are missing the tests
//! that need them fail under `TRACER_STRICT=1` and say so otherwise.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::process::{Command, Stdio};
use tracer_shim::{Context, Message};

#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
    #[prost(bytes = "bytes", tag = "3")]
    payload: bytes::Bytes,
}

const PROTO: &str = "syntax = \"proto3\"; message Order { uint64 id = 1; string symbol = 2; bytes payload = 3; }";

fn order() -> Order {
    Order { id: 7, symbol: "ACME".to_owned(), payload: b"\x01\x02"[..].into() }
}

fn context() -> Context {
    Context::from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap()
}

fn traced() -> Vec<u8> {
    let _scope = context().attach();
    order().encode_to_vec()
}

/// Runs a program with `input`; `None` when the machine does not have it.
fn run(command: &mut Command, input: &[u8]) -> Option<Vec<u8>> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return missing(command),
        Err(error) => panic!("{error}"),
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    Some(output.stdout)
}

fn missing(command: &Command) -> Option<Vec<u8>> {
    assert!(std::env::var_os("TRACER_STRICT").is_none(), "{command:?} is missing");
    eprintln!("not tested: {command:?} is missing");
    None
}

fn schema() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.proto"), PROTO).unwrap();
    folder
}

#[test]
fn plain_prost_reads_it_and_is_read() {
    assert_eq!(<Order as prost::Message>::decode(&traced()[..]).unwrap(), order());
    let plain = prost::Message::encode_to_vec(&order());
    assert_eq!(Order::decode(&plain[..]).unwrap(), order());
    assert_eq!(Context::current(), Context::NONE);
    assert_eq!(traced()[..plain.len()], plain);
}

#[test]
fn buffers_in_pieces_carry_the_header_too() {
    use bytes::{Buf, Bytes};
    let bytes = Bytes::from(traced());
    for at in 0..bytes.len() {
        let pieces = bytes.slice(..at).chain(bytes.slice(at..));
        assert_eq!(Order::decode(pieces).unwrap(), order());
        assert_eq!(Context::current(), context(), "split at {at}");
        Order::decode(&[][..]).unwrap();
    }
    let delimited = Bytes::from({
        let _scope = context().attach();
        order().encode_length_delimited_to_vec()
    });
    for at in 0..delimited.len() {
        let pieces = delimited.slice(..at).chain(delimited.slice(at..)).chain(&b"more"[..]);
        assert_eq!(Order::decode_length_delimited(pieces).unwrap(), order());
        assert_eq!(Context::current(), context(), "split at {at}");
        Order::decode(&[][..]).unwrap();
    }
}

#[test]
fn protoc_decodes_it() {
    let folder = schema();
    let mut protoc = Command::new("protoc");
    protoc.args(["--decode=Order", "order.proto"]).current_dir(&folder);
    let Some(text) = run(&mut protoc, &traced()) else {
        return;
    };
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("id: 7\nsymbol: \"ACME\"\npayload: \"\\001\\002\"\n"), "{text}");
    assert!(text.contains(&format!("{}: \"", tracer_shim::header::FIELD_NUMBER)), "{text}");
}

#[test]
fn python_reads_it_and_passes_the_header_on() {
    let folder = schema();
    let mut protoc = Command::new("protoc");
    protoc.args(["--python_out=.", "order.proto"]).current_dir(&folder);
    if run(&mut protoc, &[]).is_none() {
        return;
    }
    let script = "import sys, order_pb2\n\
                  order = order_pb2.Order.FromString(sys.stdin.buffer.read())\n\
                  assert (order.id, order.symbol, order.payload) == (7, 'ACME', b'\\x01\\x02'), order\n\
                  sys.stdout.buffer.write(order.SerializeToString())";
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let mut probe = Command::new(python);
        let probe = probe.args(["-c", "import google.protobuf"]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    let Some(python) = python else {
        return drop(missing(&Command::new("python3 with google.protobuf")));
    };
    let mut python = Command::new(python);
    let Some(bytes) = run(python.args(["-c", script]).current_dir(&folder), &traced()) else {
        return;
    };
    assert_eq!(Order::decode(&bytes[..]).unwrap(), order());
    assert_eq!(Context::current(), context());
}

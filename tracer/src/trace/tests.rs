//! The rules of parents and sampling, on records made by hand.

use bytemuck::bytes_of;
use prost::Message as _;
use tracer_common::record::{
    Connection, DIRECTION_RECEIVED, DIRECTION_SENT, FLAG_CONTEXT, FLAG_FRESH, Head, KIND_CLOSE, KIND_EXEC, KIND_EXIT,
    KIND_MESSAGE, KIND_OPEN, KIND_SOCKET, KIND_TASK_SPAWN, Lifecycle, Message, PROTOCOL_MYSQL, PROTOCOL_RESP, Short,
    Socket, TaskSpawn,
};

use super::{Correlator, Options};
use crate::capture::Item;
use crate::model::{CallOf, Operation, ProbeInfo, ProcessInfo};
use crate::model::{ProcessId, Span, SpanKind, Value};
use crate::protocol::redis::QueryText;

mod budget;
mod spawns;

const PID: u32 = 7;
/// Another process; its threads have numbers above a thousand.
const PEER: u32 = 1_000;
const ENCODE: u32 = 0;
const DECODE: u32 = 1;
const MS: u64 = 1_000_000;

/// A prost message with a trace header in field 9.
#[derive(Clone, PartialEq, prost::Message)]
struct Carrier {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "9")]
    trace_context: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    trace_id: String,
    #[prost(string, tag = "2")]
    span_id: String,
    #[prost(bool, tag = "3")]
    sampled: bool,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn with_header(sampled: bool) -> Vec<u8> {
    let header = Header { trace_id: TRACE.to_owned(), span_id: SPAN.to_owned(), sampled };
    Carrier { id: 1, trace_context: Some(header) }.encode_to_vec()
}

fn correlator(sampler: &str) -> Correlator {
    let sampler = sampler.parse().expect("a sampler");
    let mut correlator = Correlator::new(Options {
        seed: 1,
        sampler,
        query_text: QueryText::default(),
        slow_query_ns: None,
        memory_budget: usize::MAX,
    });
    for pid in [PID, PEER] {
        let id = ProcessId { pid, start_time: 1 };
        correlator.feed(&Item::Process(ProcessInfo { id, service: "svc".to_owned(), attributes: Vec::new() }));
    }
    for (index, operation) in [(ENCODE, Operation::Encode), (DECODE, Operation::Decode)] {
        let message_type = Some("app::Order".to_owned());
        correlator.feed(&Item::Probe(ProbeInfo {
            index,
            call_of: CallOf::Message(operation),
            message_type,
            call: None,
        }));
    }
    correlator
}

fn head(kind: u16, tid: u32, at_ms: u64, payload: usize) -> Head {
    let start_ns = at_ms * MS;
    let pid = if tid < PEER { PID } else { PEER };
    Head { kind, pid, tid, start_ns, end_ns: start_ns + 1_000, payload_len: payload as u32, ..Head::default() }
}

fn exit(correlator: &mut Correlator, pid: u32, at_ms: u64) {
    let head = Short { kind: KIND_EXIT, pid, tid: pid, ..Short::default() };
    let record = Lifecycle { head, at_ns: at_ms * MS + 1_000, ..Lifecycle::default() };
    correlator.feed(&Item::Record(bytes_of(&record)));
}

fn call(
    correlator: &mut Correlator,
    probe: u32,
    tid: u32,
    at_ms: u64,
    bytes: &[u8],
    context: Option<([u8; 16], [u8; 8])>,
) {
    let mut head = head(KIND_MESSAGE, tid, at_ms, bytes.len());
    if let Some((trace_id, span_id)) = context {
        head = Head { flags: FLAG_CONTEXT, trace_id, span_id, trace_flags: 1, ..head };
    }
    let record = Message { head, probe, prefix_len: bytes.len() as u32, size: bytes.len() as u64, buffer: 0 };
    correlator.feed(&Item::Record(&[bytes_of(&record), bytes].concat()));
}

fn socket(correlator: &mut Correlator, tid: u32, at_ms: u64, direction: u16, offset: u64, bytes: &[u8]) {
    let head = head(KIND_SOCKET, tid, at_ms, bytes.len());
    let record =
        Socket { head, connection: 5, offset, len: bytes.len() as u64, direction, protocol: PROTOCOL_RESP, errno: 0 };
    correlator.feed(&Item::Record(&[bytes_of(&record), bytes].concat()));
}

fn open(correlator: &mut Correlator) {
    let head = Head { flags: FLAG_FRESH, ..head(KIND_OPEN, 1, 0, 0) };
    let record =
        Connection { head, connection: 5, family: 2, peer_addr: [10; 16], peer_port: 6379, ..Connection::default() };
    correlator.feed(&Item::Record(bytes_of(&record)));
}

fn spans(mut correlator: Correlator) -> Vec<Span> {
    correlator.finish();
    std::mem::take(&mut correlator.output().spans)
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let one = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "more than one {name}");
    one
}

#[test]
fn what_follows_a_decode_on_its_thread_is_below_it_and_other_threads_are_not() {
    let mut correlator = correlator("always_on");
    open(&mut correlator);
    call(&mut correlator, DECODE, 1, 10, b"", None);
    socket(&mut correlator, 1, 11, DIRECTION_SENT, 0, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    socket(&mut correlator, 1, 12, DIRECTION_RECEIVED, 0, b"$-1\r\n");
    call(&mut correlator, ENCODE, 1, 13, b"", None);
    call(&mut correlator, ENCODE, 2, 14, b"x", None);
    let spans = spans(correlator);
    let process = named(&spans, "process Order");
    assert_eq!((process.kind, process.parent, process.end_ns), (SpanKind::Consumer, None, 13 * MS + 1_000));
    let (decode, get) = (named(&spans, "decode Order"), named(&spans, "GET"));
    for span in [decode, get] {
        assert_eq!((span.trace_id, span.parent), (process.trace_id, Some(process.span_id)));
    }
    assert_eq!((get.kind, get.start_ns, get.end_ns), (SpanKind::Client, 11 * MS, 12 * MS + 1_000));
    let encodes: Vec<&Span> = spans.iter().filter(|span| span.name == "encode Order").collect();
    assert_eq!(encodes.len(), 2);
    let (inside, outside): (Vec<&Span>, Vec<&Span>) =
        encodes.into_iter().partition(|span| span.trace_id == process.trace_id);
    assert_eq!(inside[0].parent, Some(process.span_id));
    assert_eq!(outside[0].parent, None);
}

#[test]
fn a_message_without_a_header_begins_a_new_trace() {
    let mut correlator = correlator("always_on");
    call(&mut correlator, DECODE, 1, 10, b"", None);
    call(&mut correlator, DECODE, 1, 20, b"", None);
    let spans = spans(correlator);
    assert_eq!(spans.len(), 2);
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
    assert!(spans.iter().all(|span| span.parent.is_none() && span.kind == SpanKind::Consumer));
}

#[test]
fn a_header_is_the_parent_and_the_threads_context_comes_before_it() {
    let mut correlator = correlator("parentbased_always_on");
    call(&mut correlator, DECODE, 1, 10, &with_header(true), None);
    call(&mut correlator, DECODE, 2, 10, &with_header(true), Some(([3; 16], [4; 8])));
    let spans = spans(correlator);
    let by_header = spans.iter().find(|span| span.trace_id.to_string() == TRACE).expect("the header's trace");
    assert_eq!(by_header.parent.map(|id| id.to_string()).as_deref(), Some(SPAN));
    assert!(by_header.parent_remote);
    let by_context = spans.iter().find(|span| span.trace_id.0 == [3; 16]).expect("the context's trace");
    assert_eq!((by_context.parent.map(|id| id.0), by_context.parent_remote), (Some([4; 8]), false));
}

#[test]
fn an_unsampled_parent_is_respected_with_everything_below() {
    let mut correlator = correlator("parentbased_always_on");
    call(&mut correlator, DECODE, 1, 10, &with_header(false), None);
    call(&mut correlator, ENCODE, 1, 11, b"", None);
    correlator.finish();
    let counts = correlator.counts();
    assert_eq!((counts.spans, counts.sampled_out, correlator.output().spans.len()), (3, 3, 0));
}

#[test]
fn every_message_is_counted_once() {
    let mut correlator = correlator("always_off");
    call(&mut correlator, ENCODE, 1, 10, b"", None);
    call(&mut correlator, 99, 1, 11, b"", None);
    correlator.feed(&Item::Record(b"short"));
    let counts = correlator.counts();
    assert_eq!((counts.messages, counts.messages_traced, counts.messages_unknown), (2, 1, 1));
    assert_eq!((counts.records, counts.records_malformed, counts.sampled_out), (3, 1, 1));
}

#[test]
fn a_closed_connection_ends_its_open_commands() {
    let mut correlator = correlator("always_on");
    open(&mut correlator);
    socket(&mut correlator, 1, 11, DIRECTION_SENT, 0, b"*1\r\n$4\r\nPING\r\n");
    let record = Connection { head: head(KIND_CLOSE, 1, 20, 0), connection: 5, ..Connection::default() };
    correlator.feed(&Item::Record(bytes_of(&record)));
    let spans = spans(correlator);
    let ping = named(&spans, "PING");
    assert!(matches!(ping.status, crate::model::Status::Error(_)), "{ping:?}");
}

/// The record of a connection's beginning is lost: what passes it says what it speaks, and the programs are asked for the rest.
#[test]
fn a_connection_whose_beginning_was_lost_is_followed() {
    let mut correlator = correlator("always_on");
    let pass = |correlator: &mut Correlator, at_ms: u64, protocol: u16, direction: u16, bytes: &[u8]| {
        let head = head(KIND_SOCKET, 1, at_ms, bytes.len());
        let connection = 5 + u64::from(protocol);
        let record = Socket { head, connection, offset: 0, len: bytes.len() as u64, direction, protocol, errno: 0 };
        correlator.feed(&Item::Record(&[bytes_of(&record), bytes].concat()));
    };
    pass(&mut correlator, 1, PROTOCOL_RESP, DIRECTION_SENT, b"*1\r\n$4\r\nPING\r\n");
    pass(&mut correlator, 2, PROTOCOL_RESP, DIRECTION_RECEIVED, b"+PONG\r\n");
    // COM_PING and an OK packet.
    pass(&mut correlator, 3, PROTOCOL_MYSQL, DIRECTION_SENT, &[1, 0, 0, 0, 0x0e]);
    pass(&mut correlator, 4, PROTOCOL_MYSQL, DIRECTION_RECEIVED, &[7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(correlator.counts().connections_unannounced, 2);
    let advised: Vec<(u64, u32)> =
        correlator.output().advice.iter().map(|(number, advice)| (*number, advice.announce)).collect();
    assert!(advised.contains(&(5, 1)) && advised.contains(&(6, 1)), "{advised:?}");
    // The programs announce it again: now the server is known.
    open(&mut correlator);
    let send = |correlator: &mut Correlator, at_ms: u64, direction: u16, offset: u64, bytes: &[u8]| {
        socket(correlator, 1, at_ms, direction, offset, bytes);
    };
    send(&mut correlator, 5, DIRECTION_SENT, 14, b"*1\r\n$6\r\nDBSIZE\r\n");
    send(&mut correlator, 6, DIRECTION_RECEIVED, 7, b":0\r\n");
    let spans = spans(correlator);
    let systems: Vec<String> = spans.iter().map(|span| format!("{} {:?}", span.name, span.attributes[0].1)).collect();
    assert_eq!(spans.len(), 3, "{systems:?}");
    let dbsize = named(&spans, "DBSIZE");
    let address = dbsize.attributes.iter().find(|(name, _)| name == "server.address").map(|(_, value)| value);
    assert!(matches!(address, Some(Value::Str(address)) if address == "10.10.10.10"), "{dbsize:?}");
    let failed: Vec<&Span> =
        spans.iter().filter(|span| matches!(span.status, crate::model::Status::Error(_))).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn the_first_command_can_come_in_pieces() {
    let command = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    for cut in 4..command.len() {
        let mut correlator = correlator("always_on");
        open(&mut correlator);
        socket(&mut correlator, 1, 11, DIRECTION_SENT, 0, &command[..cut]);
        socket(&mut correlator, 1, 11, DIRECTION_SENT, cut as u64, &command[cut..]);
        socket(&mut correlator, 1, 12, DIRECTION_RECEIVED, 0, b"$-1\r\n");
        named(&spans(correlator), "GET");
    }
}

/// A process that is gone takes its connections with it only if nobody else uses them.
#[test]
fn a_connection_outlives_the_process_that_opened_it() {
    let mut correlator = correlator("always_on");
    open(&mut correlator);
    socket(&mut correlator, PEER, 11, DIRECTION_SENT, 0, b"*1\r\n$4\r\nPING\r\n");
    exit(&mut correlator, PID, 12);
    correlator.tick(5_000 * MS);
    socket(&mut correlator, PEER, 13, DIRECTION_RECEIVED, 0, b"+PONG\r\n");
    socket(&mut correlator, PEER, 14, DIRECTION_SENT, 14, b"*1\r\n$6\r\nDBSIZE\r\n");
    exit(&mut correlator, PEER, 15);
    let spans = spans(correlator);
    let (answered, left) = (named(&spans, "PING"), named(&spans, "DBSIZE"));
    assert_eq!((answered.process.pid, answered.end_ns), (PEER, 13 * MS + 1_000));
    assert!(!matches!(answered.status, crate::model::Status::Error(_)));
    assert_eq!(left.end_ns, 15 * MS + 1_000, "nothing else tells the end of its connection");
    assert!(matches!(left.status, crate::model::Status::Error(_)));
}

#[test]
fn the_same_seed_gives_the_same_ids() {
    let run = || {
        let mut correlator = correlator("always_on");
        call(&mut correlator, DECODE, 1, 10, b"", None);
        call(&mut correlator, ENCODE, 1, 11, b"", None);
        spans(correlator)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_command_that_took_the_threshold_is_slow() {
    for (millis, slow) in [(2, true), (3, false)] {
        let mut correlator = correlator("always_on");
        correlator.options.slow_query_ns = Some(millis * MS);
        open(&mut correlator);
        socket(&mut correlator, 1, 11, DIRECTION_SENT, 0, b"*1\r\n$4\r\nPING\r\n");
        socket(&mut correlator, 1, 13, DIRECTION_RECEIVED, 0, b"+PONG\r\n");
        let spans = spans(correlator);
        let marked = named(&spans, "PING").attributes.iter().any(|(name, _)| name == "tracer.slow");
        assert_eq!(marked, slow);
    }
}

/// An order in a request, as a worker passes it on.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(bytes = "vec", tag = "1")]
    order: Vec<u8>,
    #[prost(uint64, tag = "2")]
    session: u64,
}

fn order(id: u64) -> Vec<u8> {
    Request { order: format!("order {id} of somebody").into_bytes(), session: 0 }.encode_to_vec()
}

fn request(id: u64) -> Vec<u8> {
    Request { order: order(id), session: id }.encode_to_vec()
}

#[test]
fn a_message_without_a_header_comes_from_the_process_that_encoded_it() {
    let mut correlator = correlator("always_on");
    call(&mut correlator, ENCODE, PEER, 1, &order(1), None);
    call(&mut correlator, DECODE, 1, 2, &order(1), None);
    let spans = spans(correlator);
    let (encode, decode) = (named(&spans, "encode Order"), named(&spans, "decode Order"));
    assert_eq!((decode.trace_id, decode.parent), (encode.trace_id, Some(encode.span_id)));
    assert!(decode.parent_remote && decode.attributes.contains(&("tracer.link".into(), Value::Str("payload".into()))));
}

#[test]
fn an_answer_does_not_end_the_flow_that_asked() {
    let mut correlator = correlator("always_on");
    call(&mut correlator, DECODE, 1, 1, &with_header(true), None);
    call(&mut correlator, ENCODE, 1, 2, &order(1), None);
    call(&mut correlator, DECODE, PEER, 3, &order(1), None);
    call(&mut correlator, ENCODE, PEER, 4, &request(2), None);
    call(&mut correlator, DECODE, 1, 5, &request(2), None);
    call(&mut correlator, ENCODE, 1, 6, &order(3), None);
    let spans = spans(correlator);
    assert!(spans.iter().all(|span| span.trace_id.to_string() == TRACE), "{spans:#?}");
    let process = spans.iter().find(|span| span.name == "process Order" && span.process.pid == PID).expect("the flow");
    let own: Vec<u64> = spans
        .iter()
        .filter(|span| span.process.pid == PID && span.parent == Some(process.span_id))
        .map(|span| span.start_ns / MS)
        .collect();
    assert_eq!((own.len(), process.end_ns), (4, 6 * MS + 1_000), "two decodes and two encodes: {own:?}");
}

#[test]
fn a_worker_that_got_a_message_through_memory_is_in_its_trace() {
    let mut correlator = correlator("always_on");
    for id in 1..=2 {
        call(&mut correlator, DECODE, 1, id, &order(id), None);
    }
    // Another thread, in another order.
    for id in [2, 1] {
        call(&mut correlator, ENCODE, 2, 10 + id, &request(id), None);
    }
    call(&mut correlator, ENCODE, 2, 20, &request(3), None);
    let counts = correlator.counts();
    assert_eq!((counts.content_parents, counts.content_ambiguous), (2, 0));
    let spans = spans(correlator);
    let at = |ms: u64| spans.iter().find(|span| span.start_ns == ms * MS).expect("a span");
    for id in 1..=2 {
        assert_eq!((at(10 + id).trace_id, at(10 + id).parent), (at(id).trace_id, Some(at(id).span_id)));
    }
    assert_eq!(at(20).parent, None);
}

/// A host that builds software starts a thousand processes a second: none of them may cost a look at what targets have open.
#[test]
fn an_exec_of_a_stranger_and_a_tick_look_at_nothing_that_targets_have_open() {
    const MANY: u32 = 50_000;
    let mut correlator = correlator("always_on");
    for number in 0..MANY {
        let head = Head { tid: number, task_id: u64::from(number) + 1, ..head(KIND_MESSAGE, 1, 10, 0) };
        let record = Message { head, probe: DECODE, ..Message::default() };
        correlator.feed(&Item::Record(bytes_of(&record)));
        let head = Head { flags: FLAG_FRESH, ..self::head(KIND_OPEN, 1, 10, 0) };
        let record = Connection { head, connection: u64::from(number) + 1, family: 2, ..Connection::default() };
        correlator.feed(&Item::Record(bytes_of(&record)));
    }
    assert_eq!(correlator.counts().messages_open, u64::from(MANY));
    for round in 0..1_000 {
        let head = Short { kind: KIND_EXEC, pid: 2 * PEER + round, tid: 2 * PEER + round, ..Short::default() };
        correlator.feed(&Item::Record(bytes_of(&Lifecycle { head, ..Lifecycle::default() })));
        correlator.tick(u64::from(round) * MS);
    }
    assert_eq!(correlator.looks(), 0);
    assert_eq!(correlator.counts().messages_open, u64::from(MANY), "nothing of a target has ended");
    // The end of a target looks at what is its own, and a tick at what is due.
    let head = Short { kind: KIND_EXIT, pid: PID, tid: PID, ..Short::default() };
    correlator.feed(&Item::Record(bytes_of(&Lifecycle { head, ..Lifecycle::default() })));
    assert_eq!(correlator.counts().messages_open, 0);
}

//! State stays within the memory budget, the oldest goes first, and what it costs is counted to the command.

use super::*;

const BUDGET: usize = 4 << 20;
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
const NOTHING: &[u8] = b"$-1\r\n";

fn with_budget(memory_budget: usize) -> Correlator {
    let mut correlator = correlator("always_on");
    correlator.memory = crate::trace::memory::Memory::new(memory_budget);
    correlator
}

/// Bytes that pass a connection.
fn pass(correlator: &mut Correlator, connection: u64, at_ms: u64, direction: u16, offset: u64, bytes: &[u8]) {
    let head = head(KIND_SOCKET, 1, at_ms, bytes.len());
    let len = bytes.len() as u64;
    let record = Socket { head, connection, offset, len, direction, protocol: PROTOCOL_RESP, errno: 0 };
    correlator.feed(&Item::Record(&[bytes_of(&record), bytes].concat()));
}

fn open_number(correlator: &mut Correlator, connection: u64, at_ms: u64) {
    let head = Head { flags: FLAG_FRESH, ..head(KIND_OPEN, 1, at_ms, 0) };
    let record = Connection { head, connection, family: 2, peer_port: 6379, ..Connection::default() };
    correlator.feed(&Item::Record(bytes_of(&record)));
}

/// Commands with a fate.
fn settled(correlator: &Correlator) -> u64 {
    let counts = correlator.counts();
    let lost = counts.redis.commands_unpaired + counts.redis.commands_unaligned + counts.redis.commands_truncated;
    counts.commands + counts.commands_open + lost
}

#[test]
fn connections_that_nobody_answers_stay_within_the_budget_and_their_commands_are_counted() {
    let mut correlator = with_budget(BUDGET);
    let (connections, calls, commands) = (20, 50, 64);
    let pipeline = GET.repeat(commands);
    for number in 1..=connections {
        open_number(&mut correlator, number, number * 1_000);
        for index in 0..calls {
            let offset = index * pipeline.len() as u64;
            pass(&mut correlator, number, number * 1_000 + index, DIRECTION_SENT, offset, &pipeline);
            assert!(correlator.bytes() <= BUDGET, "{} bytes", correlator.bytes());
        }
    }
    let evicted = correlator.counts().connections_evicted;
    assert!(evicted > 0 && evicted < connections, "{evicted} connections");
    assert_eq!(correlator.counts().state_evicted, evicted);
    // The one that was used last still has all its commands.
    pass(&mut correlator, connections, 30_000, DIRECTION_RECEIVED, 0, &NOTHING.repeat(calls as usize * commands));
    assert_eq!(correlator.counts().commands, calls * commands as u64);
    correlator.finish();
    assert_eq!(settled(&correlator), connections * calls * commands as u64, "{:#?}", correlator.counts());
    assert!(correlator.counts().redis.commands_unpaired > 0, "{:#?}", correlator.counts());
}

#[test]
fn a_connection_that_was_given_up_is_followed_again_once_it_is_idle() {
    let mut correlator = with_budget(BUDGET);
    open_number(&mut correlator, 1, 0);
    let unanswered = 50_000;
    pass(&mut correlator, 1, 1, DIRECTION_SENT, 0, &GET.repeat(unanswered));
    assert_eq!(correlator.counts().connections_evicted, 1);
    assert!(correlator.bytes() < BUDGET / 2, "{} bytes", correlator.bytes());
    let mut sent = (GET.len() * unanswered) as u64;
    let mut received = (NOTHING.len() * unanswered) as u64;
    pass(&mut correlator, 1, 2, DIRECTION_RECEIVED, 0, &NOTHING.repeat(unanswered));
    for round in 0..10 {
        pass(&mut correlator, 1, 5_000 + 2 * round, DIRECTION_SENT, sent, GET);
        pass(&mut correlator, 1, 5_001 + 2 * round, DIRECTION_RECEIVED, received, NOTHING);
        (sent, received) = (sent + GET.len() as u64, received + NOTHING.len() as u64);
    }
    correlator.finish();
    assert_eq!(correlator.counts().commands, 10, "{:#?}", correlator.counts());
    assert_eq!(settled(&correlator), unanswered as u64 + 10, "{:#?}", correlator.counts());
    let spans = spans(correlator);
    assert!(
        spans.iter().any(|span| span.attributes.contains(&("server.address".into(), Value::Str("0.0.0.0".into()))))
    );
}

/// Each message is a decode on a thread of its own and an encode below it.
#[test]
fn messages_stay_within_the_budget_and_each_has_its_spans() {
    let all = messages(usize::MAX);
    let few = messages(BUDGET);
    assert_eq!(all.1.state_evicted, 0);
    assert!(few.1.flows_evicted > 0 && few.1.payloads_evicted > 0 && few.1.contents_evicted > 0, "{:#?}", few.1);
    let evicted = few.1.flows_evicted + few.1.payloads_evicted + few.1.contents_evicted + few.1.encodes_evicted;
    assert_eq!(few.1.state_evicted, evicted);
    assert_eq!((all.0, all.1.spans), (few.0, few.1.spans), "a flow that ends early has its span all the same");
}

fn messages(budget: usize) -> (usize, crate::trace::Counts) {
    let mut correlator = with_budget(budget);
    let count = 20_000_u64;
    for id in 1..=count {
        let message = Carrier { id: id * 1_000_003, trace_context: Some(unsampled_header(id)) }.encode_to_vec();
        let tid = 2_000_000 + id as u32;
        let at_ms = id / 20;
        call(&mut correlator, DECODE, tid, at_ms, &message, None);
        let answer = Carrier { id: id * 1_000_033, trace_context: None }.encode_to_vec();
        call(&mut correlator, ENCODE, tid, at_ms, &answer, None);
        assert!(correlator.bytes() <= budget, "{} bytes", correlator.bytes());
    }
    correlator.finish();
    let counts = correlator.counts();
    assert_eq!(counts.messages_traced, 2 * count);
    (spans(correlator).len(), counts)
}

fn unsampled_header(id: u64) -> Header {
    Header { trace_id: format!("{:032x}", u128::from(id) << 64 | 1), span_id: format!("{id:016x}"), sampled: true }
}

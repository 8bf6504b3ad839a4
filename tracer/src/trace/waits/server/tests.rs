//! Two clients of one server, with records made by hand.

use bytemuck::bytes_of;
use tracer_common::record::{self, FLAG_SERVER, Head, STEP_BYTES, STEP_IDLE, STEP_READ, STEP_WRITE, Step};

use super::{Done, Explained, Held, Kind, Servers};
use crate::model::{ProcessId, SpanContext, SpanId, TraceId};

const SERVER: u32 = 1;
const WEB: u32 = 2;
const SCANNER: u32 = 3;
const US: u64 = 1_000;
const MS: u64 = 1_000_000;

fn open(servers: &mut Servers, pid: u32, connection: u64, client_port: u32) {
    let (client, server) = ([127, 0, 0, 1], [127, 0, 0, 1]);
    let address = |of: [u8; 4]| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&of);
        bytes
    };
    let serves = pid == SERVER;
    let (local_port, peer_port) = if serves { (6379, client_port) } else { (client_port, 6379) };
    let record = record::Connection {
        head: Head { pid, flags: if serves { FLAG_SERVER } else { 0 }, ..Head::default() },
        connection,
        family: 2,
        local_addr: address(if serves { server } else { client }),
        peer_addr: address(if serves { client } else { server }),
        local_port,
        peer_port,
        netns: 7,
        ..record::Connection::default()
    };
    if serves { servers.open_served(&record) } else { servers.open_client(&record) }
}

/// Both sides of a connection; the server's number is the client's and 100.
fn connect(servers: &mut Servers, pid: u32, connection: u64) {
    open(servers, pid, connection, 50_000 + connection as u32);
    open(servers, SERVER, connection + 100, 50_000 + connection as u32);
}

fn servers() -> Servers {
    let mut servers = Servers::default();
    for (pid, name) in [(SERVER, "redis-server"), (WEB, "web"), (SCANNER, "scanner")] {
        servers.name_process(pid, name.into());
    }
    connect(&mut servers, WEB, 1);
    connect(&mut servers, SCANNER, 2);
    servers
}

fn step(kind: u16, times: [u64; 3], connection: u64, offset: u64, bytes: &[u8]) -> Step {
    let mut first = [0; STEP_BYTES];
    let kept = bytes.len().min(STEP_BYTES);
    first[..kept].copy_from_slice(&bytes[..kept]);
    let [start_ns, end_ns, done_ns] = times;
    Step { start_ns, end_ns, done_ns, connection, offset, len: bytes.len() as u32, kind, call: 0, bytes: first }
}

fn feed(servers: &mut Servers, steps: &[Step]) {
    let bytes: Vec<u8> = steps.iter().flat_map(|step| bytes_of(step).to_vec()).collect();
    assert_eq!(servers.steps(SERVER, &bytes), steps.len() as u64);
}

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
const KEYS: &[u8] = b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n";

fn command(pid: u32, connection: u64, name: &'static str, bytes: &[u8], end_offset: u64, times: [u64; 3]) -> Box<Held> {
    let [start_ns, sent_ns, end_ns] = times;
    Box::new(Held {
        process: ProcessId { pid, start_time: 1 },
        service: if pid == WEB { "web".into() } else { "scanner".into() },
        connection,
        server: "127.0.0.1:6379".into(),
        operation: name.into(),
        label: name.into(),
        transaction: false,
        request_bytes: bytes.len() as u64,
        request_end: end_offset,
        alone: true,
        blocking: false,
        answered: true,
        start_ns,
        sent_ns,
        end_ns,
        context: SpanContext {
            trace_id: TraceId([pid as u8; 16]),
            span_id: SpanId([connection as u8; 8]),
            flags: 1,
            remote: false,
            trace_state: "".into(),
        },
        span: None,
        number: 0,
    })
}

/// KEYS for 300 ms, and a GET that came meanwhile. `before` bytes had passed when the server was attached to.
fn behind_keys(servers: &mut Servers, before: u64) {
    let (get, keys) = (GET.len() as u64, KEYS.len() as u64);
    servers.hold(command(SCANNER, 2, "KEYS", KEYS, before + keys, [0, 10 * US, 320 * MS]));
    servers.hold(command(WEB, 1, "GET", GET, before + get, [100 * MS, 100 * MS + 10 * US, 301 * MS]));
    feed(
        servers,
        &[
            step(STEP_IDLE, [1, 5 * US, 0], 0, 0, b""),
            step(STEP_READ, [15 * US, 16 * US, 300 * MS], 102, 0, KEYS),
            step(STEP_WRITE, [300 * MS + US, 300 * MS + 50 * US, 0], 102, 0, b""),
            step(STEP_READ, [300 * MS + 60 * US, 300 * MS + 61 * US, 300 * MS + 64 * US], 101, 0, GET),
            step(STEP_WRITE, [300 * MS + 70 * US, 300 * MS + 90 * US, 0], 101, 0, b""),
        ],
    );
}

fn named<'a>(done: &'a [Done], name: &str) -> &'a Explained {
    let done = done.iter().find(|done| done.held.operation == name).expect("it was held");
    done.explained.as_ref().expect("it was found")
}

#[test]
fn a_get_behind_keys_blames_it() {
    for before in [0, 12_345] {
        let mut servers = servers();
        behind_keys(&mut servers, before);
        let mut done = Vec::new();
        servers.look(400 * MS, false, &mut done);
        assert_eq!((done.len(), servers.held()), (2, 0));
        let get = named(&done, "GET");
        assert_eq!(get.split.service_ns, 3 * US);
        assert_eq!(get.split.network_ns + get.split.queue_ns + get.split.service_ns, 201 * MS);
        let [blocker] = &get.blame.blockers[..] else { panic!("one blocker: {get:?}") };
        assert_eq!((&*blocker.who.client, &*blocker.who.label, blocker.who.kind), ("scanner", "KEYS", Kind::Keyspace));
        assert!(blocker.ns > 200 * MS && blocker.ns <= get.split.queue_ns);
        assert!(named(&done, "KEYS").blame.is_empty(), "it did not wait");
        let context = servers.turn_context(SERVER, blocker.longest.expect("a turn").0, |_, _, _| panic!("it has one"));
        assert_eq!(context.map(|context| context.trace_id), Some(TraceId([SCANNER as u8; 16])));
    }
}

#[test]
fn a_blocker_that_is_not_traced_is_named_by_its_address() {
    let mut servers = servers();
    open(&mut servers, SERVER, 109, 40_000);
    servers.hold(command(WEB, 1, "GET", GET, GET.len() as u64, [100 * MS, 100 * MS + US, 301 * MS]));
    feed(
        &mut servers,
        &[
            step(STEP_READ, [15 * US, 16 * US, 300 * MS], 109, 0, KEYS),
            step(STEP_READ, [300 * MS + 60 * US, 300 * MS + 61 * US, 300 * MS + 64 * US], 101, 0, GET),
            step(STEP_WRITE, [300 * MS + 70 * US, 300 * MS + 90 * US, 0], 101, 0, b""),
        ],
    );
    let mut done = Vec::new();
    servers.look(400 * MS, false, &mut done);
    let who = &named(&done, "GET").blame.blockers[0].who;
    assert_eq!((&*who.client, &*who.label), ("127.0.0.1:40000", "KEYS"));
}

#[test]
fn a_command_is_held_until_its_reply_was_written_and_given_up_in_the_end() {
    let mut servers = servers();
    servers.hold(command(WEB, 1, "GET", GET, GET.len() as u64, [10, 20, 100]));
    let mut done = Vec::new();
    feed(&mut servers, &[step(STEP_IDLE, [1, 5, 0], 0, 0, b""), step(STEP_READ, [30, 40, 50], 101, 0, GET)]);
    servers.look(10 * MS, false, &mut done);
    assert!(done.is_empty(), "the write is still to come");
    servers.look(2_000 * MS, false, &mut done);
    assert_eq!(done.iter().map(|done| (done.explained.is_some(), done.unmatched)).collect::<Vec<_>>(), [(false, true)]);
}

#[test]
fn a_server_that_is_not_attached_is_estimated() {
    let mut servers = Servers::default();
    servers.hold(command(SCANNER, 2, "KEYS", KEYS, 0, [0, 10, 300 * MS]));
    servers.hold(command(WEB, 1, "GET", GET, 0, [100 * MS, 100 * MS + 10, 301 * MS]));
    let mut done = Vec::new();
    servers.look(400 * MS, false, &mut done);
    let get = named(&done, "GET");
    assert!(get.estimate && get.split.queue_ns == 200 * MS);
    assert_eq!(&*get.blame.blockers[0].who.label, "KEYS");
    assert!(named(&done, "KEYS").blame.is_empty());
}

proptest::proptest! {
    /// Whatever a server and its clients seem to do, every command comes out once and its parts add up.
    #[test]
    fn nothing_is_lost_and_nothing_panics(
        steps in proptest::collection::vec((1u16..5, [0u64..10_000_000, 0..10_000_000, 0..10_000_000], 99u64..104, 0u64..200), 0..80),
        commands in proptest::collection::vec((1u64..4, [0u64..10_000_000, 0..10_000_000, 0..10_000_000], 0u64..200), 0..40),
    ) {
        let mut servers = servers();
        for &(connection, times, end) in &commands {
            servers.hold(command(WEB, connection, "GET", GET, end, times));
        }
        let made: Vec<Step> =
            steps.iter().map(|&(kind, times, connection, offset)| step(kind, times, connection, offset, GET)).collect();
        feed(&mut servers, &made);
        let mut done = Vec::new();
        servers.look(0, false, &mut done);
        servers.look(0, true, &mut done);
        proptest::prop_assert_eq!(done.len(), commands.len());
        for done in done {
            let duration = done.held.end_ns.saturating_sub(done.held.start_ns);
            if let Some(explained) = done.explained {
                let parts = explained.split;
                proptest::prop_assert_eq!(parts.network_ns + parts.queue_ns + parts.service_ns, duration);
            }
        }
    }
}

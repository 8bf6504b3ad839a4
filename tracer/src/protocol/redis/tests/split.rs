//! However a dialogue is cut into calls, its commands are the same; and no bytes do harm.

use proptest::prelude::*;

use super::*;

/// A request with its replies, and what comes out.
#[derive(Clone, Debug)]
struct Exchange {
    request: Vec<u8>,
    reply: Vec<u8>,
    push: Vec<u8>,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| [
            format!("${}\r\n", body.len()).into_bytes(),
            body,
            b"\r\n".to_vec()
        ]
        .concat()),
        any::<i64>().prop_map(|number| format!(":{}\r\n", number.max(-i64::MAX)).into_bytes()),
        "[a-zA-Z ]{0,20}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "[A-Z]{1,9} [a-z]{0,9}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        prop::collection::vec("[a-z]{1,9}", 0..4).prop_map(|chunks| {
            let chunks: String = chunks.iter().map(|chunk| format!(";{}\r\n{chunk}\r\n", chunk.len())).collect();
            format!("$?\r\n{chunks};0\r\n").into_bytes()
        }),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.25\r\n".to_vec()),
        Just(b"(12345678901234567890\r\n".to_vec()),
        Just(b"=7\r\ntxt:abc\r\n".to_vec()),
        Just(b"!7\r\nERR abc\r\n".to_vec()),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| [
                format!("*{}\r\n", items.len()).into_bytes(),
                items.concat()
            ]
            .concat()),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| [
                format!("~{}\r\n", items.len()).into_bytes(),
                items.concat()
            ]
            .concat()),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| [
                b"*?\r\n".to_vec(),
                items.concat(),
                b".\r\n".to_vec()
            ]
            .concat()),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| [b"%1\r\n".to_vec(), key, value].concat()),
            (inner.clone(), inner).prop_map(|(key, value)| [b"|1\r\n+k\r\n".to_vec(), key, value].concat()),
        ]
    })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let plain = (prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..6), "[A-Z]{1,12}", value())
        .prop_map(|(args, name, reply)| {
            let args: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(args.iter().map(Vec::as_slice)).collect();
            (array(&args), reply)
        });
    let special = prop_oneof![
        Just((request("GET key"), b"$3\r\nabc\r\n".to_vec())),
        Just((b"PING\r\n".to_vec(), b"+PONG\r\n".to_vec())),
        Just((request("SELECT 3"), b"+OK\r\n".to_vec())),
        Just((request("CLIENT REPLY SKIP"), Vec::new())),
        Just((request("SET k v EX 10"), b"+OK\r\n".to_vec())),
        Just((
            [request("MULTI"), request("INCR a"), request("EXEC")].concat(),
            b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n".to_vec()
        )),
    ];
    let push = prop_oneof![4 => Just(Vec::new()), 1 => Just(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n".to_vec())];
    (prop_oneof![plain, special], push).prop_map(|((request, reply), push)| Exchange { request, reply, push })
}

/// Replies that are left after `CLIENT REPLY SKIP`.
fn replies(exchanges: &[Exchange]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut skip = false;
    for exchange in exchanges {
        let was = std::mem::replace(&mut skip, exchange.reply.is_empty());
        bytes.extend_from_slice(&exchange.push);
        let mut reply = exchange.reply.as_slice();
        if was && reply.starts_with(b"+OK\r\n+QUEUED") {
            // MULTI was the silent one.
            reply = &reply[5..];
        } else if was {
            reply = &[];
        }
        bytes.extend_from_slice(reply);
    }
    bytes
}

/// What does not depend on the cuts.
fn facts(commands: &[Command<u64>]) -> Vec<impl PartialEq + std::fmt::Debug> {
    let fact = |command: &Command<u64>| {
        let Command { name, query_text, args, request_bytes, response_bytes, error, database, .. } = command.clone();
        let flags = (command.inner_errors, command.transaction, command.blocking, command.no_reply, command.aborted);
        (name, query_text, args, request_bytes, response_bytes, error, database, flags, command.multi.clone())
    };
    commands.iter().map(fact).collect()
}

fn cut(connection: &mut Connection, direction: Direction, bytes: &[u8], cuts: &[prop::sample::Index]) {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    for piece in at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]) {
        connection.call(direction, piece, piece.len() as u64);
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_commands(
        exchanges in prop::collection::vec(exchange(), 1..12),
        sent in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        received in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let requests: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.request.clone()).collect();
        let replies = replies(&exchanges);
        let mut whole = Connection::new();
        whole.send(&requests).receive(&replies);
        let mut pieces = Connection::new();
        cut(&mut pieces, Direction::Sent, &requests, &sent);
        cut(&mut pieces, Direction::Received, &replies, &received);
        prop_assert_eq!(facts(&whole.commands), facts(&pieces.commands));
        let mut bytewise = Connection::new();
        for byte in &requests {
            bytewise.send([*byte]);
        }
        for byte in &replies {
            bytewise.receive([*byte]);
        }
        prop_assert_eq!(facts(&whole.commands), facts(&bytewise.commands));
        let counted = pieces.tracker.diagnostics();
        prop_assert_eq!(Diagnostics { push_messages: 0, ..counted }, Diagnostics::default());
        let sum: u64 = whole.commands.iter().map(|command| command.request_bytes).sum();
        prop_assert_eq!(sum, requests.len() as u64);
    }

    #[test]
    fn no_bytes_do_harm(
        role in prop_oneof![Just(Role::Client), Just(Role::Server)],
        opened_before: bool,
        chunks in prop::collection::vec((any::<bool>(), 0u64..300, chunk_bytes(), 0u64..200), 0..40),
    ) {
        let mut connection = Connection::with(Tracker::with(role, QueryText::Full, opened_before));
        for (sent, gap, data, rest) in chunks {
            let direction = if sent { Direction::Sent } else { Direction::Received };
            // Small gaps are none, so that some streams stay whole.
            connection.lose(direction, gap.saturating_sub(270));
            connection.call(direction, &data, data.len() as u64 + rest.saturating_sub(180));
        }
        for command in &connection.commands {
            prop_assert!(command.end_ns >= command.start_ns && command.sent_ns >= command.start_ns);
            prop_assert!(command.query_text.as_ref().is_none_or(|text| text.len() <= 255));
        }
        let Connection { tracker, commands, now, .. } = &mut connection;
        tracker.close(*now, commands);
        prop_assert!(commands.len() < 10_000);
    }

    #[test]
    fn any_chunk_is_taken(chunks in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..20)) {
        let mut connection = Connection::new();
        for (sent, offset, len, start_ns, end_ns) in chunks {
            let direction = if sent { Direction::Sent } else { Direction::Received };
            let chunk = Chunk { direction, offset, len, data: b"*1\r\n$4\r\nPING\r\n", start_ns, end_ns };
            connection.tracker.feed(chunk, 0, &mut connection.commands);
        }
    }
}

/// Bytes that are RESP now and then.
fn chunk_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => exchange().prop_map(|exchange| exchange.request),
        4 => value(),
        1 => prop::collection::vec(any::<u8>(), 0..30),
        1 => "[*$+:%>~|;.?_#,(=!0-9\\-\r\n]{0,12}".prop_map(String::into_bytes),
        1 => Just(b"$9999999999\r\n".to_vec()),
        1 => Just(request("SUBSCRIBE a b")),
        1 => Just(request("MONITOR")),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

//! What may be shown of a command.

use proptest::prelude::*;

use super::*;

fn shown(mode: QueryText, words: &str) -> Option<String> {
    shown_args(mode, &words.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn shown_args(mode: QueryText, args: &[&[u8]]) -> Option<String> {
    let mut connection = Connection::with(Tracker::with(Role::Client, mode, false));
    connection.send(array(args)).receive("+OK\r\n").one().query_text.map(Into::into)
}

#[test]
fn sanitized() {
    for (words, text) in [
        ("PING", "PING"),
        ("GET order:1", "GET ?"),
        ("set k v ex 10 NX", "set ? ? ex ? NX"),
        ("SET EX PX", "SET ? ?"),
        ("SET k v EX NX", "SET ? ? EX ?"),
        ("MSET a 1 b 2", "MSET ? ? ? ?"),
        ("MSET a 1 b 2 c 3", "MSET ? ? ..."),
        ("HSET h f v", "HSET ? ? ?"),
        ("ZADD z NX CH 1 NX 2 CH", "ZADD ? NX CH ? ? ? ?"),
        ("XADD s MAXLEN ~ 1000 LIMIT 5 * maxlen limit", "XADD ? MAXLEN ~ ? LIMIT ? ? ? ?"),
        ("XREAD COUNT 5 BLOCK 0 STREAMS a b 0 0", "XREAD COUNT ? BLOCK ? STREAMS ? ? ? ?"),
        ("SORT k BY w LIMIT 0 5 GET g ASC ALPHA STORE d", "SORT ? BY ? LIMIT ? ? GET ? ASC ALPHA STORE ?"),
        ("ZUNIONSTORE d 2 WEIGHTS MAX WEIGHTS 1 2 AGGREGATE MAX", "ZUNIONSTORE ? ? ? ? WEIGHTS ? ? AGGREGATE MAX"),
        ("EVAL return 1 k a", "EVAL ? ? ? ?"),
        ("CLIENT SETNAME me", "CLIENT SETNAME ?"),
        ("client kill ID 7", "client kill ? ?"),
        ("CLIENT secret", "CLIENT ?"),
        ("CONFIG SET maxmemory 1", "CONFIG SET ? ?"),
        ("OBJECT ENCODING k", "OBJECT ENCODING ?"),
        ("DEBUG SLEEP 1", "DEBUG SLEEP ?"),
        ("DEBUG OBJECT SLEEP", "DEBUG OBJECT ?"),
        ("HELLO 3 AUTH default hunter2 SETNAME me", "HELLO ? AUTH ? ? SETNAME ?"),
        ("hunter2! x", "_OTHER ?"),
        ("JSON.SET doc $ {}", "JSON.SET ? ? ?"),
        ("NOSUCH x", "_OTHER ?"),
        ("hunter2", "_OTHER"),
        ("AUHT hunter2", "_OTHER ?"),
        ("correct-horse-battery", "_OTHER"),
        ("hunter.hunter2 x", "_OTHER ?"),
        ("MYMODULE.do x", "MYMODULE.do ?"),
    ] {
        assert_eq!(shown(QueryText::Sanitized, words).as_deref(), Some(text), "{words}");
    }
    assert_eq!(shown(QueryText::Off, "GET a"), None);
}

#[test]
fn keys() {
    for (words, text) in [
        ("GET order:1", "GET order:1"),
        ("SET k v EX 10", "SET k ? EX ?"),
        ("MSET a 1 b 2", "MSET a ? b ?"),
        ("BLPOP a b 0", "BLPOP a b ?"),
        ("DEL a b c", "DEL a b c"),
        ("EVAL return 2 k1 k2 a1", "EVAL ? ? k1 k2 ?"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZUNIONSTORE d ? a b WEIGHTS ? ?"),
        ("XREAD STREAMS s1 s2 0 0", "XREAD STREAMS s1 s2 ? ?"),
        ("OBJECT ENCODING k", "OBJECT ENCODING k"),
        ("SCAN 0 MATCH a* COUNT 10", "SCAN ? MATCH ? COUNT ?"),
        ("NOSUCH a b", "_OTHER ? ?"),
    ] {
        assert_eq!(shown(QueryText::WithKeys, words).as_deref(), Some(text), "{words}");
    }
}

#[test]
fn everything() {
    assert_eq!(shown(QueryText::Full, "SET k v EX 10").as_deref(), Some("SET k v EX 10"));
    let args: &[&[u8]] = &[b"SET", b"two words", b"\xff\x00\n", b"", &[b'x'; 1000]];
    let text = shown_args(QueryText::Full, args).unwrap();
    assert_eq!(text, format!("SET \"two words\" \"\u{fffd}\\0\\n\" \"\" {}...", "x".repeat(64)));
    let long = shown(QueryText::Full, &format!("DEL{}", " key:123".repeat(100))).unwrap();
    assert_eq!((long.len(), &long[250..]), (255, "3 ..."));
}

#[test]
fn credentials_are_never_shown() {
    for mode in [QueryText::Sanitized, QueryText::WithKeys, QueryText::Full] {
        for words in [
            "AUTH hunter2",
            "auth default hunter2",
            "AUTH EX hunter2",
            "HELLO 3 AUTH default hunter2",
            "HELLO 2 AUTH hunter2 hunter2",
            "CONFIG SET requirepass hunter2",
            "CONFIG SET maxmemory 1 masterauth hunter2",
            "CONFIG hunter2",
            "MIGRATE host 6379 key 0 5000 AUTH hunter2",
            "MIGRATE host 6379 key 0 5000 COPY AUTH2 user hunter2 KEYS a",
            "ACL SETUSER alice on >hunter2 ~*",
            "ACL GETUSER hunter2",
            "SENTINEL SET mymaster auth-pass hunter2",
            "MODULE LOADEX m CONFIG p hunter2",
            "COMMAND GETKEYS AUTH default hunter2",
            "REPLCONF x hunter2",
            "hunter2",
            "hunter2 hunter2",
            "AUHT hunter2",
            "AUTHhunter2! x",
        ] {
            let text = shown(mode, words).unwrap();
            assert!(!text.contains("hunter2"), "{mode:?} {words}: {text}");
        }
    }
}

proptest! {
    #[test]
    fn no_value_leaves(command in "[A-Z]{1,10}", values in prop::collection::vec("zq[a-z0-9]{1,80}zq", 1..20), known: prop::sample::Index) {
        let name = commands::COMMANDS[known.index(commands::COMMANDS.len())].name;
        for name in [name, &command] {
            let args: Vec<&[u8]> = std::iter::once(name).chain(values.iter().map(String::as_str)).map(str::as_bytes).collect();
            let text = shown_args(QueryText::Sanitized, &args).unwrap();
            prop_assert!(!text.contains("zq"), "{}", text);
            prop_assert!(text.len() <= 255);
        }
    }

    #[test]
    fn any_text_is_bounded(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..30), known: prop::sample::Index) {
        let name = commands::COMMANDS[known.index(commands::COMMANDS.len())].name.as_bytes();
        let args: Vec<&[u8]> = std::iter::once(name).chain(args.iter().map(Vec::as_slice)).collect();
        prop_assert!(shown_args(QueryText::Full, &args).unwrap().len() <= 255);
    }
}

//! Redis and its look-alikes.

use proptest::prelude::*;

use super::*;

#[test]
fn redis_requests() {
    for sent in [
        "*1\r\n$4\r\nPING\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\na",
        "*3\r\n$3\r\nfoo\r",
        "EXISTS a b\r\n",
        "hgetall h\r\n",
        "SUBSTR a 0 1\n",
    ] {
        assert_eq!(looks_like_redis(sent.as_bytes()), Verdict::Yes, "{sent:?}");
    }
    for sent in [
        "",
        "*",
        "*1",
        "*1\r",
        "*1\r\n",
        "*1\r\n$",
        "*1\r\n$4\r\nPI",
        "PING\r\n",
        "GET a\r\n",
        "get a\r\n",
        "QUIT\r\n",
        "HGETA",
        "hgetall h",
    ] {
        assert_eq!(looks_like_redis(sent.as_bytes()), Verdict::Maybe, "{sent:?}");
    }
    for end in 1..14 {
        assert_ne!(looks_like_redis(&b"*1\r\n$4\r\nPING\r\n"[..end]), Verdict::No);
    }
}

#[test]
fn other_requests() {
    let others: [&[u8]; 22] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /index.html",
        b"POST /x HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x00\x00\x00\x2e\x00\x03\x00\x00user\0",
        b"\x2a\x00\x00\x01\x85\xa6\xff\x09",
        b"*\x00\x00\x01\x85\xa6\xff\x09",
        b"set key 0 60 5\r\nvalue\r\n",
        b"gets key\r\n",
        b"EHLO mail\r\n",
        b"USER anonymous\r\n",
        b"CONNECT {\"verbose\":false}\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"{\"json\": 1}",
        b"*1\r\n+PING\r\n",
        b"*1\n$4\nPING\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\r\n$0\r\n\r\n",
        b"*99999999999\r\n",
        b"HGETALL\x00",
    ];
    for sent in others {
        assert_eq!(looks_like_redis(sent), Verdict::No, "{}", String::from_utf8_lossy(sent));
    }
}

#[test]
fn replies() {
    for received in [
        "+OK\r\n",
        "+PONG\r\n",
        "$-1\r\n",
        "$5\r\nhe",
        ":1\r\n",
        "*2\r\n",
        "%7\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        ">3\r\n",
        "-WRONGTYPE Op\r\n",
        "*?\r\n",
    ] {
        assert_eq!(looks_like_replies(received.as_bytes()), Verdict::Yes, "{received:?}");
    }
    for received in ["", "+", "+O", "$", "$-", "$1", "+OK POP3 ready\r\n", "-ERR no\r\n", "*1\r"] {
        assert_eq!(looks_like_replies(received.as_bytes()), Verdict::Maybe, "{received:?}");
    }
    for received in [
        "HTTP/1.1 200 OK\r\n",
        "\x4a\0\0\0\x0a8.0",
        "STORED\r\n",
        "END\r\n",
        "220 mail\r\n",
        "INFO {}\r\n",
        "$x\r\n",
        ":\r\n",
        "-oops\r\n",
        "*1\n",
    ] {
        assert_eq!(looks_like_replies(received.as_bytes()), Verdict::No, "{received:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = (looks_like_redis(&bytes), looks_like_replies(&bytes), super::super::classify::find_request(&bytes));
    }

    #[test]
    fn no_prefix_of_a_request_is_refused(words in prop::collection::vec("[a-z]{1,9}", 1..5), at: prop::sample::Index) {
        let bytes = array(&words.iter().map(String::as_bytes).collect::<Vec<_>>());
        prop_assert_ne!(looks_like_redis(&bytes[..at.index(bytes.len() + 1)]), Verdict::No);
    }
}

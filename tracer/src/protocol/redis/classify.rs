//! Whether a connection speaks Redis, by its first bytes.
//!
//! RESP arrays of bulk strings are like nothing else. Inline commands are not: `QUIT` is one of SMTP and of POP3, `PING`
//! of IRC and NATS, `get x` of memcached. Those are `Maybe`: look at what the other direction says.

use memchr::memmem;

use super::table::lookup;
use crate::protocol::resp::number;
use crate::protocol::stream::Verdict;

/// Longest inline command that is waited for.
const MAX_INLINE: usize = 1024;

/// Command names that other text protocols know too: memcached, SMTP, POP3, IMAP, FTP, IRC, NATS.
const SHARED: &[&str] = &[
    "APPEND",
    "AUTH",
    "COPY",
    "DECR",
    "DELETE",
    "ECHO",
    "GET",
    "INCR",
    "INFO",
    "MOVE",
    "PING",
    "QUIT",
    "RENAME",
    "RESET",
    "SELECT",
    "SET",
    "SORT",
    "SUBSCRIBE",
    "TIME",
    "TOUCH",
    "TYPE",
    "UNSUBSCRIBE",
];

/// First bytes that a client sent. On a connection that was open before the agent came they may be the middle of a value:
/// ask again with later calls before believing `No`.
pub fn looks_like_redis(sent: &[u8]) -> Verdict {
    match sent.first() {
        None => Verdict::Maybe,
        Some(b'*') => array(sent),
        Some(first) if first.is_ascii_alphabetic() => inline(sent),
        Some(_) => Verdict::No,
    }
}

/// First bytes that a server sent. A push message or a reply to an earlier command may come first.
pub fn looks_like_replies(received: &[u8]) -> Verdict {
    let Some((&marker, rest)) = received.split_first() else { return Verdict::Maybe };
    let Some((line, complete)) = line(rest) else { return Verdict::No };
    let plausible = match marker {
        b'+' => line.iter().all(|byte| !byte.is_ascii_control()),
        b'-' => {
            let code = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            code.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_') && (!complete || !code.is_empty())
        }
        b':' | b'(' => digits(line, complete, true),
        b'$' | b'*' | b'~' | b'%' | b'>' | b'|' | b'=' | b'!' => {
            line == b"?" || line == b"-1" || (line == b"-" && !complete) || digits(line, complete, false)
        }
        b',' => line.iter().all(|byte| byte.is_ascii_digit() || b"+-.einfaEINFA".contains(byte)),
        b'#' => matches!(line, b"t" | b"f") || (line.is_empty() && !complete),
        b'_' => line.is_empty(),
        _ => false,
    };
    // POP3 greets with `+OK` and text, and fails with `-ERR`.
    let shared = match marker {
        b'+' => !matches!(line, b"OK" | b"PONG" | b"QUEUED" | b"RESET"),
        b'-' => line.starts_with(b"ERR"),
        _ => false,
    };
    match plausible {
        false => Verdict::No,
        true if complete && !shared => Verdict::Yes,
        true => Verdict::Maybe,
    }
}

/// Where a request begins that is not at the start: an array whose first bulk is the name of a known command.
pub(super) fn find_request(sent: &[u8]) -> Option<usize> {
    memmem::find_iter(sent, b"\r\n*")
        .map(|end| end + 2)
        .find(|at| array_name(&sent[*at..]).is_some_and(|name| lookup(name).is_some()))
}

fn array(sent: &[u8]) -> Verdict {
    let Some((count, complete)) = line(&sent[1..]) else { return Verdict::No };
    if !digits(count, complete, false) || count.len() > 10 {
        return Verdict::No;
    }
    if !complete {
        return Verdict::Maybe;
    }
    let rest = &sent[count.len() + 3..];
    let Some((&marker, rest)) = rest.split_first() else { return Verdict::Maybe };
    let Some((len, complete)) = line(rest) else { return Verdict::No };
    if marker != b'$' || !digits(len, complete, false) || len.len() > 3 {
        return Verdict::No;
    }
    if !complete {
        return Verdict::Maybe;
    }
    let rest = &rest[len.len() + 2..];
    let len = number(len).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let name = &rest[..rest.len().min(len)];
    match rest.get(len..) {
        _ if len == 0 || !name.iter().all(u8::is_ascii_graphic) => Verdict::No,
        Some(end) if b"\r\n".starts_with(&end[..end.len().min(2)]) => Verdict::Yes,
        Some(_) => Verdict::No,
        None => Verdict::Maybe,
    }
}

/// Name in a request that is an array, when all of it is there.
fn array_name(sent: &[u8]) -> Option<&[u8]> {
    if array(sent) != Verdict::Yes {
        return None;
    }
    let name = sent.splitn(3, |byte| *byte == b'\n').nth(2)?;
    name.split(|byte| *byte == b'\r').next()
}

fn inline(sent: &[u8]) -> Verdict {
    let end = sent.iter().position(|byte| *byte == b'\n');
    let line = &sent[..end.unwrap_or(sent.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_INLINE || line.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Verdict::No;
    }
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    let Some(info) = lookup(name) else {
        return if end.is_none() && name.len() == line.len() && could_become_known(name) {
            Verdict::Maybe
        } else {
            Verdict::No
        };
    };
    let rest = words.clone().count();
    let http = words.clone().any(|word| word.starts_with(b"HTTP/") || word.starts_with(b"/"));
    // memcached: `set key flags exptime bytes`
    let memcached =
        name.is_ascii() && name == b"set" && rest >= 4 && words.skip(1).take(3).all(|word| digits(word, true, false));
    if http || memcached {
        return Verdict::No;
    }
    if end.is_none() || SHARED.contains(&info.name) { Verdict::Maybe } else { Verdict::Yes }
}

fn could_become_known(name: &[u8]) -> bool {
    name.len() < 24
        && super::commands::COMMANDS
            .iter()
            .any(|info| info.name.len() > name.len() && info.name.as_bytes()[..name.len()].eq_ignore_ascii_case(name))
}

/// The bytes up to CRLF, and whether that is there. `None` when a line ends otherwise.
fn line(bytes: &[u8]) -> Option<(&[u8], bool)> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Some((bytes.strip_suffix(b"\r").unwrap_or(bytes), false));
    };
    bytes[..end].strip_suffix(b"\r").map(|line| (line, true))
}

/// Digits, at least one when the line is complete.
fn digits(text: &[u8], complete: bool, signed: bool) -> bool {
    let text = if signed { text.strip_prefix(b"-").unwrap_or(text) } else { text };
    text.iter().all(u8::is_ascii_digit) && (!complete || !text.is_empty())
}

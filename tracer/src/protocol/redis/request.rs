//! Requests: arrays of bulk strings and inline commands, in pieces of any size.

use smol_str::SmolStr;
use std::borrow::Cow;
use std::mem;

use super::classify::looks_like_redis;
use super::print::Print;
use super::table::{Effect, Info, lookup};
use super::text::{MAX_ARG, QueryText, Text};
use crate::protocol::resp::{MAX_BULK, Malformed, Scanner, Token, number};
use crate::protocol::stream::Verdict;

/// Most arguments that are believed; Redis refuses more than `INT_MAX`.
const MAX_ARGS: i64 = i32::MAX as i64;
/// Longest inline command, as in Redis.
const MAX_INLINE: usize = 64 * 1024;
/// Longest name of a module's command that is shown.
const MAX_NAME: usize = 32;
/// Name of what is not known to be one: a mistyped command may be a credential, as in a client that was given only the password.
const OTHER: &str = "_OTHER";

/// What a request asks of the tracker, with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// A reply.
    Reply,
    /// `SELECT`: another database (`None`: not a number).
    Select(Option<u32>),
    /// `CLIENT REPLY ON`.
    ReplyOn,
    /// `CLIENT REPLY OFF`.
    ReplyOff,
    /// `CLIENT REPLY SKIP`.
    ReplySkip,
}

/// A complete request.
#[derive(Debug)]
pub(super) struct Request {
    /// As sent, with the subcommand.
    pub name: Cow<'static, str>,
    pub text: Option<SmolStr>,
    /// Arguments, the name not counted.
    pub args: u32,
    pub bytes: u64,
    pub print: Option<u64>,
    pub blocking: bool,
    pub effect: Effect,
    pub asks: Asks,
}

/// Incremental parser of requests.
#[derive(Debug)]
pub(super) struct Requests {
    scanner: Scanner,
    /// Arguments of the current request, the name counted; 0 between requests.
    total: u32,
    /// Argument that is being read.
    index: u32,
    /// Length of that argument.
    arg_len: u64,
    /// Its first bytes, when they came in pieces.
    prefix: Vec<u8>,
    /// It was handed on whole.
    arg_done: bool,
    draft: Draft,
}

/// A request in the making.
#[derive(Debug)]
struct Draft {
    text: Text,
    info: Option<&'static Info>,
    name: Cow<'static, str>,
    bytes: u64,
    print: Print,
    blocking: bool,
    asks: Asks,
    is_client_reply: bool,
}

impl Requests {
    pub(super) fn new(mode: QueryText) -> Self {
        Self {
            scanner: Scanner::new(MAX_INLINE, MAX_INLINE),
            total: 0,
            index: 0,
            arg_len: 0,
            prefix: Vec::new(),
            arg_done: false,
            draft: Draft {
                text: Text::new(mode),
                info: None,
                name: Cow::Borrowed(OTHER),
                bytes: 0,
                print: Print::default(),
                blocking: false,
                asks: Asks::Reply,
                is_client_reply: false,
            },
        }
    }

    /// True between two requests.
    pub(super) fn is_between(&self) -> bool {
        self.total == 0 && self.scanner.is_between()
    }

    /// Name of the request that is being read, once that is known.
    fn name(&self) -> Option<Cow<'static, str>> {
        (self.total > 0 && self.index > 0).then(|| self.draft.name.clone())
    }

    /// Bytes of the current argument that need not be seen.
    pub(super) fn body_left(&self) -> u64 {
        self.scanner.body_left()
    }

    /// Forgets a request that is not complete.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.total = 0;
        self.draft.clear();
    }

    /// Fingerprint of a request that is not complete, if more bytes would not change it.
    pub(super) fn partial_print(&self) -> Option<u64> {
        self.draft.print.is_full().then(|| self.draft.print.value()).flatten()
    }

    /// `len` bytes are missing. False when framing was among them.
    pub(super) fn gap(&mut self, len: u64) -> bool {
        let inside = self.scanner.gap(len);
        if inside {
            self.draft.bytes = self.draft.bytes.saturating_add(len);
            self.draft.print.gap();
        }
        inside
    }

    /// The next complete request; `None` when more input is needed.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Request>, Malformed> {
        loop {
            let before = *input;
            let token = self.scanner.next(input);
            let used = &before[..before.len() - input.len()];
            self.draft.bytes += used.len() as u64;
            self.draft.print.add(used);
            match token? {
                None => return Ok(None),
                Some(Token::Line(line)) if self.total == 0 => match line.strip_prefix(b"*") {
                    Some(count) => {
                        let count = number(count).filter(|count| *count <= MAX_ARGS).ok_or(Malformed)?;
                        // Redis ignores empty requests.
                        (self.index, self.total) = (0, u32::try_from(count).unwrap_or(0));
                        if self.total == 0 {
                            self.draft.clear();
                        }
                    }
                    None => {
                        if let Some(request) = self.draft.inline(line)? {
                            return Ok(Some(request));
                        }
                        self.draft.clear();
                    }
                },
                Some(Token::Line(line)) => {
                    let len = line.strip_prefix(b"$").and_then(number).and_then(|len| u64::try_from(len).ok());
                    self.arg_len = len.filter(|len| *len <= MAX_BULK).ok_or(Malformed)?;
                    self.arg_done = false;
                    self.prefix.clear();
                    self.scanner.body(self.arg_len);
                }
                Some(Token::Body(data)) => {
                    let whole = self.prefix.is_empty() && data.len() as u64 == self.arg_len;
                    if whole {
                        self.draft.arg(self.index, self.total, data, self.arg_len);
                        self.arg_done = true;
                    } else if self.prefix.len() < MAX_ARG {
                        let room = MAX_ARG - self.prefix.len();
                        self.prefix.extend_from_slice(&data[..data.len().min(room)]);
                    }
                }
                Some(Token::End) => {
                    if !self.arg_done {
                        self.draft.arg(self.index, self.total, &self.prefix, self.arg_len);
                    }
                    self.index += 1;
                    if self.index == self.total {
                        self.total = 0;
                        return Ok(Some(self.draft.finish(self.index)));
                    }
                }
            }
        }
    }
}

/// The first command of bytes that a server has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// As sent, with the subcommand.
    pub name: Cow<'static, str>,
    /// Bytes follow it: it is one of several.
    pub more: bool,
}

/// Looks at the start of `len` bytes, of which `bytes` are the first. `None` when no command begins there.
pub fn peek(bytes: &[u8], len: u64) -> Option<Peek> {
    if bytes.first() != Some(&b'*') && looks_like_redis(bytes) == Verdict::No {
        return None;
    }
    let mut requests = Requests::new(QueryText::Off);
    let mut rest = bytes;
    match requests.next(&mut rest) {
        Ok(Some(request)) => {
            let more = len > (bytes.len() - rest.len()) as u64;
            Some(Peek { name: request.name, more })
        }
        Ok(None) => requests.name().map(|name| Peek { name, more: false }),
        Err(Malformed) => None,
    }
}

impl Draft {
    /// What was read belongs to no request.
    fn clear(&mut self) {
        self.bytes = 0;
        self.print = Print::default();
    }

    fn arg(&mut self, index: u32, total: u32, arg: &[u8], len: u64) {
        match index {
            0 => self.begin(arg, len),
            1 => self.second(total, arg, len),
            _ => {
                if index == 2 && self.is_client_reply {
                    self.asks = reply_mode(arg);
                }
                self.other(index, total, arg, len);
            }
        }
    }

    fn begin(&mut self, arg: &[u8], len: u64) {
        let whole = arg.len() as u64 == len;
        self.info = if whole { lookup(arg) } else { None };
        self.name = name(arg, self.info, whole);
        self.blocking = self.info.is_some_and(|info| info.blocking);
        self.asks = if self.effect() == Effect::Select { Asks::Select(None) } else { Asks::Reply };
        self.is_client_reply = false;
        self.text.begin(&self.name);
    }

    fn second(&mut self, total: u32, arg: &[u8], len: u64) {
        if let Asks::Select(database) = &mut self.asks {
            *database = number(arg).and_then(|index| u32::try_from(index).ok());
        }
        match self.info.and_then(|info| info.subcommand(arg)).filter(|word| word.len() as u64 == len) {
            Some(word) => {
                self.is_client_reply = self.effect() == Effect::Client && word == "REPLY";
                self.name = subcommand_name(&self.name, arg);
                self.text.word(arg);
            }
            None => self.other(1, total, arg, len),
        }
    }

    fn other(&mut self, index: u32, total: u32, arg: &[u8], len: u64) {
        if self.text.arg(self.info, index, total, arg, len) == Some("BLOCK") {
            self.blocking = true;
        }
    }

    fn effect(&self) -> Effect {
        self.info.map_or(Effect::None, |info| info.effect)
    }

    fn finish(&mut self, total: u32) -> Request {
        Request {
            name: mem::replace(&mut self.name, Cow::Borrowed(OTHER)),
            text: self.text.finish(),
            args: total - 1,
            bytes: mem::take(&mut self.bytes),
            print: mem::take(&mut self.print).value(),
            blocking: self.blocking,
            effect: self.effect(),
            asks: self.asks,
        }
    }

    /// A line that is a command, words separated by spaces and perhaps quoted; `None` when it is empty.
    fn inline(&mut self, line: &[u8]) -> Result<Option<Request>, Malformed> {
        let total = Words(line).try_fold(0u32, |count, word| word.map(|_| count + 1)).ok_or(Malformed)?;
        for (index, word) in (0..total).zip(Words(line).flatten()) {
            self.arg(index, total, &word[..word.len().min(MAX_ARG)], word.len() as u64);
        }
        Ok((total > 0).then(|| self.finish(total)))
    }
}

/// Words of an inline command. Yields `None` for an unbalanced quote. Escapes are left as they are: they stand in values.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.0.trim_ascii_start();
        let quote = *line.first()?;
        if quote != b'"' && quote != b'\'' {
            let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            let (word, rest) = line.split_at(end);
            self.0 = rest;
            return Some(Some(word));
        }
        let mut escaped = false;
        for (at, &byte) in line.iter().enumerate().skip(1) {
            if byte == quote && !escaped {
                self.0 = &line[at + 1..];
                return Some(Some(&line[1..at]));
            }
            escaped = byte == b'\\' && !escaped;
        }
        self.0 = &[];
        Some(None)
    }
}

fn name(arg: &[u8], info: Option<&'static Info>, whole: bool) -> Cow<'static, str> {
    if let Some(info) = info.filter(|info| info.name.as_bytes() == arg) {
        return Cow::Borrowed(info.name);
    }
    let letters = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_alphabetic);
    let of_module = || {
        let mut parts = arg.split(|byte| *byte == b'.');
        let two = parts.next().is_some_and(letters) && parts.next().is_some_and(letters) && parts.next().is_none();
        two && whole && arg.len() <= MAX_NAME
    };
    match std::str::from_utf8(arg) {
        Ok(name) if info.is_some() || of_module() => Cow::Owned(name.to_owned()),
        _ => Cow::Borrowed(OTHER),
    }
}

fn subcommand_name(name: &str, word: &[u8]) -> Cow<'static, str> {
    Cow::Owned(format!("{name} {}", String::from_utf8_lossy(word)))
}

fn reply_mode(arg: &[u8]) -> Asks {
    if arg.eq_ignore_ascii_case(b"off") {
        Asks::ReplyOff
    } else if arg.eq_ignore_ascii_case(b"skip") {
        Asks::ReplySkip
    } else if arg.eq_ignore_ascii_case(b"on") {
        Asks::ReplyOn
    } else {
        Asks::Reply
    }
}

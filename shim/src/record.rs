//! The record of a span: what the shim hands to the listener of its USDT site, and how to read it.
//!
//! All numbers are little-endian. A record is at most [`MAX_LEN`] bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | `version`, [`VERSION`] |
//! | 2 | 2 | `len`, of the whole record |
//! | 4 | 1 | `operation`, an [`Operation`] |
//! | 5 | 1 | `kind`, a [`Kind`], as in OTLP |
//! | 6 | 1 | `status`: 0 unset, 1 ok, 2 error |
//! | 7 | 1 | `flags`: [`PARENT_REMOTE`], [`NAME_TRUNCATED`] |
//! | 8 | 1 | `trace_flags`, W3C |
//! | 9 | 1 | zero |
//! | 10 | 2 | `name_len` |
//! | 12 | 2 | `items` |
//! | 14 | 2 | `dropped`: items that did not fit |
//! | 16 | 8 | `start_ns`, CLOCK_MONOTONIC |
//! | 24 | 8 | `end_ns`, CLOCK_MONOTONIC |
//! | 32 | 8 | `size` of the message in bytes, [`NO_SIZE`] when there is no message |
//! | 40 | 16 | `trace_id` |
//! | 56 | 8 | `span_id` |
//! | 64 | 8 | `parent_span_id`, zero for the first span of a trace |
//! | 72 | 8 | `threshold`, 56 bits, with which this first span of a trace was sampled; [`NO_THRESHOLD`] otherwise |
//! | 80 | `name_len` | name: the message's Rust type for messages, else what the caller gave |
//! | | | `items` items |
//!
//! An item is `{ u8 item, u8 value_type, u8 key_len, u8 zero, u16 value_len }`, then the key, then the value: see [`Item`].

use core::fmt;

/// Version of the layout.
pub const VERSION: u16 = 1;
/// Longest record in bytes.
pub const MAX_LEN: usize = 1024;
/// Bytes before the name.
pub const HEAD_LEN: usize = size_of::<SpanRecord>();
/// Longest name in bytes; longer ones are cut at a character.
pub const MAX_NAME: usize = 255;
/// `size` of a span that is not of a message.
pub const NO_SIZE: u64 = u64::MAX;
/// `threshold` of a span whose sampling was decided elsewhere.
pub const NO_THRESHOLD: u64 = u64::MAX;
/// Flag: the parent is in another process.
pub const PARENT_REMOTE: u8 = 1;
/// Flag: the name was longer than [`MAX_NAME`].
pub const NAME_TRUNCATED: u8 = 2;

/// Version of the table of task flows, of which the semaphore's page says where it is: after the count (`u16`) come this version
/// (`u16`), the number of slots (`u32`, a power of two, 0 for no table) and the table's address (8 bytes). A slot of
/// [`FLOW_LEN`] bytes, at index `task & (slots - 1)`, is `{ u64 sequence (odd while written), u64 task, u8 trace_id[16],
/// u8 span_id[8], u8 trace_flags, .. }`.
pub const FLOWS_VERSION: u16 = 1;
/// Bytes of a slot of the table of task flows.
pub const FLOW_LEN: usize = 48;

pub(crate) const ITEM_HEAD: usize = 6;
pub(crate) const ATTRIBUTE: u8 = 1;
pub(crate) const EVENT: u8 = 2;
pub(crate) const EVENT_ATTRIBUTE: u8 = 3;
pub(crate) const DESCRIPTION: u8 = 4;
pub(crate) const LINK: u8 = 5;
pub(crate) const TYPE_STR: u8 = 1;
pub(crate) const TYPE_INT: u8 = 2;
pub(crate) const TYPE_FLOAT: u8 = 3;
pub(crate) const TYPE_BOOL: u8 = 4;
pub(crate) const TYPE_BYTES: u8 = 5;

/// The fixed part of a record; the module's documentation has its layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table above says what each field is")]
pub struct SpanRecord {
    pub version: u16,
    pub len: u16,
    pub operation: u8,
    pub kind: u8,
    pub status: u8,
    pub flags: u8,
    pub trace_flags: u8,
    pub reserved: u8,
    pub name_len: u16,
    pub items: u16,
    pub dropped: u16,
    pub start_ns: u64,
    pub end_ns: u64,
    pub size: u64,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_span_id: [u8; 8],
    pub threshold: u64,
}

const _: () = {
    assert!(size_of::<SpanRecord>() == 80 && align_of::<SpanRecord>() == 8);
    assert!(core::mem::offset_of!(SpanRecord, start_ns) == 16);
    assert!(core::mem::offset_of!(SpanRecord, trace_id) == 40);
    assert!(core::mem::offset_of!(SpanRecord, threshold) == 72);
};

/// What the span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// A message was encoded.
    Encode = 1,
    /// A message was decoded.
    Decode = 2,
    /// A message was handled: [`crate::process`].
    Process = 3,
    /// Whatever the caller says: [`crate::span`].
    Custom = 4,
}

/// OTLP span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Inside one process.
    Internal = 1,
    /// Serves a request.
    Server = 2,
    /// Makes a request.
    Client = 3,
    /// Creates or sends a message.
    Producer = 4,
    /// Handles a message.
    Consumer = 5,
}

/// OTLP span status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Nothing said.
    Unset = 0,
    /// Success, said by the program.
    Ok = 1,
    /// Failure.
    Error = 2,
}

/// Value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// Integer.
    Int(i64),
    /// Floating point.
    Float(f64),
    /// Truth value.
    Bool(bool),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident as $to:ty),*) => { $(
        impl From<$from> for Value<'_> {
            fn from(value: $from) -> Self {
                Self::$variant(value as $to)
            }
        }
    )* };
}
value_from!(i64 => Int as i64, i32 => Int as i64, u32 => Int as i64, u16 => Int as i64, f64 => Float as f64, f32 => Float as f64, bool => Bool as bool);

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Str(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Str(value)
    }
}

/// One item of a record, in the order in which the program added them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// An attribute of the span.
    Attribute(&'a str, Value<'a>),
    /// Something happened at this time (CLOCK_MONOTONIC).
    Event(&'a str, u64),
    /// An attribute of the event before it.
    EventAttribute(&'a str, Value<'a>),
    /// Why the span failed.
    Description(&'a str),
    /// Another span that this one belongs to: trace id, span id, W3C flags.
    Link([u8; 16], [u8; 8], u8),
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than it says, or than any record.
    Truncated,
    /// Of another layout.
    Version(u16),
    /// A field holds what no shim writes.
    Malformed(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("span record is truncated"),
            Self::Version(version) => write!(f, "span record has version {version}, not {VERSION}"),
            Self::Malformed(field) => write!(f, "span record has a malformed {field}"),
        }
    }
}

impl std::error::Error for ParseError {}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct ParsedSpan<'a> {
    /// The numbers.
    pub head: SpanRecord,
    /// What the span is of.
    pub operation: Operation,
    /// Kind.
    pub kind: Kind,
    /// Status.
    pub status: Status,
    /// Name, or the Rust type of the message.
    pub name: &'a str,
    items: &'a [u8],
}

impl<'a> ParsedSpan<'a> {
    /// Attributes, events and the rest. All of them are well-formed: parsing has checked them.
    pub fn items(&self) -> Items<'a> {
        Items { rest: self.items }
    }
}

/// Iterator of [`Item`]s.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = parse_item(self.rest).ok()?;
        self.rest = rest;
        Some(item)
    }
}

impl SpanRecord {
    /// Reads a record. The bytes may come from anywhere: nothing is trusted.
    ///
    /// # Errors
    /// When the bytes are not a record of this [`VERSION`].
    pub fn parse(bytes: &[u8]) -> Result<ParsedSpan<'_>, ParseError> {
        let mut reader = Reader { rest: bytes };
        let head = reader.head().ok_or(ParseError::Truncated)?;
        if head.version != VERSION {
            return Err(ParseError::Version(head.version));
        }
        let len = usize::from(head.len);
        if !(HEAD_LEN..=MAX_LEN).contains(&len) {
            return Err(ParseError::Malformed("length"));
        }
        let body = bytes.get(HEAD_LEN..len).ok_or(ParseError::Truncated)?;
        let (name, items) = body.split_at_checked(usize::from(head.name_len)).ok_or(ParseError::Truncated)?;
        if head.trace_id == [0; 16] || head.span_id == [0; 8] {
            return Err(ParseError::Malformed("id"));
        }
        if head.end_ns < head.start_ns {
            return Err(ParseError::Malformed("time"));
        }
        let mut rest = items;
        for _ in 0..head.items {
            (_, rest) = parse_item(rest)?;
        }
        if !rest.is_empty() {
            return Err(ParseError::Malformed("item count"));
        }
        Ok(ParsedSpan {
            head,
            operation: match head.operation {
                1 => Operation::Encode,
                2 => Operation::Decode,
                3 => Operation::Process,
                4 => Operation::Custom,
                _ => return Err(ParseError::Malformed("operation")),
            },
            kind: match head.kind {
                1 => Kind::Internal,
                2 => Kind::Server,
                3 => Kind::Client,
                4 => Kind::Producer,
                5 => Kind::Consumer,
                _ => return Err(ParseError::Malformed("kind")),
            },
            status: match head.status {
                0 => Status::Unset,
                1 => Status::Ok,
                2 => Status::Error,
                _ => return Err(ParseError::Malformed("status")),
            },
            name: core::str::from_utf8(name).map_err(|_| ParseError::Malformed("name"))?,
            items,
        })
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn head(&mut self) -> Option<SpanRecord> {
        Some(SpanRecord {
            version: self.u16()?,
            len: self.u16()?,
            operation: self.u8()?,
            kind: self.u8()?,
            status: self.u8()?,
            flags: self.u8()?,
            trace_flags: self.u8()?,
            reserved: self.u8()?,
            name_len: self.u16()?,
            items: self.u16()?,
            dropped: self.u16()?,
            start_ns: self.u64()?,
            end_ns: self.u64()?,
            size: self.u64()?,
            trace_id: self.take()?,
            span_id: self.take()?,
            parent_span_id: self.take()?,
            threshold: self.u64()?,
        })
    }
}

fn parse_item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), ParseError> {
    let ([item, value_type, key_len, _, low, high], rest) =
        bytes.split_first_chunk::<ITEM_HEAD>().ok_or(ParseError::Truncated)?;
    let value_len = usize::from(u16::from_le_bytes([*low, *high]));
    let (key, rest) = rest.split_at_checked(usize::from(*key_len)).ok_or(ParseError::Truncated)?;
    let (value, rest) = rest.split_at_checked(value_len).ok_or(ParseError::Truncated)?;
    let key = core::str::from_utf8(key).map_err(|_| ParseError::Malformed("key"))?;
    let item = match (*item, *value_type) {
        (ATTRIBUTE, _) => Item::Attribute(key, parse_value(*value_type, value)?),
        (EVENT, TYPE_INT) => Item::Event(key, u64::from_le_bytes(eight(value)?)),
        (EVENT_ATTRIBUTE, _) => Item::EventAttribute(key, parse_value(*value_type, value)?),
        (DESCRIPTION, TYPE_STR) => Item::Description(text(value)?),
        (LINK, TYPE_BYTES) => {
            let value: [u8; 25] = value.try_into().map_err(|_| ParseError::Malformed("link"))?;
            let mut reader = Reader { rest: &value };
            let parts = (reader.take(), reader.take(), reader.u8());
            let (Some(trace_id), Some(span_id), Some(flags)) = parts else {
                return Err(ParseError::Truncated);
            };
            Item::Link(trace_id, span_id, flags)
        }
        _ => return Err(ParseError::Malformed("item")),
    };
    Ok((item, rest))
}

fn parse_value(value_type: u8, bytes: &[u8]) -> Result<Value<'_>, ParseError> {
    Ok(match value_type {
        TYPE_STR => Value::Str(text(bytes)?),
        TYPE_INT => Value::Int(i64::from_le_bytes(eight(bytes)?)),
        TYPE_FLOAT => Value::Float(f64::from_le_bytes(eight(bytes)?)),
        TYPE_BOOL => match bytes {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return Err(ParseError::Malformed("truth value")),
        },
        _ => return Err(ParseError::Malformed("value type")),
    })
}

fn eight(bytes: &[u8]) -> Result<[u8; 8], ParseError> {
    bytes.try_into().map_err(|_| ParseError::Malformed("number"))
}

fn text(bytes: &[u8]) -> Result<&str, ParseError> {
    core::str::from_utf8(bytes).map_err(|_| ParseError::Malformed("text"))
}

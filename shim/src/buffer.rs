//! A record being written.

use crate::context::Context;
use crate::record::{
    ATTRIBUTE, DESCRIPTION, EVENT, EVENT_ATTRIBUTE, HEAD_LEN, ITEM_HEAD, Kind, LINK, MAX_LEN,
    MAX_NAME, NAME_TRUNCATED, NO_SIZE, NO_THRESHOLD, Operation, SpanRecord, TYPE_BOOL, TYPE_BYTES,
    TYPE_FLOAT, TYPE_INT, TYPE_STR, VERSION, Value,
};
use std::mem::MaybeUninit;

/// A record being written. Only the part that is used is ever touched.
#[repr(C, align(8))]
pub(crate) struct Buffer {
    pub(crate) head: SpanRecord,
    data: [MaybeUninit<u8>; MAX_LEN - HEAD_LEN],
}

const EMPTY: SpanRecord = SpanRecord {
    version: VERSION,
    len: HEAD_LEN as u16,
    operation: 0,
    kind: 0,
    status: 0,
    flags: 0,
    trace_flags: 0,
    reserved: 0,
    name_len: 0,
    items: 0,
    dropped: 0,
    start_ns: 0,
    end_ns: 0,
    size: NO_SIZE,
    trace_id: [0; 16],
    span_id: [0; 8],
    parent_span_id: [0; 8],
    threshold: NO_THRESHOLD,
};

impl Default for Buffer {
    #[inline]
    fn default() -> Self {
        Self {
            head: EMPTY,
            data: [MaybeUninit::uninit(); MAX_LEN - HEAD_LEN],
        }
    }
}

impl Buffer {
    /// A record with this name, cut to [`MAX_NAME`] bytes.
    #[inline]
    pub(crate) fn new(operation: Operation, kind: Kind, name: &str) -> Self {
        let mut buffer = Self::default();
        buffer.begin(operation, kind, name);
        buffer
    }

    /// Begins again, with this name, cut to [`MAX_NAME`] bytes.
    #[inline]
    pub(crate) fn begin(&mut self, operation: Operation, kind: Kind, name: &str) {
        let kept = name.floor_char_boundary(MAX_NAME);
        self.head = SpanRecord {
            operation: operation as u8,
            kind: kind as u8,
            flags: if kept < name.len() { NAME_TRUNCATED } else { 0 },
            name_len: kept as u16,
            ..EMPTY
        };
        self.push(&name.as_bytes()[..kept]);
    }

    /// Appends bytes that are known to fit.
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.head.len) - HEAD_LEN;
        self.data[at..at + bytes.len()].write_copy_of_slice(bytes);
        self.head.len += bytes.len() as u16;
    }

    fn item(&mut self, item: u8, value_type: u8, key: &str, value: &[u8]) {
        let room = MAX_LEN - usize::from(self.head.len);
        if key.len() > usize::from(u8::MAX) || ITEM_HEAD + key.len() + value.len() > room {
            self.head.dropped = self.head.dropped.saturating_add(1);
            return;
        }
        let [low, high] = (value.len() as u16).to_le_bytes();
        self.push(&[item, value_type, key.len() as u8, 0, low, high]);
        self.push(key.as_bytes());
        self.push(value);
        self.head.items += 1;
    }

    fn value(&mut self, item: u8, key: &str, value: Value<'_>) {
        match value {
            Value::Str(text) => self.item(item, TYPE_STR, key, text.as_bytes()),
            Value::Int(number) => self.item(item, TYPE_INT, key, &number.to_le_bytes()),
            Value::Float(number) => self.item(item, TYPE_FLOAT, key, &number.to_le_bytes()),
            Value::Bool(truth) => self.item(item, TYPE_BOOL, key, &[u8::from(truth)]),
        }
    }

    pub(crate) fn attribute(&mut self, key: &str, value: Value<'_>) {
        self.value(ATTRIBUTE, key, value);
    }

    pub(crate) fn event(&mut self, name: &str, time_ns: u64) {
        self.item(EVENT, TYPE_INT, name, &time_ns.to_le_bytes());
    }

    pub(crate) fn event_attribute(&mut self, key: &str, value: Value<'_>) {
        self.value(EVENT_ATTRIBUTE, key, value);
    }

    pub(crate) fn description(&mut self, text: &str) {
        self.item(DESCRIPTION, TYPE_STR, "", text.as_bytes());
    }

    pub(crate) fn link(&mut self, context: Context) {
        let mut value = [0; 25];
        value[..16].copy_from_slice(&context.trace_id().to_bytes());
        value[16..24].copy_from_slice(&context.span_id().to_bytes());
        value[24] = context.trace_flags();
        self.item(LINK, TYPE_BYTES, "", &value);
    }

    /// Hands the record to the listener.
    #[inline]
    pub(crate) fn fire(&self) {
        crate::site::fire((&raw const *self).cast(), usize::from(self.head.len));
    }
}

//! A record being written.

use crate::context::Context;
use crate::record::{
    ATTRIBUTE, DESCRIPTION, EVENT, EVENT_ATTRIBUTE, HEAD_LEN, ITEM_HEAD, Kind, LINK, MAX_LEN, MAX_NAME, NAME_TRUNCATED,
    NO_SIZE, NO_THRESHOLD, Operation, SpanRecord, TYPE_BOOL, TYPE_BYTES, TYPE_FLOAT, TYPE_INT, TYPE_STR, VERSION,
    Value,
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
        Self { head: EMPTY, data: [MaybeUninit::uninit(); MAX_LEN - HEAD_LEN] }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::record::{Item, ParseError, Status};
    use proptest::prelude::*;

    /// The bytes of a record.
    fn bytes(record: &Buffer) -> Vec<u8> {
        let len = usize::from(record.head.len);
        // SAFETY: the first `len` bytes of a record are initialised.
        unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), len) }.to_vec()
    }

    fn record(name: &str) -> Buffer {
        let mut record = Buffer::new(Operation::Custom, Kind::Internal, name);
        (record.head.trace_id, record.head.span_id) = ([1; 16], [2; 8]);
        record
    }

    #[derive(Clone, Debug)]
    enum Owned {
        Str(String),
        Int(i64),
        Float(f64),
        Bool(bool),
    }

    impl Owned {
        fn value(&self) -> Value<'_> {
            match self {
                Self::Str(text) => Value::Str(text),
                Self::Int(number) => Value::Int(*number),
                Self::Float(number) => Value::Float(*number),
                Self::Bool(truth) => Value::Bool(*truth),
            }
        }
    }

    fn value() -> impl Strategy<Value = Owned> {
        prop_oneof![
            any::<String>().prop_map(Owned::Str),
            any::<i64>().prop_map(Owned::Int),
            (-1e9..1e9).prop_map(Owned::Float),
            any::<bool>().prop_map(Owned::Bool),
        ]
    }

    proptest! {
        #[test]
        fn what_fits_is_read_back_and_the_rest_is_counted(
            name: String,
            attributes in prop::collection::vec((any::<String>(), value()), 0..40),
        ) {
            let mut record = record(&name);
            for (key, value) in &attributes {
                record.attribute(key, value.value());
            }
            let bytes = bytes(&record);
            let span = SpanRecord::parse(&bytes).unwrap();
            prop_assert!(name.starts_with(span.name));
            prop_assert_eq!(span.items().count() + usize::from(span.head.dropped), attributes.len());
            let mut expected = attributes.iter();
            for item in span.items() {
                let Item::Attribute(key, value) = item else { panic!("{item:?}") };
                prop_assert!(expected.any(|(k, v)| k == key && v.value() == value));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            prop_assert!(SpanRecord::parse(&bytes).is_err());
        }

        #[test]
        fn damage_is_refused_or_read(at in 0..200_usize, byte: u8, cut in 0..200_usize) {
            let mut record = record("name");
            record.attribute("key", Value::Str("value"));
            record.event("event", 5);
            record.link(Context::new(crate::TraceId::from_bytes([3; 16]), crate::SpanId::from_bytes([4; 8]), 1));
            let mut bytes = bytes(&record);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(span) = SpanRecord::parse(&bytes) {
                prop_assert_eq!(span.items().count(), usize::from(span.head.items));
            }
            bytes.truncate(cut.min(bytes.len() - 1));
            prop_assert!(SpanRecord::parse(&bytes).is_err());
        }
    }

    #[test]
    fn every_item_survives() {
        let mut record = record("name");
        record.head.status = Status::Error as u8;
        record.attribute("a", Value::Bool(true));
        record.event("e", 5);
        record.event_attribute("b", Value::Float(0.5));
        record.description("why");
        record.link(Context::new(crate::TraceId::from_bytes([3; 16]), crate::SpanId::from_bytes([4; 8]), 1));
        let bytes = bytes(&record);
        let span = SpanRecord::parse(&bytes).unwrap();
        assert_eq!((span.name, span.status, span.operation), ("name", Status::Error, Operation::Custom));
        assert_eq!(
            span.items().collect::<Vec<_>>(),
            [
                Item::Attribute("a", Value::Bool(true)),
                Item::Event("e", 5),
                Item::EventAttribute("b", Value::Float(0.5)),
                Item::Description("why"),
                Item::Link([3; 16], [4; 8], 1),
            ]
        );
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let record = record(&"é".repeat(200));
        let bytes = bytes(&record);
        let span = SpanRecord::parse(&bytes).unwrap();
        assert_eq!(span.name, "é".repeat(127));
        assert_eq!(span.head.flags & NAME_TRUNCATED, NAME_TRUNCATED);
    }

    #[test]
    fn other_versions_are_named() {
        let mut record = record("name");
        record.head.version = 9;
        assert_eq!(SpanRecord::parse(&bytes(&record)).unwrap_err(), ParseError::Version(9));
    }
}

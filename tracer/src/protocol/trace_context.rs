//! The trace header inside a message (requirement A4).
//!
//! A sender that takes part puts `TraceContext { string trace_id = 1; string span_id = 2; bool sampled = 3; }` in a field of
//! its message. Which field is not known here: the header is recognised by its content, which nothing else looks like,
//! 32 and 16 hexadecimal digits in two strings. Fields of the message itself are looked at, not those of messages in it.
//!
//! Of a long message only the start and the end are captured. Fields are skipped by their lengths, so one that covers the
//! hole costs nothing. Where a field ends in the hole, a header that ends with the message is still found, as long as
//! nothing in the captured end looks like a message around it.
//!
//! Other headers at the top level of a message (a trailer of the shim) can be found by another loop over `Fields`.

use crate::model::{SpanId, TraceId};

/// Ids, without `sampled`: two tags, two lengths, 32 and 16 digits.
const IDS: usize = 52;
/// The same with `sampled`.
const IDS_AND_FLAG: usize = 54;
/// Longest varint.
const MAX_VARINT: u64 = 10;
/// Longest tag: 32 bits.
const MAX_TAG: u64 = 5;

/// A trace header found in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's trace.
    pub trace_id: TraceId,
    /// The sender's span.
    pub span_id: SpanId,
    /// The sender records this trace.
    pub sampled: bool,
    /// Field of the message that holds the header.
    pub field_number: u32,
}

/// The header of an encoded message, of which `prefix` is the start and `tail` the end; `size` is the length of all of it,
/// where that is known. The last one counts, as for every protobuf field.
pub fn find_trace_context(prefix: &[u8], tail: &[u8], size: Option<u64>) -> Option<Header> {
    let whole = Captured::new(prefix, tail, size);
    find(&whole)
}

/// The same for `encode_length_delimited` and its kin: a varint with the length comes first. Bytes after the message are
/// not looked at.
pub fn find_trace_context_delimited(prefix: &[u8], tail: &[u8], size: Option<u64>) -> Option<Header> {
    let mut whole = Captured::new(prefix, tail, size);
    let (len, start) = whole.varint(0)?;
    whole.start = start;
    whole.end = Some(start.checked_add(len)?);
    find(&whole)
}

fn find(captured: &Captured<'_>) -> Option<Header> {
    let mut fields = Fields::new(captured);
    let mut found = None;
    for field in &mut fields {
        if let Some(header) = captured.header(field.at, field.len, field.number) {
            found = Some(header);
        }
    }
    match fields.outcome {
        Outcome::End => found,
        Outcome::Hole => found.or_else(|| captured.last_header()),
        Outcome::Malformed => None,
    }
}

/// What was captured of a message.
struct Captured<'a> {
    prefix: &'a [u8],
    tail: &'a [u8],
    /// Offset of the tail.
    tail_at: u64,
    /// Where the message starts.
    start: u64,
    /// Where it ends.
    end: Option<u64>,
}

impl<'a> Captured<'a> {
    fn new(prefix: &'a [u8], tail: &'a [u8], size: Option<u64>) -> Self {
        let known = prefix.len() as u64 + tail.len() as u64;
        match size {
            Some(size) if size >= known => {
                Self { prefix, tail, tail_at: size - tail.len() as u64, start: 0, end: Some(size) }
            }
            // Where the tail belongs is not known.
            _ => Self { prefix, tail: &[], tail_at: u64::MAX, start: 0, end: None },
        }
    }

    fn byte(&self, at: u64) -> Option<u8> {
        if self.end.is_some_and(|end| at >= end) {
            return None;
        }
        let inside = |piece: &[u8], at: u64| piece.get(usize::try_from(at).ok()?).copied();
        inside(self.prefix, at).or_else(|| inside(self.tail, at.checked_sub(self.tail_at)?))
    }

    /// A varint and the offset after it.
    fn varint(&self, at: u64) -> Option<(u64, u64)> {
        let mut value = 0u64;
        for index in 0..MAX_VARINT {
            let byte = self.byte(at.checked_add(index)?)?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
            if byte < 0x80 {
                return Some((value, at + index + 1));
            }
        }
        None
    }

    /// The header that is all of the `len` bytes at `at`.
    fn header(&self, at: u64, len: u64, field_number: u32) -> Option<Header> {
        let len = usize::try_from(len).ok().filter(|len| [IDS, IDS_AND_FLAG].contains(len))?;
        let mut content = [0; IDS_AND_FLAG];
        for (index, byte) in content.iter_mut().enumerate().take(len) {
            *byte = self.byte(at + index as u64)?;
        }
        let (mut trace_id, mut span_id, mut sampled) = (None, None, None);
        let mut rest = content.get(..len)?;
        while !rest.is_empty() {
            rest = match rest {
                [0x0a, 32, after @ ..] if trace_id.is_none() => {
                    let (digits, after) = after.split_at_checked(32)?;
                    trace_id = Some(TraceId::from_hex(digits)?);
                    after
                }
                [0x12, 16, after @ ..] if span_id.is_none() => {
                    let (digits, after) = after.split_at_checked(16)?;
                    span_id = Some(SpanId::from_hex(digits)?);
                    after
                }
                [0x18, flag @ (0 | 1), after @ ..] if sampled.is_none() => {
                    sampled = Some(*flag == 1);
                    after
                }
                _ => return None,
            };
        }
        Some(Header { trace_id: trace_id?, span_id: span_id?, sampled: sampled.unwrap_or(false), field_number })
    }

    /// The header that ends with the message, when it cannot be the last field of a message in the message.
    fn last_header(&self) -> Option<Header> {
        let end = self.end?;
        let header = [IDS, IDS_AND_FLAG].into_iter().find_map(|len| {
            let at = end.checked_sub(len as u64)?;
            let (said, after) = self.varint(at.checked_sub(1)?)?;
            if (said, after) != (len as u64, at) {
                return None;
            }
            let (number, tag_at) = self.tag_before(at - 1)?;
            Some((self.header(at, len as u64, number)?, tag_at))
        });
        let (header, header_at) = header?;
        let around = (self.tail_at.max(self.start)..header_at).any(|at| {
            let ends_with_message = self.varint(at).is_some_and(|(len, after)| after.checked_add(len) == Some(end));
            ends_with_message && self.tag_before(at).is_some()
        });
        (!around).then_some(header)
    }

    /// Number of the length-delimited field whose tag ends before `at`, and where the tag begins.
    fn tag_before(&self, at: u64) -> Option<(u32, u64)> {
        (1..=MAX_TAG).find_map(|len| {
            let tag_at = at.checked_sub(len).filter(|tag_at| *tag_at >= self.start)?;
            let (tag, after) = self.varint(tag_at)?;
            let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
            (after == at && tag & 7 == 2).then_some((number, tag_at))
        })
    }
}

/// How a walk over fields ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// At the end of the message, or of what is known of it.
    End,
    /// In bytes that were not captured.
    Hole,
    /// These are not fields.
    Malformed,
}

/// A length-delimited field of the message itself.
struct Field {
    number: u32,
    at: u64,
    len: u64,
}

/// Length-delimited fields at the top level, in order.
struct Fields<'a> {
    captured: &'a Captured<'a>,
    at: u64,
    /// Groups around the position.
    depth: u32,
    outcome: Outcome,
}

impl<'a> Fields<'a> {
    fn new(captured: &'a Captured<'a>) -> Self {
        Self { captured, at: captured.start, depth: 0, outcome: Outcome::End }
    }

    /// Reads a varint; otherwise says whether it is missing or malformed.
    fn varint(&mut self) -> Result<u64, Outcome> {
        let (value, after) = self.captured.varint(self.at).ok_or_else(|| {
            let seen = (0..MAX_VARINT).all(|index| self.captured.byte(self.at.saturating_add(index)).is_some());
            let cut = self.captured.end.is_some_and(|end| end.saturating_sub(self.at) < MAX_VARINT)
                && self.captured.byte(self.captured.end.unwrap_or(0).saturating_sub(1)).is_some();
            if seen || cut { Outcome::Malformed } else { Outcome::Hole }
        })?;
        self.at = after;
        Ok(value)
    }

    fn skip(&mut self, len: u64) -> Result<(), Outcome> {
        let after = self.at.checked_add(len).ok_or(Outcome::Malformed)?;
        if self.captured.end.is_some_and(|end| after > end) {
            return Err(Outcome::Malformed);
        }
        self.at = after;
        Ok(())
    }

    fn field(&mut self) -> Result<Field, Outcome> {
        loop {
            if self.captured.end.is_some_and(|end| self.at >= end) {
                return Err(if self.depth == 0 { Outcome::End } else { Outcome::Malformed });
            }
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
            let number = number.ok_or(Outcome::Malformed)?;
            match tag & 7 {
                0 => {
                    self.varint()?;
                }
                1 => self.skip(8)?,
                2 => {
                    let len = self.varint()?;
                    let at = self.at;
                    self.skip(len)?;
                    if self.depth == 0 {
                        return Ok(Field { number, at, len });
                    }
                }
                3 => self.depth += 1,
                4 => self.depth = self.depth.checked_sub(1).ok_or(Outcome::Malformed)?,
                5 => self.skip(4)?,
                _ => return Err(Outcome::Malformed),
            }
        }
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        match self.field() {
            Ok(field) => Some(field),
            Err(outcome) => {
                self.outcome = outcome;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }

    fn context(trace: &str, span: &str, sampled: Option<u8>) -> Vec<u8> {
        let flag = sampled.map_or(Vec::new(), |flag| vec![0x18, flag]);
        [field(1, trace.as_bytes()), field(2, span.as_bytes()), flag].concat()
    }

    fn whole(message: &[u8]) -> Option<Header> {
        find_trace_context(message, &[], Some(message.len() as u64))
    }

    fn cut(message: &[u8], prefix: usize, tail: usize) -> Option<Header> {
        find_trace_context(&message[..prefix], &message[message.len() - tail..], Some(message.len() as u64))
    }

    #[test]
    fn found_among_other_fields() {
        let before = [vec![0x08, 0x96, 0x01], field(2, b"EURUSD"), vec![0x1d, 1, 2, 3, 4], vec![0x21; 9]].concat();
        let message = [before, field(100, &context(TRACE, SPAN, Some(1))), field(101, b"after")].concat();
        let header = whole(&message).unwrap();
        assert_eq!((header.trace_id.to_string(), header.span_id.to_string()), (TRACE.into(), SPAN.into()));
        assert_eq!((header.sampled, header.field_number), (true, 100));
        assert_eq!(find_trace_context(&message, &[], None), Some(header), "length not known");
        for prefix in 0..message.len() {
            assert_eq!(cut(&message, prefix, message.len() - prefix), Some(header), "two pieces without a hole");
        }
    }

    #[test]
    fn content_is_exact() {
        let upper = TRACE.to_ascii_uppercase();
        assert!(whole(&field(1, &context(&upper, SPAN, None))).is_some(), "digits in any case");
        assert!(!whole(&field(1, &context(TRACE, SPAN, None))).unwrap().sampled);
        let swapped = [vec![0x18, 1], field(2, SPAN.as_bytes()), field(1, TRACE.as_bytes())].concat();
        assert!(whole(&field(1, &swapped)).unwrap().sampled, "any order");
        for content in [
            context(&"0".repeat(32), SPAN, None),
            context(TRACE, &"0".repeat(16), None),
            context(&"g".repeat(32), SPAN, None),
            context(TRACE, SPAN, Some(2)),
            field(1, TRACE.as_bytes()),
            [context(TRACE, SPAN, Some(1)), vec![0x20, 1]].concat(),
            [
                field(1, TRACE.as_bytes()),
                vec![0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1],
            ]
            .concat(),
        ] {
            assert_eq!(whole(&field(1, &content)), None);
        }
    }

    #[test]
    fn top_level_only_and_the_last() {
        let inner = field(5, &field(100, &context(TRACE, SPAN, None)));
        assert_eq!(whole(&inner), None, "in a message in the message");
        let group = [vec![0x2b], field(100, &context(TRACE, SPAN, None)), vec![0x2c]].concat();
        assert_eq!(whole(&group), None, "in a group");
        let other = "1".repeat(32);
        let twice = [field(7, &context(&other, SPAN, None)), field(7, &context(TRACE, SPAN, None))].concat();
        assert_eq!(whole(&twice).unwrap().trace_id.to_string(), TRACE);
        assert_eq!(whole(&[twice, vec![0x07]].concat()), None, "not a message");
        assert_eq!(whole(&[0x2c]), None, "end of no group");
    }

    #[test]
    fn length_delimited() {
        let message = field(3, &context(TRACE, SPAN, Some(1)));
        let bytes = [varint(message.len() as u64), message.clone(), b"the next message".to_vec()].concat();
        let find =
            |prefix: usize| find_trace_context_delimited(&bytes[..prefix], &bytes[prefix..], Some(bytes.len() as u64));
        assert_eq!(find(bytes.len()).unwrap().field_number, 3);
        assert_eq!(find(20).unwrap().field_number, 3);
        assert_eq!(find_trace_context_delimited(&[], &[], Some(0)), None);
        assert_eq!(find_trace_context_delimited(&[0xff; 10], &[], Some(10)), None);
    }

    #[test]
    fn behind_a_hole() {
        let header = field(100, &context(TRACE, SPAN, Some(1)));
        let body = field(1, &[0xaa; 5000]);
        let message = [body.clone(), header.clone(), field(101, b"x")].concat();
        assert_eq!(cut(&message, 512, 512).unwrap().field_number, 100, "one field covers the hole");
        assert_eq!(cut(&message, 512, 0), None);

        let many: Vec<u8> = (0..500).flat_map(|_| field(2, b"sub-order")).collect();
        let message = [many.clone(), header.clone()].concat();
        assert_eq!(cut(&message, 512, 512).unwrap().field_number, 100, "at the end of the message");
        let nested = [many.clone(), field(9, &[field(1, b"last"), header.clone()].concat())].concat();
        assert_eq!(cut(&nested, 512, 512), None, "at the end of a message in the message");
        let late = [many, header, field(101, b"x")].concat();
        assert_eq!(cut(&late, 512, 512), None, "where the field begins is not known");
    }

    proptest! {
        #[test]
        fn any_bytes(prefix in prop::collection::vec(any::<u8>(), 0..200), tail in prop::collection::vec(any::<u8>(), 0..200), size: Option<u64>) {
            let _ = find_trace_context(&prefix, &tail, size);
            let _ = find_trace_context_delimited(&prefix, &tail, size);
            let sized = Some((prefix.len() + tail.len()) as u64);
            prop_assert_eq!(find_trace_context(&prefix, &tail, sized), find_trace_context(&[prefix, tail].concat(), &[], sized));
        }

        #[test]
        fn wherever_it_is_cut(before in prop::collection::vec((1u64..1000, prop::collection::vec(any::<u8>(), 0..40)), 0..8), number in 1u64..1 << 29, at: prop::sample::Index) {
            let before: Vec<u8> = before.iter().flat_map(|(number, content)| field(*number, content)).collect();
            let message = [before, field(number, &context(TRACE, SPAN, Some(1)))].concat();
            let at = at.index(message.len());
            let header = cut(&message, at, message.len() - at).unwrap();
            prop_assert_eq!(u64::from(header.field_number), number);
        }
    }
}

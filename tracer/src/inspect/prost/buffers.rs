//! Where a prost function finds its bytes.
//!
//! The compiler may drop unused arguments of a function that only the same object calls, or replace a pointer by what it
//! points to. So the signature alone proves nothing: the registers that the function really reads must be those that the
//! signature says.

use tracer_common::map::{
    BUFFER_INPUT, BUFFER_OUTPUT, BUFFER_RESULT, BUFFER_SLICE, PROBE_BEHIND, PROBE_ENCODE_RESULT, Probe,
};

use crate::inspect::code::callees::Growth;
use crate::inspect::code::flow::{ARGUMENTS, Flow};
use crate::inspect::code::values::Uses;
use crate::inspect::plan::Operation;
use crate::inspect::prost::layout::{self, Layout};

/// The probe of a function, given what its buffer type is laid out like.
pub(in crate::inspect) fn probe(
    flow: &Flow<'_, '_>,
    operation: Operation,
    buffer: Option<&str>,
    compiler_known: bool,
) -> Probe {
    let mut probe = Probe { operation: operation.code(), ..Probe::default() };
    if matches!(operation, Operation::Encode | Operation::EncodeLengthDelimited) {
        // The result is always returned through the first argument.
        probe.flags = PROBE_ENCODE_RESULT;
    }
    if matches!(operation, Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec) {
        if let Some(layout) = layout::of_type("alloc::vec::Vec<u8>", compiler_known) {
            place(&mut probe, BUFFER_RESULT, 0, layout);
        }
        return probe;
    }
    let Some(buffer) = buffer else { return probe };
    let Some((read, _)) = flow.live_arguments() else {
        return probe;
    };
    let count = read.trailing_ones();
    if u32::from(read).count_ones() != count {
        return probe;
    }
    match operation {
        Operation::Encode | Operation::EncodeLengthDelimited => {
            // Result, self, buffer.
            if let (3, Some(layout)) = (count, layout::of_type(buffer, compiler_known)) {
                place(&mut probe, BUFFER_OUTPUT, 2, layout);
            }
        }
        Operation::Decode | Operation::DecodeLengthDelimited => match (buffer, count) {
            // Pointer and length, behind the place of the result unless that is small.
            ("&[u8]", 2 | 3) => slice(&mut probe, count as u8 - 2),
            ("&[u8]", _) => {}
            (_, 1 | 2) => input(&mut probe, count as u8 - 1, buffer, compiler_known),
            _ => {}
        },
        Operation::Merge | Operation::MergeLengthDelimited => match (buffer, count) {
            ("&[u8]", 3) => slice(&mut probe, 1),
            ("&[u8]", _) => {}
            (_, 2) => input(&mut probe, 1, buffer, compiler_known),
            _ => {}
        },
        Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec => {}
    }
    probe
}

/// The probe of tonic's encoder, in which prost's `encode` is inlined: its buffer is the one argument through which the code follows
/// pointers to a `BytesMut` that grows. Which one that is depends on the arguments that the compiler has dropped.
pub(in crate::inspect) fn encoder_probe(uses: &Uses, growth: Growth, compiler_known: bool) -> Probe {
    let mut probe = Probe { operation: Operation::Encode.code(), ..Probe::default() };
    let mut buffers = (0..ARGUMENTS.len() as u8).filter(|argument| grows_behind(uses, growth, *argument));
    if let (Some(argument), None) = (buffers.next(), buffers.next())
        && let Some(layout) = layout::of_type(layout::ENCODE_BUF, compiler_known)
    {
        place(&mut probe, BUFFER_OUTPUT, argument, layout);
    }
    probe
}

/// What the code says about the type of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Guess {
    /// It is this one.
    Type(&'static str),
    /// It keeps pointer and length in the same places.
    Like(&'static str),
}

impl Guess {
    /// A type of the right layout.
    pub(in crate::inspect) fn layout(self) -> &'static str {
        match self {
            Self::Type(name) | Self::Like(name) => name,
        }
    }

    /// The type's name, if it is certain.
    pub(in crate::inspect) fn name(self) -> Option<&'static str> {
        match self {
            Self::Type(name) => Some(name),
            Self::Like(_) => None,
        }
    }
}

/// The type of the buffer, from what the code does with it; for symbols that do not name it.
///
/// Only the types of [`layout`] are told apart, and only by what no other type does.
pub(in crate::inspect) fn guess(
    flow: &Flow<'_, '_>,
    operation: Operation,
    uses: &Uses,
    dropped: &[(u8, String)],
    growth: Growth,
) -> Option<Guess> {
    let (read, _) = flow.live_arguments()?;
    let slice = |argument| uses.reads_bytes(argument, &[]).then_some(Guess::Type("&[u8]"));
    let pointer = |argument| behind_pointer(uses, dropped, argument);
    let words = |argument| !uses.fields(argument, &[]).is_empty();
    match operation {
        Operation::Encode | Operation::EncodeLengthDelimited => encoded_into(uses, growth).filter(|_| read == 0b111),
        Operation::Decode | Operation::DecodeLengthDelimited => match read {
            0b111 => slice(1),
            0b011 => slice(0).filter(|_| !words(0) && !words(1)).or_else(|| pointer(1)),
            0b001 => pointer(0),
            _ => None,
        },
        Operation::Merge | Operation::MergeLengthDelimited => match read {
            0b111 => slice(1),
            0b011 => pointer(1),
            _ => None,
        },
        Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec => None,
    }
}

/// A buffer whose free room is asked for: `isize::MAX` less its length.
fn encoded_into(uses: &Uses, growth: Growth) -> Option<Guess> {
    let buffer = uses.fields(2, &[]);
    if growth.bytes_mut {
        if growth.vec {
            return None;
        }
        return is_bytes_mut(&buffer)
            .then_some(Guess::Type("bytes::bytes_mut::BytesMut"))
            .or_else(|| grows_behind(uses, growth, 2).then_some(Guess::Like(layout::ENCODE_BUF)));
    }
    let asks = buffer.contains(&16) && buffer.iter().all(|offset| (0..=16).contains(offset));
    (growth.vec && asks).then_some(Guess::Type("alloc::vec::Vec<u8>"))
}

/// A buffer in memory, read through its fields.
fn behind_pointer(uses: &Uses, dropped: &[(u8, String)], argument: u8) -> Option<Guess> {
    const BYTES: &str = "bytes::bytes::Bytes";
    const BYTES_MUT: &str = "bytes::bytes_mut::BytesMut";
    let drops = |name: &str| dropped.iter().any(|(other, dropped)| *other == argument && dropped == name);
    let read = |offset| uses.reads(argument, &[offset]);
    if uses.dropped_bytes.contains(&argument) || drops(BYTES) {
        return Some(Guess::Type(BYTES));
    }
    if drops(BYTES_MUT) {
        return Some(Guess::Type(BYTES_MUT));
    }
    // Cursors and limits have a third word that is read; a slice in memory reads alike a `BytesMut`, and is laid out alike.
    if uses.reads_bytes(argument, &[0]) {
        return (read(8) && !read(16)).then_some(Guess::Like("&mut &[u8]"));
    }
    limited(uses, argument).then_some(Guess::Like(layout::DECODE_BUF))
}

/// A pointer to a buffer with, beside it, how much of that may be read.
fn limited(uses: &Uses, argument: u8) -> bool {
    let fields = uses.fields(argument, &[]);
    uses.reads_bytes(argument, &[0, 0])
        && fields.contains(&8)
        && fields.iter().all(|offset| matches!(offset, 0 | 8))
        && uses.fields(argument, &[8]).is_empty()
}

/// A pointer to a `BytesMut` that grows, and nothing beside it.
fn grows_behind(uses: &Uses, growth: Growth, argument: u8) -> bool {
    let alone = uses.fields(argument, &[]).iter().all(|offset| *offset == 0);
    growth.bytes_mut && alone && is_bytes_mut(&uses.fields(argument, &[0]))
}

/// Whether these are fields of a `BytesMut` that are read to see how much room it has: its length, but not what owns the bytes.
pub(in crate::inspect) fn is_bytes_mut(fields: &[i64]) -> bool {
    fields.contains(&8) && fields.iter().all(|offset| (0..=16).contains(offset))
}

/// Whether the code follows both pointers to a buffer that is behind two.
pub(in crate::inspect) fn follows(uses: &Uses, operation: Operation, growth: Growth) -> bool {
    if operation.is_encode() { grows_behind(uses, growth, 2) } else { (0..2).any(|argument| limited(uses, argument)) }
}

fn slice(probe: &mut Probe, first: u8) {
    probe.buffer = BUFFER_SLICE;
    (probe.reg_a, probe.reg_b) = (first, first + 1);
}

/// A buffer passed by pointer: a reference to it, or a value too large for registers.
fn input(probe: &mut Probe, register: u8, buffer: &str, compiler_known: bool) {
    let held = buffer.strip_prefix("&mut ").unwrap_or(buffer);
    if let Some(layout) = layout::of_type(held, compiler_known) {
        place(probe, BUFFER_INPUT, register, layout);
    }
}

fn place(probe: &mut Probe, buffer: u8, register: u8, layout: Layout) {
    probe.buffer = buffer;
    probe.reg_a = register;
    (probe.ptr_offset, probe.len_offset) = (layout.pointer, layout.length);
    if layout.behind {
        probe.flags |= PROBE_BEHIND;
        probe.limit_offset = layout.limit;
    }
}

//! Where a prost function finds its bytes.
//!
//! The compiler may drop unused arguments of a function that only the same object calls, or replace a pointer by what it
//! points to. So the signature alone proves nothing: the registers that the function really reads must be those that the
//! signature says.

use tracer_common::map::{
    BUFFER_INPUT, BUFFER_OUTPUT, BUFFER_RESULT, BUFFER_SLICE, PROBE_ENCODE_RESULT, Probe,
};

use super::flow::Flow;
use super::layout::{self, Layout};
use super::plan::Operation;

/// The probe of a function whose buffer type is known.
pub(super) fn probe(flow: &Flow<'_, '_>, operation: Operation, buffer: Option<&str>) -> Probe {
    let mut probe = Probe {
        operation: operation.code(),
        ..Probe::default()
    };
    if matches!(
        operation,
        Operation::Encode | Operation::EncodeLengthDelimited
    ) {
        // The result is always returned through the first argument.
        probe.flags = PROBE_ENCODE_RESULT;
    }
    if matches!(
        operation,
        Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec
    ) {
        if let Some(layout) = layout::of_type("alloc::vec::Vec<u8>") {
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
            if let (3, Some(layout)) = (count, layout::of_type(buffer)) {
                place(&mut probe, BUFFER_OUTPUT, 2, layout);
            }
        }
        Operation::Decode | Operation::DecodeLengthDelimited => match (buffer, count) {
            // Pointer and length, behind the place of the result unless that is small.
            ("&[u8]", 2 | 3) => slice(&mut probe, count as u8 - 2),
            ("&[u8]", _) => {}
            (_, 1 | 2) => input(&mut probe, count as u8 - 1, buffer),
            _ => {}
        },
        Operation::Merge | Operation::MergeLengthDelimited => match (buffer, count) {
            ("&[u8]", 3) => slice(&mut probe, 1),
            ("&[u8]", _) => {}
            (_, 2) => input(&mut probe, 1, buffer),
            _ => {}
        },
        Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec => {}
    }
    probe
}

fn slice(probe: &mut Probe, first: u8) {
    probe.buffer = BUFFER_SLICE;
    (probe.reg_a, probe.reg_b) = (first, first + 1);
}

/// A buffer passed by pointer: a reference to it, or a value too large for registers.
fn input(probe: &mut Probe, register: u8, buffer: &str) {
    let by_pointer = match buffer.strip_prefix("&mut ") {
        Some(inner) => layout::of_type(inner),
        None => layout::of_type(buffer),
    };
    if let Some(layout) = by_pointer {
        place(probe, BUFFER_INPUT, register, layout);
    }
}

fn place(probe: &mut Probe, buffer: u8, register: u8, layout: Layout) {
    probe.buffer = buffer;
    probe.reg_a = register;
    (probe.ptr_offset, probe.len_offset) = (layout.pointer, layout.length);
}

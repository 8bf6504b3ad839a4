//! Where the bytes of an inlined call are: prost's helpers that are not inlined are given the address of the buffer, which is
//! therefore in memory, in the frame of the function around the call.
//!
//! A decode reads a slice: pointer and length are in the frame before the call begins. What `encode_to_vec` fills is a `Vec`
//! made with the capacity that the message needs, so its capacity is the length; the last store of the length may be missing.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use tracer_common::map::{
    BUFFER_INPUT, BUFFER_OUTPUT, BUFFER_RESULT, PROBE_BEHIND, PROBE_FRAME, PROBE_FRAME_WORD, Probe,
};

use crate::inspect::code::callees::{Callees, Growth};
use crate::inspect::code::function::Function;
use crate::inspect::code::values::{Call, Path, Uses};
use crate::inspect::inlined::region::Region;
use crate::inspect::plan::Operation;
use crate::inspect::prost::buffers::is_bytes_mut;
use crate::inspect::prost::layout;

/// How far before the entry of a call its buffer is put into the frame, in instructions.
const MAX_WAY: usize = 96;

/// The helpers of prost that inlined calls give their buffers to.
pub(in crate::inspect) struct Helpers<'c, 'i, 'a> {
    callees: &'c Callees<'i, 'a>,
    compiler_known: bool,
    known: RefCell<HashMap<u64, bool>>,
    growth: RefCell<HashMap<u64, Growth>>,
}

/// A place in the frame, relative to the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    offset: i64,
    /// Pointers from there to the bytes, the one there not counted.
    behind: usize,
}

/// An inlined call in the function around it.
pub(in crate::inspect) struct Frame<'f, 'a> {
    pub(in crate::inspect) function: &'f Function<'a>,
    pub(in crate::inspect) deltas: &'f [Option<i64>],
    pub(in crate::inspect) region: &'f Region,
    /// Where its beginning is seen.
    pub(in crate::inspect) entry: usize,
    /// From where it has ended to where that is seen.
    pub(in crate::inspect) ways: &'f [(usize, usize)],
}

impl<'c, 'i, 'a> Helpers<'c, 'i, 'a> {
    pub(in crate::inspect) fn new(callees: &'c Callees<'i, 'a>, compiler_known: bool) -> Self {
        Self { callees, compiler_known, known: RefCell::default(), growth: RefCell::default() }
    }

    /// Whether an instruction calls one.
    pub(in crate::inspect) fn is_call(&self, instruction: &Instruction) -> bool {
        matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
            && self.callees.target(instruction).is_some_and(|target| {
                *self.known.borrow_mut().entry(target).or_insert_with(|| self.callees.is_encoding(target))
            })
    }

    /// Completes the probe of an inlined call; `calls` are those of helpers in the function around it.
    pub(in crate::inspect) fn probe(
        &self,
        operation: Operation,
        calls: &[Call],
        frame: &Frame<'_, '_>,
        probe: &mut Probe,
    ) {
        let mut places = BTreeSet::new();
        for call in calls.iter().filter(|call| frame.region.contains(call.index)) {
            let target = self.callees.target(&frame.function.instructions[call.index]);
            let Some((target, uses)) = target.and_then(|target| Some((target, self.callees.uses(target)?))) else {
                continue;
            };
            places.extend(match operation {
                Operation::Decode | Operation::Merge => read_from(call, &uses),
                Operation::EncodeToVec => vec(call, &uses).into_iter().collect(),
                Operation::Encode => behind(call, &uses, self.growth(target)).into_iter().collect(),
                _ => Vec::new(),
            });
        }
        let [Place { offset, behind }] = places.into_iter().collect::<Vec<_>>()[..] else { return };
        let (Ok(frame_offset), true) = (i32::try_from(offset), self.compiler_known) else { return };
        let layout_of = |name| layout::of_type(name, true);
        let (buffer, layout, words, flags) = match (operation, behind) {
            (Operation::EncodeToVec, 0) => {
                let untouched = frame.ways.iter().all(|(from, to)| frame.keeps(*from..*to, offset));
                (BUFFER_RESULT, layout_of("alloc::vec::Vec<u8>").filter(|_| untouched), 0, 0)
            }
            (Operation::Decode | Operation::Merge, 0) => (BUFFER_INPUT, layout_of("&[u8]"), 2, 0),
            (Operation::Decode | Operation::Merge, 2) => {
                (BUFFER_INPUT, layout_of(layout::DECODE_BUF), 1, PROBE_FRAME_WORD | PROBE_BEHIND)
            }
            (Operation::Encode, 1) => (BUFFER_OUTPUT, layout_of("bytes::bytes_mut::BytesMut"), 1, PROBE_FRAME_WORD),
            _ => return,
        };
        let is_set = |offset| frame.is_set(offset) || frame.is_kept(offset);
        let Some(layout) = layout.filter(|_| (0..words).all(|word| is_set(offset + word * 8))) else { return };
        probe.buffer = buffer;
        probe.flags |= PROBE_FRAME | flags;
        probe.frame_offset = frame_offset;
        (probe.ptr_offset, probe.len_offset, probe.limit_offset) = (layout.pointer, layout.length, layout.limit);
        if operation == Operation::EncodeToVec {
            // The capacity is the first word.
            probe.len_offset = 0;
        }
    }

    fn growth(&self, target: u64) -> Growth {
        let of =
            |target| self.callees.decode(target).map(|function| self.callees.growth(&function)).unwrap_or_default();
        *self.growth.borrow_mut().entry(target).or_insert_with(|| of(target))
    }
}

/// Places that a helper reads the bytes of a message through.
fn read_from(call: &Call, uses: &Uses) -> Vec<Place> {
    let place = |path: &Path| {
        let (offset, behind) = call.in_frame(path)?;
        // The length of a slice is beside its pointer, that of a `DecodeBuf` beside the pointer to its buffer.
        let length = path.offsets().len().checked_sub(behind.max(1))?;
        let known = matches!(behind, 0 | 2) && uses.fields(path.argument, &path.offsets()[..length]).contains(&8);
        known.then_some(Place { offset, behind })
    };
    uses.bytes.iter().filter_map(place).collect()
}

/// The vector that `encode_varint(value, &mut Vec<u8>)` writes to.
fn vec(call: &Call, uses: &Uses) -> Option<Place> {
    let is_vec = [0, 8, 16].iter().all(|offset| uses.reads(1, &[*offset]));
    let (offset, behind) = call.in_frame(&Path::new(1, &[0]))?;
    is_vec.then_some(Place { offset, behind })
}

/// The pointer to a `BytesMut` that `encode_varint` writes to: it is given the address of the pointer, or the pointer.
fn behind(call: &Call, uses: &Uses, growth: Growth) -> Option<Place> {
    if !growth.bytes_mut || growth.vec {
        return None;
    }
    if is_bytes_mut(&uses.fields(1, &[])) {
        return call.spilled(1).map(|offset| Place { offset, behind: 1 });
    }
    let alone = uses.fields(1, &[]).iter().all(|offset| *offset == 0);
    let (offset, behind) = call.in_frame(&Path::new(1, &[0, 0]))?;
    (alone && is_bytes_mut(&uses.fields(1, &[0]))).then_some(Place { offset, behind })
}

impl Frame<'_, '_> {
    /// Whether a word of the frame that an inlined call reads has its value before the call begins: nothing in it writes there.
    fn is_kept(&self, offset: i64) -> bool {
        let mut stores = self.region.nodes.iter().filter_map(|node| self.store(*node));
        stores.all(|(written, size)| written >= offset + 8 || written + size <= offset)
    }

    /// Whether a word of the frame is written on the straight way to the entry.
    fn is_set(&self, offset: i64) -> bool {
        let instructions = &self.function.instructions;
        for index in (self.entry.saturating_sub(MAX_WAY)..self.entry).rev() {
            let instruction = &instructions[index];
            if matches!(
                instruction.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return
            ) {
                return false;
            }
            if let Some((written, size)) = self.store(index)
                && written < offset + 8
                && offset < written + size
            {
                return written == offset && size == 8 && instruction.mnemonic() == Mnemonic::Mov;
            }
        }
        false
    }

    /// Whether nothing is written to the three words from `offset` on.
    fn keeps(&self, mut way: std::ops::Range<usize>, offset: i64) -> bool {
        way.all(|index| match self.store(index) {
            Some((written, size)) => written >= offset + 24 || written + size <= offset,
            None => !writes_elsewhere(&self.function.instructions[index]),
        })
    }

    /// Place and size of what an instruction writes to the frame by its own address.
    fn store(&self, index: usize) -> Option<(i64, i64)> {
        let instruction = &self.function.instructions[index];
        let writes = instruction.op0_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None
            && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
        let delta = self.deltas[index].filter(|_| writes)?;
        let size = i64::try_from(instruction.memory_size().size().max(1)).ok()?;
        Some(((instruction.memory_displacement64() as i64).wrapping_sub(delta), size))
    }
}

/// Whether an instruction may write to memory through a pointer or in a call.
fn writes_elsewhere(instruction: &Instruction) -> bool {
    instruction.flow_control() != FlowControl::Next
        || instruction.op0_kind() == OpKind::Memory && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
        || matches!(instruction.mnemonic(), Mnemonic::Push)
}

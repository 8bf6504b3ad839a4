//! Where calls of a function end, without a uretprobe.
//!
//! Best in the callers, on the first instruction behind each call that the kernel emulates; that needs to know every
//! caller. Else on each `ret` of the function, which is single-stepped.

use std::collections::{BTreeSet, HashMap, HashSet};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use crate::inspect::code::flow::{Flow, Leave};
use crate::inspect::code::function::{Function, stack_change, writes_register};
use crate::inspect::code::references::{Hits, Reference};
use crate::inspect::elf::image::Image;
use crate::inspect::plan::{ExitKind, Operation, Site};

/// How far behind a call its exit site may be, in instructions.
const MAX_WALK: usize = 32;
/// More calls than this cost more to attach to than they save.
const MAX_CALLS: usize = 1_024;
/// Bytes of the structs that the exit reads: the encode result, a vector, a `BytesMut`.
const RESULT_SIZE: i64 = 32;

/// What is known about the callers of one function.
#[derive(Debug, Default)]
struct Callers {
    sites: BTreeSet<Site>,
    /// Addresses of the calls.
    calls: Vec<u64>,
    /// There may be calls that are not in `sites`.
    incomplete: bool,
}

/// The exits of all wanted functions in their callers.
pub(in crate::inspect) struct AfterCalls(HashMap<u64, Callers>);

impl AfterCalls {
    /// Visits every function that refers to a wanted one.
    pub(in crate::inspect) fn find(image: &Image<'_>, hits: &Hits, wanted: &HashMap<u64, Operation>) -> Self {
        let mut callers: HashMap<u64, Callers> = wanted.keys().map(|address| (*address, Callers::default())).collect();
        for (&(start, size), hits) in &hits.by_function {
            let caller = Function::decode(image, start, size);
            for hit in hits {
                let Some(known) = callers.get_mut(&hit.function) else {
                    continue;
                };
                let Some(caller) = &caller else {
                    known.incomplete = true;
                    continue;
                };
                match hit.resolve(caller) {
                    Reference::Call(index) => {
                        known.calls.push(caller.instructions[index].ip());
                        match landing(image, caller, index, wanted[&hit.function]) {
                            Landing::At(site) => drop(known.sites.insert(site)),
                            Landing::Never => {}
                            Landing::Unknown => known.incomplete = true,
                        }
                    }
                    Reference::Escape => known.incomplete = true,
                    Reference::Inside | Reference::Chance => {}
                }
            }
        }
        for function in &hits.unknown {
            callers.entry(*function).or_default().incomplete = true;
        }
        if hits.too_many {
            callers.values_mut().for_each(|callers| callers.incomplete = true);
        }
        Self(callers)
    }

    /// Addresses of the calls of a function that are known; there may be others.
    pub(in crate::inspect) fn calls(&self, address: u64) -> &[u64] {
        self.0.get(&address).map_or(&[], |callers| &callers.calls)
    }

    /// The exits of a function, if its callers are all known and at least one of them is cheap.
    fn of(&self, address: u64, taken: &HashSet<u64>) -> Option<Vec<Site>> {
        let callers = self.0.get(&address)?;
        let useful = callers.sites.iter().any(|site| site.cheap) && callers.sites.len() <= MAX_CALLS;
        (useful && !callers.incomplete && !taken.contains(&address)).then(|| callers.sites.iter().copied().collect())
    }
}

/// The exits of a function, or why it has none.
pub(in crate::inspect) fn exits(
    image: &Image<'_>,
    flow: &Flow<'_, '_>,
    after_calls: &AfterCalls,
    open: &HashSet<u64>,
) -> Result<(ExitKind, Vec<Site>), &'static str> {
    if let Some(sites) = after_calls.of(flow.function.address, open) {
        return Ok((ExitKind::AfterCall, sites));
    }
    returns(image, flow, true).map(|sites| (ExitKind::Return, sites))
}

/// Each `ret` of the function, and each tail call if these count as the end.
///
/// The kernel single-steps them: 11 us in a virtual machine with Linux 6.18, where `push`, `nop`, `jmp`, `jcc` and `call` cost
/// 0.75 us. Nothing cheaper is there to take: of the 25 functions with such exits in the order services and the programs of the
/// tests, none has its last call or write to memory followed by emulated instructions on all ways to its `ret`s, not even if
/// conditional jumps were counted by the saved flags. (Of 16 single-stepped exits of inlined calls these would make 7 cheap,
/// all in one build with full debug info, and none in a service.)
pub(in crate::inspect) fn returns(
    image: &Image<'_>,
    flow: &Flow<'_, '_>,
    tail_calls: bool,
) -> Result<Vec<Site>, &'static str> {
    let mut sites = Vec::new();
    for (index, instruction) in flow.function.instructions.iter().enumerate() {
        match flow.leaves(index) {
            None => continue,
            Some(Leave::TailCall | Leave::Indirect) if !tail_calls => {
                return Err("it ends in another function");
            }
            Some(Leave::TailCall) if instruction.flow_control() == FlowControl::ConditionalBranch => {
                return Err("it ends in a conditional jump to another function");
            }
            // An indirect jump that stays inside has a frame on the stack, so it does not look like an end.
            Some(Leave::TailCall | Leave::Return | Leave::Indirect) => {}
        }
        if !flow.function.probeable(instruction) {
            return Err("the kernel refuses a probe where it ends");
        }
        sites.push(site(image, flow.function, instruction, 0).ok_or("it ends outside of what the file holds")?);
    }
    if sites.is_empty() { Err("it never returns") } else { Ok(sites) }
}

/// Makes the site of an instruction.
pub(in crate::inspect) fn site(
    image: &Image<'_>,
    function: &Function<'_>,
    instruction: &Instruction,
    delta: i64,
) -> Option<Site> {
    Some(Site {
        offset: image.code_offset(instruction.ip())?,
        address: instruction.ip(),
        sp_delta: i32::try_from(delta).ok()?,
        cheap: function.emulated(instruction),
    })
}

/// Where a call is over.
enum Landing {
    At(Site),
    /// The caller does not expect it to return.
    Never,
    Unknown,
}

/// The first emulated instruction that is reached behind a call whatever happens, else the first one.
fn landing(image: &Image<'_>, caller: &Function<'_>, call: usize, operation: Operation) -> Landing {
    let behind = &caller.instructions[call + 1..];
    let first = match behind.first() {
        Some(first) if !matches!(first.mnemonic(), Mnemonic::Ud2 | Mnemonic::Int3) => first,
        _ => return Landing::Never,
    };
    let kept = Kept::of(caller, call, operation);
    // The return address has been popped.
    let mut delta = -8;
    for instruction in behind.iter().take(MAX_WALK) {
        if caller.emulated(instruction) {
            return site(image, caller, instruction, delta).map_or(Landing::Unknown, Landing::At);
        }
        if instruction.flow_control() != FlowControl::Next || kept.endangered(caller, call, instruction, delta) {
            break;
        }
        let Some(change) = stack_change(instruction) else {
            break;
        };
        delta -= change;
    }
    if !caller.probeable(first) {
        return Landing::Unknown;
    }
    site(image, caller, first, -8).map_or(Landing::Unknown, Landing::At)
}

/// Memory that must not change between the return and the exit site.
enum Kept {
    Nothing,
    /// Structs in the caller's frame, at these distances above rsp at the call.
    Frame(Vec<i64>),
    Anything,
}

impl Kept {
    fn of(caller: &Function<'_>, call: usize, operation: Operation) -> Self {
        let registers: &[Register] = match operation {
            Operation::Encode | Operation::EncodeLengthDelimited => &[Register::RDI, Register::RDX],
            Operation::EncodeToVec | Operation::EncodeLengthDelimitedToVec => &[Register::RDI],
            _ => return Self::Nothing,
        };
        let places = registers.iter().map(|register| frame_place(caller, call, *register));
        places.collect::<Option<_>>().map_or(Self::Anything, Self::Frame)
    }

    fn endangered(&self, caller: &Function<'_>, call: usize, instruction: &Instruction, delta: i64) -> bool {
        let writes = instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Memory
            && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt);
        match self {
            Self::Nothing => false,
            _ if !writes => false,
            Self::Frame(places) if on_stack(instruction) => {
                // In distances above rsp as it was at the call.
                let start = (instruction.memory_displacement64() as i64).saturating_sub(delta + 8);
                let end = start.saturating_add(instruction.memory_size().size() as i64);
                places.iter().any(|place| start < place.saturating_add(RESULT_SIZE) && end > *place)
            }
            Self::Frame(_) => {
                let base = instruction.memory_base();
                base == Register::RSP || base == Register::RBP || points_into_frame(caller, call, instruction, base)
            }
            Self::Anything => true,
        }
    }
}

/// Whether the instruction refers to memory at rsp plus a constant.
fn on_stack(instruction: &Instruction) -> bool {
    instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None
}

/// Whether a register can hold an address in the frame at an instruction that follows a call.
fn points_into_frame(caller: &Function<'_>, call: usize, instruction: &Instruction, register: Register) -> bool {
    let saved = matches!(register, Register::RBX | Register::R12 | Register::R13 | Register::R14 | Register::R15);
    // The call has changed the registers that are not saved, so only what comes behind it counts.
    let start = if saved { 0 } else { call + 1 };
    let frame = |register| matches!(register, Register::RSP | Register::RBP);
    let mut setters = caller.instructions[start..].iter();
    setters
        .by_ref()
        .take_while(|setter| saved || setter.ip() < instruction.ip())
        .filter(|setter| setter.op0_kind() == OpKind::Register && setter.op0_register() == register)
        .any(|setter| match setter.mnemonic() {
            Mnemonic::Lea => frame(setter.memory_base()),
            // A copy of what may be such an address.
            Mnemonic::Mov => setter.op1_kind() == OpKind::Register,
            _ => false,
        })
}

/// The distance above rsp to which `lea register,[rsp+d]` has set the register before the call.
fn frame_place(caller: &Function<'_>, call: usize, register: Register) -> Option<i64> {
    let mut info = InstructionInfoFactory::new();
    for instruction in caller.instructions[..call].iter().rev().take(MAX_WALK) {
        if instruction.flow_control() != FlowControl::Next || stack_change(instruction) != Some(0) {
            return None;
        }
        if !writes_register(&mut info, instruction, register) {
            continue;
        }
        return match instruction.mnemonic() {
            Mnemonic::Lea if on_stack(instruction) => Some(instruction.memory_displacement64() as i64),
            Mnemonic::Mov if instruction.op1_register() == Register::RSP => Some(0),
            _ => None,
        };
    }
    None
}

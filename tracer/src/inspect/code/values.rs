//! What a function does with its arguments, by following them along paths from its entry.
//!
//! Each instruction is visited once, first over the paths with the fewest calls. What is seen is therefore done on some
//! real path, with values that are known on it; what is not seen may still be done.

use std::collections::{BTreeSet, HashMap, VecDeque};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use crate::inspect::code::flow::{ARGUMENTS, Flow};
use crate::inspect::code::function::{direct_target, is_read, is_write, pointer_target};

/// Stack slots followed at once.
const MAX_SLOTS: usize = 64;

/// Pointers followed from an argument.
const MAX_DEPTH: usize = 5;

/// A value that an argument leads to: the word in memory at the argument plus the first offset, the word at that plus the
/// second, and so on; then `plus` is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::inspect) struct Path {
    /// Number of the argument.
    pub(in crate::inspect) argument: u8,
    depth: u8,
    offsets: [i64; MAX_DEPTH],
    plus: i64,
}

impl Path {
    /// What is found at these offsets.
    pub(in crate::inspect) fn new(argument: u8, offsets: &[i64]) -> Self {
        offsets.iter().fold(Self::argument(argument), |path, offset| {
            let Value::Path(path) = path.at(*offset).load() else { unreachable!("no caller goes deeper") };
            path
        })
    }

    fn argument(argument: u8) -> Self {
        Self { argument, depth: 0, offsets: [0; MAX_DEPTH], plus: 0 }
    }

    /// So much further.
    fn at(self, offset: i64) -> Self {
        Self { plus: self.plus.wrapping_add(offset), ..self }
    }

    /// The word there.
    fn load(mut self) -> Value {
        let Some(place) = self.offsets.get_mut(usize::from(self.depth)) else { return Value::Unknown };
        *place = self.plus;
        Value::Path(Self { depth: self.depth + 1, plus: 0, ..self })
    }

    /// The pointers that lead to it.
    pub(in crate::inspect) fn offsets(&self) -> &[i64] {
        &self.offsets[..usize::from(self.depth)]
    }
}

/// What a register or stack slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Value {
    Unknown,
    /// What an argument leads to.
    Path(Path),
    /// An address in the own frame, relative to rsp at the entry.
    Frame(i64),
    /// What was in the frame there, whatever that is.
    Spilled(i64),
}

impl Value {
    fn at(self, offset: i64) -> Self {
        match self {
            Self::Path(path) => Self::Path(path.at(offset)),
            Self::Frame(address) => Self::Frame(address.wrapping_add(offset)),
            Self::Spilled(_) if offset == 0 => self,
            Self::Spilled(_) | Self::Unknown => Self::Unknown,
        }
    }

    /// It is an argument, unchanged.
    pub(in crate::inspect) fn is_argument(self, argument: u8) -> bool {
        self == Self::Path(Path::argument(argument))
    }
}

/// A call with what is known there.
#[derive(Clone)]
pub(in crate::inspect) struct Call {
    /// Index of the instruction.
    pub(in crate::inspect) index: usize,
    /// Value of rdi.
    pub(in crate::inspect) this: Value,
    state: State,
}

impl Call {
    /// Whether there is something to see behind it.
    pub(in crate::inspect) fn hands_on(&self) -> bool {
        ARGUMENTS.into_iter().any(|register| matches!(self.state.get(register), Value::Path(_) | Value::Frame(_)))
    }

    /// Where in the caller's frame the first pointer is that leads there, and how many more there are; every pointer has to
    /// be the first word of what it is in.
    pub(in crate::inspect) fn in_frame(&self, path: &Path) -> Option<(i64, usize)> {
        let mut value = self.state.get(*ARGUMENTS.get(usize::from(path.argument))?);
        if path.plus != 0 || path.offsets().iter().any(|offset| *offset != 0) {
            return None;
        }
        for behind in (0..path.offsets().len()).rev() {
            let Value::Frame(place) = value else { return None };
            value = self.state.load(value);
            if !matches!(value, Value::Frame(_)) {
                return Some((place, behind));
            }
        }
        None
    }

    /// Where in the caller's frame an argument was kept.
    pub(in crate::inspect) fn spilled(&self, argument: u8) -> Option<i64> {
        match self.state.get(*ARGUMENTS.get(usize::from(argument))?) {
            Value::Spilled(offset) => Some(offset),
            _ => None,
        }
    }

    /// What a value that one of the call's arguments leads to is for the caller.
    pub(in crate::inspect) fn resolve(&self, path: &Path) -> Option<Path> {
        let start = self.state.get(*ARGUMENTS.get(usize::from(path.argument))?);
        let end = path.offsets().iter().fold(start, |value, offset| self.state.load(value.at(*offset)));
        match end.at(path.plus) {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }
}

/// What has been seen.
#[derive(Default)]
pub(in crate::inspect) struct Uses {
    /// Words that are read.
    pub(in crate::inspect) words: BTreeSet<Path>,
    /// Addresses of single bytes that are read.
    pub(in crate::inspect) bytes: BTreeSet<Path>,
    /// Arguments whose first word is a table of functions, called with the second and third word: a `Bytes` is dropped.
    pub(in crate::inspect) dropped_bytes: BTreeSet<u8>,
    /// All calls reached.
    pub(in crate::inspect) calls: Vec<Call>,
}

impl Uses {
    /// Whether the word at the end of these offsets is read.
    pub(in crate::inspect) fn reads(&self, argument: u8, offsets: &[i64]) -> bool {
        self.words.contains(&Path::new(argument, offsets))
    }

    /// Whether single bytes are read at the address that the offsets lead to.
    pub(in crate::inspect) fn reads_bytes(&self, argument: u8, offsets: &[i64]) -> bool {
        self.bytes.contains(&Path::new(argument, offsets))
    }

    /// Last offsets of the words that are read where the other ones lead to.
    pub(in crate::inspect) fn fields(&self, argument: u8, offsets: &[i64]) -> Vec<i64> {
        let words = self.words.iter().filter(|path| path.argument == argument);
        words.filter_map(|path| path.offsets().strip_prefix(offsets)?.first().copied()).collect()
    }
}

#[derive(Clone)]
struct State {
    registers: [Value; 16],
    slots: Vec<(i64, Value)>,
    /// Slots below this one cannot be reached through a pointer: no address at or below them is ever taken.
    private: i64,
}

impl State {
    fn entry(private: i64) -> Self {
        let mut registers = [Value::Unknown; 16];
        for (index, argument) in ARGUMENTS.into_iter().enumerate() {
            registers[argument.number()] = Value::Path(Path::argument(index as u8));
        }
        registers[Register::RSP.number()] = Value::Frame(0);
        Self { registers, slots: Vec::new(), private }
    }

    fn get(&self, register: Register) -> Value {
        if register.is_gpr64() { self.registers[register.number()] } else { Value::Unknown }
    }

    fn set(&mut self, register: Register, value: Value) {
        let full = register.full_register();
        if full.is_gpr64() {
            self.registers[full.number()] = if register.is_gpr64() { value } else { Value::Unknown };
        }
    }

    /// The value of the address that an instruction refers to.
    fn address(&self, instruction: &Instruction) -> Value {
        if instruction.memory_index() != Register::None || instruction.segment_prefix() != Register::None {
            return Value::Unknown;
        }
        self.get(instruction.memory_base()).at(instruction.memory_displacement64() as i64)
    }

    fn load(&self, address: Value) -> Value {
        match address {
            Value::Path(path) => path.load(),
            Value::Frame(offset) => {
                self.slots.iter().find(|(slot, _)| *slot == offset).map_or(Value::Spilled(offset), |(_, value)| *value)
            }
            Value::Spilled(_) | Value::Unknown => Value::Unknown,
        }
    }

    /// Notes what a store of so many bytes leaves.
    fn store(&mut self, address: Value, size: usize, value: Value) {
        match address {
            Value::Frame(offset) => {
                let end = offset.saturating_add(size.max(1) as i64);
                self.slots.retain(|(slot, _)| slot.saturating_add(8) <= offset || *slot >= end);
                if size == 8 && value != Value::Unknown && self.slots.len() < MAX_SLOTS {
                    self.slots.push((offset, value));
                }
            }
            // The caller's memory is not in this frame.
            Value::Path(_) => {}
            Value::Spilled(_) | Value::Unknown => self.forget_shared(),
        }
    }

    /// Forgets the slots that others may know the address of.
    fn forget_shared(&mut self) {
        self.slots.retain(|(slot, _)| slot.saturating_add(8) <= self.private);
    }

    /// A call may change the frame, whose addresses it may know, and the registers that are not saved.
    fn call(&mut self) {
        self.forget_shared();
        for register in ARGUMENTS.into_iter().chain([Register::RAX, Register::R10, Register::R11]) {
            self.registers[register.number()] = Value::Unknown;
        }
    }
}

/// Follows the arguments of a function.
pub(in crate::inspect) fn uses(flow: &Flow<'_, '_>) -> Uses {
    follow(flow, |_| true)
}

/// What a function itself reads, without its calls.
pub(in crate::inspect) fn reads(flow: &Flow<'_, '_>) -> Uses {
    follow(flow, |_| false)
}

/// What is known at some of the calls of a function.
pub(in crate::inspect) fn calls(flow: &Flow<'_, '_>, wanted: impl Fn(usize) -> bool) -> Vec<Call> {
    follow(flow, wanted).calls
}

fn follow(flow: &Flow<'_, '_>, wanted: impl Fn(usize) -> bool) -> Uses {
    let instructions = &flow.function.instructions;
    let mut uses = Uses::default();
    let mut seen = vec![false; instructions.len()];
    let mut info = InstructionInfoFactory::new();
    let mut paths = VecDeque::from([(0, State::entry(lowest_taken(flow)))]);
    while let Some((index, mut state)) = paths.pop_front() {
        if index >= seen.len() || std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let instruction = &instructions[index];
        let call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        if !call || wanted(index) {
            observe(&mut uses, &state, index, instruction, &mut info);
        }
        step(&mut state, instruction, &mut info);
        for next in flow.successors(index) {
            if seen[next] {
                continue;
            }
            if call {
                paths.push_back((next, state.clone()));
            } else {
                paths.push_front((next, state.clone()));
            }
        }
    }
    uses
}

/// The lowest address of the frame that the function takes, relative to rsp at the entry.
///
/// Objects extend upwards from their address, so what is below it is out of reach.
fn lowest_taken(flow: &Flow<'_, '_>) -> i64 {
    let deltas = flow.stack_deltas();
    let mut lowest = i64::MAX;
    for (instruction, delta) in flow.function.instructions.iter().zip(deltas) {
        let displacement = match instruction.mnemonic() {
            Mnemonic::Lea if instruction.op0_register() == Register::RSP => continue,
            Mnemonic::Lea if instruction.memory_base() == Register::RSP => instruction.memory_displacement64() as i64,
            Mnemonic::Mov
                if instruction.op0_register() == Register::RBP && instruction.op1_register() == Register::RSP =>
            {
                // A frame pointer: what is computed from it is not followed.
                return i64::MIN;
            }
            Mnemonic::Mov if instruction.op1_register() == Register::RSP => 0,
            _ => continue,
        };
        let Some(delta) = delta else { return i64::MIN };
        lowest = lowest.min(displacement.saturating_sub(delta));
    }
    lowest
}

fn observe(uses: &mut Uses, state: &State, index: usize, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        uses.calls.push(Call { index, this: state.get(Register::RDI), state: state.clone() });
        if instruction.op0_kind() == OpKind::Memory
            && let table @ Value::Path(Path { argument, .. }) = state.get(instruction.memory_base())
            && [(table, 0), (state.get(Register::RSI), 8), (state.get(Register::RDX), 16)]
                .into_iter()
                .all(|(value, offset)| value == Value::Path(Path::new(argument, &[offset])))
        {
            uses.dropped_bytes.insert(argument);
        }
        return;
    }
    if !info.info(instruction).used_memory().iter().any(|memory| is_read(memory.access())) {
        return;
    }
    let Value::Path(address) = state.address(instruction) else { return };
    match instruction.memory_size().size() {
        8 => {
            if let Value::Path(word) = address.load() {
                uses.words.insert(word);
            }
        }
        1 => drop(uses.bytes.insert(address)),
        _ => {}
    }
}

fn step(state: &mut State, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        state.call();
        return;
    }
    let rsp = state.get(Register::RSP);
    let (to, from) = (instruction.op0_kind(), instruction.op1_kind());
    match instruction.mnemonic() {
        Mnemonic::Mov if to == OpKind::Register && from == OpKind::Register => {
            let value = state.get(instruction.op1_register());
            state.set(instruction.op0_register(), value);
        }
        Mnemonic::Mov if to == OpKind::Register && from == OpKind::Memory => {
            let value = state.load(state.address(instruction));
            state.set(instruction.op0_register(), value);
        }
        Mnemonic::Mov if to == OpKind::Memory => {
            let value = if from == OpKind::Register { state.get(instruction.op1_register()) } else { Value::Unknown };
            state.store(state.address(instruction), instruction.memory_size().size(), value);
        }
        Mnemonic::Lea => {
            state.set(instruction.op0_register(), state.address(instruction));
        }
        Mnemonic::Add | Mnemonic::Sub if to == OpKind::Register && instruction.try_immediate(1).is_ok() => {
            let amount = instruction.immediate(1) as i64;
            let amount = if instruction.mnemonic() == Mnemonic::Sub { amount.wrapping_neg() } else { amount };
            state.set(instruction.op0_register(), state.get(instruction.op0_register()).at(amount));
        }
        Mnemonic::Push => {
            let value = if to == OpKind::Register { state.get(instruction.op0_register()) } else { Value::Unknown };
            if let Value::Frame(offset) = rsp {
                state.set(Register::RSP, Value::Frame(offset.wrapping_sub(8)));
                state.store(Value::Frame(offset.wrapping_sub(8)), 8, value);
            }
        }
        Mnemonic::Pop if to == OpKind::Register => {
            let value = state.load(rsp);
            state.set(instruction.op0_register(), value);
            if let Value::Frame(offset) = rsp {
                state.set(Register::RSP, Value::Frame(offset.wrapping_add(8)));
            }
        }
        _ => forget(state, instruction, info),
    }
}

/// Forgets all that an instruction changes.
fn forget(state: &mut State, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    let used = info.info(instruction);
    for register in used.used_registers().iter().filter(|used| is_write(used.access())) {
        state.set(register.register(), Value::Unknown);
    }
    if used.used_memory().iter().any(|memory| is_write(memory.access())) {
        state.store(state.address(instruction), instruction.memory_size().size(), Value::Unknown);
    }
}

/// The function that a call leads to, directly or through a GOT slot.
pub(in crate::inspect) fn callee(instruction: &Instruction, slots: &HashMap<u64, u64>) -> Option<u64> {
    direct_target(instruction).or_else(|| pointer_target(instruction).and_then(|slot| slots.get(&slot).copied()))
}

//! What a function does with its arguments, by following them along paths from its entry.
//!
//! Each instruction is visited once, first over the paths with the fewest calls. What is seen is therefore done on some
//! real path, with values that are known on it; what is not seen may still be done.

use std::collections::{BTreeSet, HashMap, VecDeque};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::code::{direct_target, is_read, is_write, pointer_target};
use super::flow::{ARGUMENTS, Flow};

/// Stack slots followed at once.
const MAX_SLOTS: usize = 64;

/// What a register or stack slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Unknown,
    /// An argument plus an offset.
    Argument(u8, i64),
    /// The word in memory at an argument plus an offset.
    Field(u8, i64),
    /// An address in the own frame, relative to rsp at the entry.
    Frame(i64),
}

/// A call with what is known of its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Index of the instruction.
    pub(super) index: usize,
    /// Value of rdi.
    pub(super) this: Value,
    /// Argument of the call that points to a pair of own arguments, and the first of these.
    pub(super) pairs: Vec<(u8, u8)>,
}

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Words read at an argument plus an offset.
    pub(super) words: BTreeSet<(u8, i64)>,
    /// Arguments that point to single bytes that are read.
    pub(super) byte_pointers: BTreeSet<u8>,
    /// Fields that point to single bytes that are read.
    pub(super) byte_fields: BTreeSet<(u8, i64)>,
    /// Arguments whose first word is a table of functions, called with the second and third word: a `Bytes` is dropped.
    pub(super) dropped_bytes: BTreeSet<u8>,
    /// All calls reached.
    pub(super) calls: Vec<Call>,
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
            registers[argument.number()] = Value::Argument(index as u8, 0);
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
        let displacement = instruction.memory_displacement64() as i64;
        match self.get(instruction.memory_base()) {
            Value::Argument(index, offset) => Value::Argument(index, offset.wrapping_add(displacement)),
            Value::Frame(offset) => Value::Frame(offset.wrapping_add(displacement)),
            // Only with an offset does this stay recognisable; nothing needs sums of it.
            field @ Value::Field(..) if displacement == 0 => field,
            _ => Value::Unknown,
        }
    }

    fn load(&self, address: Value) -> Value {
        match address {
            Value::Argument(index, offset) => Value::Field(index, offset),
            Value::Frame(offset) => {
                self.slots.iter().find(|(slot, _)| *slot == offset).map_or(Value::Unknown, |(_, value)| *value)
            }
            _ => Value::Unknown,
        }
    }

    /// Arguments for a call that point to two own arguments, one behind the other.
    fn pairs(&self) -> Vec<(u8, u8)> {
        let pair = |(position, register): (usize, Register)| {
            let Value::Frame(offset) = self.get(register) else {
                return None;
            };
            let first = self.load(Value::Frame(offset));
            let second = self.load(Value::Frame(offset.checked_add(8)?));
            match (first, second) {
                (Value::Argument(first, 0), Value::Argument(second, 0)) if second == first + 1 => {
                    Some((position as u8, first))
                }
                _ => None,
            }
        };
        ARGUMENTS.into_iter().enumerate().filter_map(pair).collect()
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
            Value::Argument(..) | Value::Field(..) => {}
            Value::Unknown => self.forget_shared(),
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
pub(super) fn uses(flow: &Flow<'_, '_>) -> Uses {
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
        observe(&mut uses, &state, index, instruction, &mut info);
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
        uses.calls.push(Call { index, this: state.get(Register::RDI), pairs: state.pairs() });
        if instruction.op0_kind() == OpKind::Memory
            && let Value::Field(argument, 0) = state.get(instruction.memory_base())
            && state.get(Register::RSI) == Value::Field(argument, 8)
            && state.get(Register::RDX) == Value::Field(argument, 16)
        {
            uses.dropped_bytes.insert(argument);
        }
        return;
    }
    if !info.info(instruction).used_memory().iter().any(|memory| is_read(memory.access())) {
        return;
    }
    match (state.address(instruction), instruction.memory_size().size()) {
        (Value::Argument(argument, offset), 8) => drop(uses.words.insert((argument, offset))),
        (Value::Argument(argument, 0), 1) => drop(uses.byte_pointers.insert(argument)),
        (Value::Field(argument, offset), 1) => drop(uses.byte_fields.insert((argument, offset))),
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
            let value = match state.address(instruction) {
                address @ (Value::Argument(..) | Value::Frame(_)) => address,
                _ => Value::Unknown,
            };
            state.set(instruction.op0_register(), value);
        }
        Mnemonic::Add | Mnemonic::Sub if to == OpKind::Register && instruction.try_immediate(1).is_ok() => {
            let amount = instruction.immediate(1) as i64;
            let amount = if instruction.mnemonic() == Mnemonic::Sub { amount.wrapping_neg() } else { amount };
            let value = match state.get(instruction.op0_register()) {
                Value::Argument(index, offset) => Value::Argument(index, offset.wrapping_add(amount)),
                Value::Frame(offset) => Value::Frame(offset.wrapping_add(amount)),
                _ => Value::Unknown,
            };
            state.set(instruction.op0_register(), value);
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
pub(super) fn callee(instruction: &Instruction, slots: &HashMap<u64, u64>) -> Option<u64> {
    direct_target(instruction).or_else(|| pointer_target(instruction).and_then(|slot| slots.get(&slot).copied()))
}

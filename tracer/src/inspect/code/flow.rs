//! The control flow of a decoded function: where each instruction leads, the stack height and the live arguments.

use std::collections::HashMap;

use iced_x86::{ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::inspect::code::function::{Function, direct_target, is_read, is_write, stack_change};
use crate::inspect::elf::image::Image;

/// Longest jump table that is followed.
const MAX_TABLE: usize = 1_024;
/// How far before an indirect jump its table is looked for.
const TABLE_WINDOW: usize = 24;

/// Passes over a function until its live registers must be known.
const MAX_SWEEPS: usize = 16;

/// Argument registers in order.
pub(in crate::inspect) const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// A function with its control flow.
pub(in crate::inspect) struct Flow<'f, 'a> {
    pub(in crate::inspect) function: &'f Function<'a>,
    /// Targets of the indirect jumps that go through a table.
    tables: HashMap<usize, Vec<usize>>,
    /// Which instructions a jump of the function leads to.
    targets: Vec<bool>,
}

/// How a function can be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Leave {
    /// By `ret`.
    Return,
    /// By a jump to another function.
    TailCall,
    /// By a jump through a register or memory that may lead anywhere.
    Indirect,
}

impl<'f, 'a> Flow<'f, 'a> {
    pub(in crate::inspect) fn new(image: &Image<'a>, function: &'f Function<'a>) -> Self {
        let mut tables = HashMap::new();
        for (index, instruction) in function.instructions.iter().enumerate() {
            if instruction.flow_control() == FlowControl::IndirectBranch
                && let Some(targets) = jump_table(image, function, index)
            {
                tables.insert(index, targets);
            }
        }
        let mut targets = vec![false; function.instructions.len()];
        let jumps = function.instructions.iter().filter(|instruction| {
            matches!(instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
        });
        let direct = jumps.filter_map(|jump| function.index_at(direct_target(jump)?));
        for target in direct.chain(tables.values().flatten().copied()) {
            targets[target] = true;
        }
        Self { function, tables, targets }
    }

    /// How the instruction leaves the function, if it does.
    pub(in crate::inspect) fn leaves(&self, index: usize) -> Option<Leave> {
        let instruction = &self.function.instructions[index];
        match instruction.flow_control() {
            FlowControl::Return => Some(Leave::Return),
            FlowControl::IndirectBranch if !self.tables.contains_key(&index) => Some(Leave::Indirect),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                direct_target(instruction).filter(|target| !self.function.contains(*target)).map(|_| Leave::TailCall)
            }
            _ => None,
        }
    }

    /// The instructions that can follow.
    pub(in crate::inspect) fn successors(&self, index: usize) -> impl Iterator<Item = usize> {
        let instruction = &self.function.instructions[index];
        let flow = instruction.flow_control();
        let falls = matches!(
            flow,
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall
        );
        let next = (falls && index + 1 < self.function.instructions.len()).then_some(index + 1);
        let branches = matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch);
        let target = branches.then(|| direct_target(instruction)).flatten();
        let target = target.and_then(|target| self.function.index_at(target));
        let table = self.tables.get(&index).into_iter().flatten().copied();
        next.into_iter().chain(target).chain(table)
    }

    /// The instructions from which this one can be reached.
    pub(in crate::inspect) fn before(&self, index: usize) -> Vec<usize> {
        let mut predecessors = vec![Vec::new(); self.function.instructions.len()];
        for from in 0..predecessors.len() {
            for to in self.successors(from) {
                predecessors[to].push(from);
            }
        }
        let mut seen = vec![false; predecessors.len()];
        let mut work = vec![index];
        let mut found = Vec::new();
        while let Some(next) = work.pop() {
            for from in &predecessors[next] {
                if !std::mem::replace(&mut seen[*from], true) {
                    found.push(*from);
                    work.push(*from);
                }
            }
        }
        found
    }

    /// Whether a jump of the function leads to this instruction.
    pub(in crate::inspect) fn is_target(&self, index: usize) -> bool {
        self.targets.get(index).copied().unwrap_or_default()
    }

    /// What to add to rsp at each instruction to get the address of the return address; none where that is not known.
    pub(in crate::inspect) fn stack_deltas(&self) -> Vec<Option<i64>> {
        self.stack_deltas_along(|index| self.successors(index))
    }

    /// The same, where the caller knows better which instructions can follow.
    pub(in crate::inspect) fn stack_deltas_along<I: Iterator<Item = usize>>(
        &self,
        next: impl Fn(usize) -> I,
    ) -> Vec<Option<i64>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Height {
            Unseen,
            Known(i64),
            Unknown,
        }
        let mut heights = vec![Height::Unseen; self.function.instructions.len()];
        let mut work = Vec::new();
        if let Some(first) = heights.first_mut() {
            *first = Height::Known(0);
            work.push(0);
        }
        while let Some(index) = work.pop() {
            let after = match heights[index] {
                Height::Known(delta) => {
                    after(&self.function.instructions[index], delta).map_or(Height::Unknown, Height::Known)
                }
                other => other,
            };
            for next in next(index) {
                let joined = match heights[next] {
                    Height::Unseen => after,
                    same if same == after => same,
                    _ => Height::Unknown,
                };
                if joined != heights[next] {
                    heights[next] = joined;
                    work.push(next);
                }
            }
        }
        heights.into_iter().map(|height| if let Height::Known(delta) = height { Some(delta) } else { None }).collect()
    }

    /// The argument registers that the function reads before it writes them, as a bit mask.
    ///
    /// First the ones that an instruction reads, then also the ones that only a called function could read. None if the
    /// function is too tangled.
    pub(in crate::inspect) fn live_arguments(&self) -> Option<(u8, u8)> {
        let mut info = InstructionInfoFactory::new();
        let effects: Vec<Effect> =
            self.function.instructions.iter().map(|instruction| Effect::of(instruction, &mut info)).collect();
        let leaves: Vec<bool> = (0..effects.len())
            .map(|index| matches!(self.leaves(index), Some(Leave::TailCall | Leave::Indirect)))
            .collect();
        let solve = |through_calls: bool| {
            let mut live = vec![0_u8; effects.len()];
            for _ in 0..MAX_SWEEPS {
                let mut changed = false;
                for index in (0..effects.len()).rev() {
                    let effect = effects[index];
                    let mut out = self.successors(index).fold(0, |out, next| out | live[next]);
                    if leaves[index] && through_calls {
                        out = 0x3f;
                    }
                    let read = if effect.call && through_calls { 0x3f } else { effect.read };
                    let value = read | out & !effect.written;
                    if value != live[index] {
                        live[index] = value;
                        changed = true;
                    }
                }
                if !changed {
                    return live.first().copied();
                }
            }
            None
        };
        Some((solve(false)?, solve(true)?))
    }
}

/// The distance to the return address behind an instruction.
fn after(instruction: &Instruction, delta: i64) -> Option<i64> {
    match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => Some(delta),
        _ => delta.checked_sub(stack_change(instruction)?),
    }
}

/// What an instruction does to the argument registers.
#[derive(Clone, Copy)]
struct Effect {
    read: u8,
    written: u8,
    call: bool,
}

impl Effect {
    fn of(instruction: &Instruction, info: &mut InstructionInfoFactory) -> Self {
        let call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        let mut effect = Self { read: 0, written: if call { 0x3f } else { 0 }, call };
        for used in info.info(instruction).used_registers() {
            let Some(index) = argument(used.register()) else {
                continue;
            };
            if is_read(used.access()) {
                effect.read |= 1 << index;
            }
            // Only a write of the whole register ends the life of the argument; one of 32 bits clears the others.
            let whole = used.register().size() >= 4;
            if whole && matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite) {
                effect.written |= 1 << index;
            }
        }
        effect
    }
}

/// Number of an argument register, of whatever width.
pub(in crate::inspect) fn argument(register: Register) -> Option<usize> {
    ARGUMENTS.iter().position(|argument| *argument == register.full_register())
}

/// The targets of `lea b,[table]; movsxd x,[b+i*4]; add x,b; jmp x`, or of `jmp [table+i*8]`.
///
/// The table is the one that is loaded on the straight way to the jump, as long as the comparison there says. Without
/// these every table that the function refers to is taken, as far as it may reach: more targets than are real only make what
/// is concluded from the flow weaker.
fn jump_table(image: &Image<'_>, function: &Function<'_>, index: usize) -> Option<Vec<usize>> {
    let jump = &function.instructions[index];
    if jump.op0_kind() == OpKind::Memory {
        let table = jump.memory_displacement64();
        let indexed = jump.memory_index_scale() == 8 && jump.memory_index() != Register::None;
        return (indexed && image.fixed)
            .then(|| absolute_table(image, function, table))
            .filter(|targets| !targets.is_empty());
    }
    let register = jump.op0_register();
    let window = &function.instructions[index.saturating_sub(TABLE_WINDOW)..index];
    let sum = window.iter().rposition(|i| i.mnemonic() == Mnemonic::Add && i.op0_register() == register)?;
    let base = window[sum].op1_register();
    let at = window[..sum].iter().rposition(|i| i.mnemonic() == Mnemonic::Movsxd && i.memory_index_scale() == 4)?;
    let load = &window[at];
    if load.memory_base() != base && load.memory_base() != register {
        return None;
    }
    let way = straight(function, &window[..at], load);
    let length = entries(way, load.memory_index());
    let is_table = |i: &&Instruction| {
        i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand() && i.op0_register() == load.memory_base()
    };
    let mut targets = Vec::new();
    match last_write(way, load.memory_base()).filter(is_table) {
        Some(lea) => targets = relative_table(image, function, lea.ip_rel_memory_address(), length),
        None => {
            for lea in function.instructions.iter().filter(is_table) {
                targets.extend(relative_table(image, function, lea.ip_rel_memory_address(), length));
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    (!targets.is_empty()).then_some(targets)
}

/// The end of `before` that is always run before `next`: no jump leads into the middle of it.
fn straight<'w>(function: &Function<'_>, before: &'w [Instruction], next: &Instruction) -> &'w [Instruction] {
    let first = before.first().map_or(0, Instruction::ip);
    let inside =
        function.instructions.iter().filter_map(direct_target).filter(|to| (first + 1..=next.ip()).contains(to));
    let from = inside.max().map_or(0, |to| before.partition_point(|instruction| instruction.ip() < to));
    let leaves = |i: &Instruction| !matches!(i.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch);
    let from = before.iter().rposition(leaves).map_or(from, |at| from.max(at + 1));
    &before[from..]
}

/// What a register has its value from.
fn last_write(way: &[Instruction], register: Register) -> Option<&Instruction> {
    let mut info = InstructionInfoFactory::new();
    way.iter().rfind(|i| {
        let used = info.info(i).used_registers();
        used.iter().any(|used| is_write(used.access()) && used.register().full_register() == register.full_register())
    })
}

/// How many entries a table has at most: the index was compared with the last one, and is used only if it is not above.
fn entries(way: &[Instruction], index: Register) -> usize {
    let compared = way.iter().rposition(|i| {
        i.mnemonic() == Mnemonic::Cmp
            && i.op0_kind() == OpKind::Register
            && i.op0_register().full_register() == index.full_register()
            && i.op0_register().size() >= 4
    });
    let Some(at) = compared else { return MAX_TABLE };
    let jumps = way.get(at + 1).is_some_and(|i| i.condition_code() == ConditionCode::a);
    let last = way[at].try_immediate(1).ok().and_then(|last| usize::try_from(last).ok());
    match last {
        Some(last) if jumps && last_write(&way[at + 1..], index).is_none() => MAX_TABLE.min(last + 1),
        _ => MAX_TABLE,
    }
}

fn relative_table(image: &Image<'_>, function: &Function<'_>, table: u64, length: usize) -> Vec<usize> {
    let entry = |number: usize| {
        let bytes = image.memory(table.checked_add(number as u64 * 4)?, 4)?;
        let offset = i32::from_le_bytes(bytes.try_into().ok()?);
        function.index_at(table.wrapping_add_signed(i64::from(offset)))
    };
    // What else the function refers to begins behind it.
    let others = function.instructions.iter().filter(|i| i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand());
    let next = others.map(Instruction::ip_rel_memory_address).filter(|other| *other > table).min();
    let length = next.map_or(length, |next| length.min(usize::try_from((next - table) / 4).unwrap_or(length)));
    (0..length).map_while(entry).collect()
}

fn absolute_table(image: &Image<'_>, function: &Function<'_>, table: u64) -> Vec<usize> {
    let entry = |number: usize| {
        let bytes = image.memory(table.checked_add(number as u64 * 8)?, 8)?;
        function.index_at(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    (0..MAX_TABLE).map_while(entry).collect()
}

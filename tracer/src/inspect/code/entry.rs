//! Where a call of a function begins: an instruction that the kernel emulates, with the arguments still in place.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Register};

use crate::inspect::code::exits::site;
use crate::inspect::code::flow::{Flow, argument};
use crate::inspect::code::function::{is_write, stack_change};
use crate::inspect::elf::image::Image;
use crate::inspect::plan::Site;

/// All argument registers.
pub(in crate::inspect) const ALL_ARGUMENTS: u8 = 0x3f;
/// How far into a function its entry site may be, in instructions.
const MAX_WALK: usize = 16;

/// The entry site, or why there is none. The argument registers of the bit mask hold their values there.
pub(in crate::inspect) fn entry(image: &Image<'_>, flow: &Flow<'_, '_>, arguments: u8) -> Result<Site, &'static str> {
    let function = flow.function;
    let mut info = InstructionInfoFactory::new();
    let mut delta = 0;
    for (index, instruction) in function.instructions.iter().enumerate().take(MAX_WALK) {
        if flow.is_target(index) {
            break;
        }
        if function.emulated(instruction) {
            return site(image, function, instruction, delta).ok_or("its code is not in the file");
        }
        if instruction.flow_control() != FlowControl::Next || disturbs(&mut info, instruction, arguments) {
            break;
        }
        let Some(change) = stack_change(instruction) else {
            break;
        };
        delta -= change;
    }
    let first = function.instructions.first().ok_or("it is empty")?;
    if flow.is_target(0) {
        return Err("a loop of it leads to its first instruction");
    }
    if !function.probeable(first) {
        return Err("the kernel refuses a probe on its first instruction");
    }
    site(image, function, first, 0).ok_or("its code is not in the file")
}

/// Whether an argument register, or memory outside of the own frame, is written.
fn disturbs(info: &mut InstructionInfoFactory, instruction: &Instruction, arguments: u8) -> bool {
    let used = info.info(instruction);
    let kept = |register| argument(register).is_some_and(|index| arguments >> index & 1 != 0);
    used.used_registers().iter().any(|used| is_write(used.access()) && kept(used.register()))
        || used.used_memory().iter().any(|used| is_write(used.access()) && used.base() != Register::RSP)
}

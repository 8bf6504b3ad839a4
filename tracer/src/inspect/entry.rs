//! Where a call of a function begins: an instruction that the kernel emulates, with the arguments still in place.

use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register};

use super::code::stack_change;
use super::exits::site;
use super::flow::{Flow, argument};
use super::image::Image;
use super::plan::Site;

/// How far into a function its entry site may be, in instructions.
const MAX_WALK: usize = 16;

/// The entry site, or why there is none.
pub(super) fn entry(image: &Image<'_>, flow: &Flow<'_, '_>) -> Result<Site, &'static str> {
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
        if instruction.flow_control() != FlowControl::Next || disturbs(&mut info, instruction) {
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
fn disturbs(info: &mut InstructionInfoFactory, instruction: &iced_x86::Instruction) -> bool {
    let writes = |access| {
        !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        )
    };
    let used = info.info(instruction);
    used.used_registers()
        .iter()
        .any(|used| writes(used.access()) && argument(used.register()).is_some())
        || used
            .used_memory()
            .iter()
            .any(|used| writes(used.access()) && used.base() != Register::RSP)
}

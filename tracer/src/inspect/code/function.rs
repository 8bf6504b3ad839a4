//! Machine code: decoding a function, and what the kernel does with a probed instruction.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register,
};

use crate::inspect::elf::image::{Code, Image};

/// Functions larger than this are not analysed, in bytes.
const MAX_FUNCTION: u64 = 1 << 20;

/// A decoded function.
pub(in crate::inspect) struct Function<'a> {
    pub(in crate::inspect) address: u64,
    pub(in crate::inspect) instructions: Vec<Instruction>,
    code: Code<'a>,
}

impl<'a> Function<'a> {
    /// Decodes the function of this address and size.
    ///
    /// None unless every byte belongs to a valid instruction and the last one ends where the function ends: else data may
    /// have been taken for code, and a probe on data destroys it.
    pub(in crate::inspect) fn decode(image: &Image<'a>, address: u64, size: u64) -> Option<Self> {
        if size == 0 || size > MAX_FUNCTION {
            return None;
        }
        image.spend_decoding(size)?;
        let code = image.code_at(address)?;
        let start = (address - code.address) as usize;
        let bytes = code.bytes.get(start..start.checked_add(size as usize)?)?;
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        let mut instructions = Vec::with_capacity(bytes.len() / 4);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return None;
            }
            instructions.push(instruction);
        }
        Some(Self { address, instructions, code })
    }

    /// The address behind the last instruction.
    pub(in crate::inspect) fn end(&self) -> u64 {
        self.instructions.last().map_or(self.address, Instruction::next_ip)
    }

    /// Whether an address is inside.
    pub(in crate::inspect) fn contains(&self, address: u64) -> bool {
        (self.address..self.end()).contains(&address)
    }

    /// Index of the instruction that begins at this address.
    pub(in crate::inspect) fn index_at(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// Index of the instruction that holds the byte at this address.
    pub(in crate::inspect) fn index_over(&self, address: u64) -> Option<usize> {
        let index = self.instructions.partition_point(|instruction| instruction.next_ip() <= address);
        self.instructions.get(index).filter(|instruction| instruction.ip() <= address).map(|_| index)
    }

    /// The instruction's bytes.
    pub(in crate::inspect) fn bytes(&self, instruction: &Instruction) -> &'a [u8] {
        let start = (instruction.ip() - self.code.address) as usize;
        self.code.bytes.get(start..start + instruction.len()).unwrap_or_default()
    }

    /// Whether the kernel emulates a probe here.
    pub(in crate::inspect) fn emulated(&self, instruction: &Instruction) -> bool {
        emulated(self.bytes(instruction))
    }

    /// Whether the kernel accepts a probe here.
    pub(in crate::inspect) fn probeable(&self, instruction: &Instruction) -> bool {
        probeable(self.bytes(instruction), instruction)
    }
}

/// Whether the kernel emulates a probe on the instruction at an address.
pub(in crate::inspect) fn emulated_at(image: &Image<'_>, address: u64) -> bool {
    let Some(code) = image.code_at(address) else {
        return false;
    };
    let bytes = &code.bytes[(address - code.address) as usize..];
    let length = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode().len();
    emulated(&bytes[..length])
}

/// Whether the kernel emulates the instruction instead of single-stepping a copy of it.
///
/// As `branch_setup_xol_ops` and `push_setup_xol_ops` of the kernel, without what only some versions emulate: longer nops.
fn emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        // nop
        [0x90] | [0x66, 0x90]
            // push
            | [0x50..=0x57] | [0x41, 0x50..=0x57]
            // jmp
            | [0xeb, _] | [0xe9, _, _, _, _]
            // jcc
            | [0x70..=0x7f, _] | [0x0f, 0x80..=0x8f, _, _, _, _]
            // call
            | [0xe8, _, _, _, _] | [0x67, 0xe8, _, _, _, _]
    )
}

/// Whether the kernel accepts a probe on the instruction at all.
fn probeable(bytes: &[u8], instruction: &Instruction) -> bool {
    let refused_prefix = bytes.iter().take_while(|byte| is_prefix(**byte)).any(|byte| {
        // Lock and the segments es, cs, ss and ds, as in `is_prefix_bad`.
        matches!(byte, 0xf0 | 0x26 | 0x2e | 0x36 | 0x3e)
    });
    let narrow_branch = bytes.first() == Some(&0x66) && instruction.flow_control() != FlowControl::Next;
    let privileged = instruction.is_privileged();
    !refused_prefix
        && !narrow_branch
        && !privileged
        && !matches!(
            instruction.flow_control(),
            FlowControl::Exception | FlowControl::Interrupt | FlowControl::XbeginXabortXend
        )
        && !matches!(instruction.code(), Opcode::Syscall | Opcode::Sysenter)
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0x40..=0x4f)
}

/// The fixed target of a direct call or jump.
pub(in crate::inspect) fn direct_target(instruction: &Instruction) -> Option<u64> {
    matches!(instruction.op0_kind(), OpKind::NearBranch64).then(|| instruction.near_branch_target())
}

/// The address of the pointer that a call or jump goes through (`call [rip+x]`).
pub(in crate::inspect) fn pointer_target(instruction: &Instruction) -> Option<u64> {
    let indirect = matches!(instruction.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch);
    (indirect && instruction.is_ip_rel_memory_operand()).then(|| instruction.ip_rel_memory_address())
}

/// What a straight-line instruction adds to rsp; none if it sets rsp in another way.
pub(in crate::inspect) fn stack_change(instruction: &Instruction) -> Option<i64> {
    use iced_x86::Mnemonic::{Add, Lea, Leave, Sub};
    let on_rsp = instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP;
    match instruction.mnemonic() {
        Sub if on_rsp => instruction.try_immediate(1).ok().map(|value| (value as i64).wrapping_neg()),
        Add if on_rsp => instruction.try_immediate(1).ok().map(|value| value as i64),
        Lea if on_rsp && instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None => {
            Some(instruction.memory_displacement64() as i64)
        }
        Leave => None,
        _ if instruction.is_stack_instruction() => match instruction.stack_pointer_increment() {
            0 => None,
            change => Some(i64::from(change)),
        },
        _ if on_rsp && writes_op0(instruction) => None,
        _ => Some(0),
    }
}

/// Whether the first operand is written (compares and tests only read it).
fn writes_op0(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic::{Bt, Cmp, Test};
    !matches!(instruction.mnemonic(), Cmp | Test | Bt)
}

/// Whether an access changes what it is about.
pub(in crate::inspect) fn is_write(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Whether an access looks at what it is about.
pub(in crate::inspect) fn is_read(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Whether the instruction changes a part of the register.
pub(in crate::inspect) fn writes_register(
    info: &mut InstructionInfoFactory,
    instruction: &Instruction,
    register: Register,
) -> bool {
    let used = info.info(instruction).used_registers();
    used.iter().any(|used| is_write(used.access()) && used.register().full_register() == register)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn knows_what_the_kernel_emulates() {
        let yes: [&[u8]; 10] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x55],
            &[0x41, 0x57],
            &[0xeb, 0x10],
            &[0xe9, 0, 1, 0, 0],
            &[0x74, 0x10],
            &[0x0f, 0x84, 0, 1, 0, 0],
            &[0xe8, 0, 1, 0, 0],
            &[0x67, 0xe8, 0, 1, 0, 0],
        ];
        // ret, sub, nop5, call [rip+x], data16 call, xchg r8, rax, push with an empty REX, jrcxz.
        let no: [&[u8]; 8] = [
            &[0xc3],
            &[0x48, 0x83, 0xec, 0x28],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0xff, 0x15, 0, 1, 0, 0],
            &[0x66, 0xe8, 0, 1, 0, 0],
            &[0x41, 0x90],
            &[0x40, 0x55],
            &[0xe3, 0x10],
        ];
        assert!(yes.iter().all(|bytes| emulated(bytes)));
        assert!(no.iter().all(|bytes| !emulated(bytes)));
    }

    #[test]
    fn knows_what_the_kernel_refuses() {
        // lock inc [rax]; cs nop; syscall; int3; hlt; ud2
        let refused: [&[u8]; 6] =
            [&[0xf0, 0xff, 0x00], &[0x2e, 0x0f, 0x1f, 0x00], &[0x0f, 0x05], &[0xcc], &[0xf4], &[0x0f, 0x0b]];
        assert!(refused.iter().all(|bytes| !probeable(bytes, &decode(bytes))));
        // ret; mov eax, fs:[0]; cmp dword [rsp+0x30], 1
        let accepted: [&[u8]; 3] = [&[0xc3], &[0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0], &[0x83, 0x7c, 0x24, 0x30, 0x01]];
        assert!(accepted.iter().all(|bytes| probeable(bytes, &decode(bytes))));
    }

    #[test]
    fn follows_the_stack_pointer() {
        let change = |bytes: &[u8]| stack_change(&decode(bytes));
        assert_eq!(change(&[0x55]), Some(-8));
        assert_eq!(change(&[0x5d]), Some(8));
        assert_eq!(change(&[0x48, 0x83, 0xec, 0x28]), Some(-0x28));
        assert_eq!(change(&[0x48, 0x83, 0xc4, 0x28]), Some(0x28));
        assert_eq!(change(&[0x48, 0x8d, 0x64, 0x24, 0xf8]), Some(-8));
        assert_eq!(change(&[0x48, 0x39, 0xe0]), Some(0), "cmp rax, rsp");
        assert_eq!(change(&[0x48, 0x83, 0xe4, 0xf0]), None, "and rsp, -16");
        assert_eq!(change(&[0xc9]), None, "leave");
    }
}

//! The functions of a C library on descriptors.

use std::collections::BTreeMap;

use iced_x86::{Code as Opcode, FlowControl, InstructionInfoFactory, OpAccess, Register};

use crate::inspect::code::entry::{ALL_ARGUMENTS, entry};
use crate::inspect::code::exits::{returns, site};
use crate::inspect::code::flow::Flow;
use crate::inspect::code::function::Function;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::symbols::{Func, Symbols};
use crate::inspect::plan::{Remark, RemarkKind, Site, SocketFn};

const NAMES: [&str; 12] = [
    "send", "sendto", "sendmsg", "write", "writev", "recv", "recvfrom", "recvmsg", "read", "readv", "close", "connect",
];
/// How far behind a system call its exit site may be, in instructions.
const MAX_WALK: usize = 8;

/// Finds them: among the exported functions, or in a static executable among all.
pub(in crate::inspect) fn sockets(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    all: bool,
    remarks: &mut Vec<Remark>,
) -> Vec<SocketFn> {
    let mut found: BTreeMap<u64, (&str, &Func)> = BTreeMap::new();
    for function in symbols.functions().iter().filter(|function| all || function.dynamic) {
        let name = symbols.name(function);
        let plain = name.strip_prefix("__libc_").or(name.strip_prefix("__")).unwrap_or(name);
        if let Some(known) = NAMES.into_iter().find(|known| *known == plain) {
            found.entry(function.address).or_insert((known, function));
        }
    }
    let mut sockets = Vec::new();
    for (address, (name, _)) in found {
        match socket(image, symbols, address) {
            Ok((entry, exits)) => sockets.push(SocketFn { name: name.to_owned(), entry, exits }),
            Err(reason) => remarks.push(Remark {
                kind: RemarkKind::Untraceable,
                subject: Some(name.to_owned()),
                text: format!("cannot be probed: {reason}"),
                remedy: None,
            }),
        }
    }
    sockets
}

fn socket(image: &Image<'_>, symbols: &Symbols<'_>, address: u64) -> Result<(Site, Vec<Site>), &'static str> {
    let function = Function::decode(image, address, symbols.size_at(address)).ok_or("it cannot be decoded")?;
    let flow = Flow::new(image, &function);
    let entry = entry(image, &flow, ALL_ARGUMENTS)?;
    let exits = match behind_system_calls(image, &flow) {
        Some(exits) => exits,
        None => returns(image, &flow, false)?,
    };
    Ok((entry, exits))
}

/// Behind each system call, where its result is still in rax; none if the function makes none itself.
fn behind_system_calls(image: &Image<'_>, flow: &Flow<'_, '_>) -> Option<Vec<Site>> {
    let deltas = flow.stack_deltas();
    let mut info = InstructionInfoFactory::new();
    let mut sites = Vec::new();
    let instructions = &flow.function.instructions;
    for (index, _) in instructions.iter().enumerate().filter(|(_, i)| i.code() == Opcode::Syscall) {
        for (index, instruction) in instructions.iter().enumerate().skip(index + 1).take(MAX_WALK) {
            if flow.function.emulated(instruction) {
                sites.push(site(image, flow.function, instruction, deltas[index]?)?);
                break;
            }
            let sets_rax = info.info(instruction).used_registers().iter().any(|used| {
                used.register().full_register() == Register::RAX
                    && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
            });
            if sets_rax || instruction.flow_control() != FlowControl::Next {
                return None;
            }
        }
    }
    (!sites.is_empty()).then_some(sites)
}

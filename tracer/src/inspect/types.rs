//! The message type of a function whose symbol does not have it (legacy mangling), from the code.
//!
//! The body of a method of `prost::Message` may have the code of nested messages inlined, and then calls functions of
//! *their* types. So only evidence that cannot be theirs counts:
//! - encode: `encoded_len` is called on the very message, as the first call and before any branch;
//! - decode and merge: `merge_field` is called with the recursion limit that is left for the outermost message only;
//! - else `merge_field` is inlined, and pushes the name of the message on its errors: if all pushes name the same
//!   message, it is the outermost one.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register};

use super::callees::{Callee, Callees};
use super::code::writes_register;
use super::flow::Flow;
use super::image::Image;
use super::names::{Method, short_name};
use super::plan::{Operation, TypeSource};
use super::values::{Uses, Value};

/// prost's recursion limit, given to the first level.
const RECURSION_LIMIT: u64 = 100;
/// How far before a call its arguments are looked for, in instructions.
const MAX_WALK: usize = 24;
/// Longest name of a message.
const MAX_NAME: u64 = 256;

/// The message type, if it is certain.
pub(super) fn message_type(
    image: &Image<'_>,
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, '_>,
    uses: &Uses,
    operation: Operation,
) -> Option<(String, TypeSource)> {
    if operation.is_encode() {
        return encoded_type(flow, callees, uses, operation)
            .map(|name| (name, TypeSource::Callees));
    }
    if let Some(name) = merged_type(flow, callees, operation) {
        return Some((name, TypeSource::Callees));
    }
    pushed_type(image, flow, callees).map(|name| (name, TypeSource::ErrorString))
}

/// The type whose `encoded_len` is the first thing called, with the method's own `self`.
fn encoded_type(
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, '_>,
    uses: &Uses,
    operation: Operation,
) -> Option<String> {
    let instructions = &flow.function.instructions;
    let first = instructions
        .iter()
        .position(|instruction| instruction.flow_control() != FlowControl::Next)?;
    // The place of the result is the first argument, `self` the second.
    uses.calls
        .iter()
        .find(|call| call.index == first && call.this == Value::Argument(1, 0))?;
    let message = method_type(callees, &instructions[first], "encoded_len")?;
    // A message with one required message in it asks for that one's length, and adds the length of the length.
    let straight = instructions[first + 1..]
        .iter()
        .take_while(|i| i.flow_control() == FlowControl::Next);
    let lengths = straight
        .filter(|i| matches!(i.mnemonic(), Mnemonic::Bsr | Mnemonic::Lzcnt))
        .count();
    let own = matches!(
        operation,
        Operation::EncodeLengthDelimited | Operation::EncodeLengthDelimitedToVec
    );
    (lengths <= usize::from(own)).then_some(message)
}

/// The type whose `merge_field` is called for the outermost message.
fn merged_type(
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, '_>,
    operation: Operation,
) -> Option<String> {
    let delimited = matches!(
        operation,
        Operation::DecodeLengthDelimited | Operation::MergeLengthDelimited
    );
    let limit = if delimited {
        RECURSION_LIMIT - 1
    } else {
        RECURSION_LIMIT
    };
    let mut found = None;
    for (index, instruction) in flow.function.instructions.iter().enumerate() {
        let Some(target) = callees.target(instruction) else {
            continue;
        };
        let outermost = |argument| constant_before(flow, index, argument) == Some(limit);
        let message = match &*callees.at(target) {
            [
                Callee::Method(Method {
                    name,
                    message: Some(message),
                    ..
                }),
            ] if name == "merge_field" => outermost(Register::R8).then(|| message.clone()),
            [Callee::MergeLoop]
                if delimited && [Register::RDX, Register::RCX].into_iter().any(outermost) =>
            {
                Some(merge_loop_type(callees, target)?)
            }
            _ => None,
        };
        match (&found, message) {
            (Some(known), Some(other)) if *known != other => return None,
            (None, Some(message)) => found = Some(message),
            _ => {}
        }
    }
    found
}

/// The one type whose `merge_field` a merge loop calls.
fn merge_loop_type(callees: &Callees<'_, '_>, address: u64) -> Option<String> {
    let function = callees.decode(address)?;
    let mut types = function
        .instructions
        .iter()
        .filter_map(|i| method_type(callees, i, "merge_field"));
    let first = types.next()?;
    types.all(|other| other == first).then_some(first)
}

/// The type of the called method of `prost::Message`, if it is the one of this name.
fn method_type(
    callees: &Callees<'_, '_>,
    instruction: &Instruction,
    method: &str,
) -> Option<String> {
    match &*callees.at(callees.target(instruction)?) {
        [
            Callee::Method(Method {
                name,
                message: Some(message),
                ..
            }),
        ] if name == method => Some(message.clone()),
        _ => None,
    }
}

/// The name that every decode error of the function gets, with its path if the function also drops that message.
fn pushed_type(
    image: &Image<'_>,
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, '_>,
) -> Option<String> {
    let mut name: Option<&str> = None;
    let mut dropped = Vec::new();
    for (index, instruction) in flow.function.instructions.iter().enumerate() {
        let Some(target) = callees.target(instruction) else {
            continue;
        };
        match &*callees.at(target) {
            [Callee::ErrorPush] => {
                let pushed = pushed_name(image, flow, index)?;
                if *name.get_or_insert(pushed) != pushed {
                    return None;
                }
            }
            [Callee::Drop(message)] if !dropped.contains(message) => dropped.push(message.clone()),
            _ => {}
        }
    }
    let name = name?;
    let mut paths = dropped
        .into_iter()
        .filter(|message| message.contains("::") && short_name(message) == name);
    match (paths.next(), paths.next()) {
        (Some(path), None) => Some(path),
        _ => Some(name.to_owned()),
    }
}

/// The message name that a call of `DecodeError::push` adds.
fn pushed_name<'a>(image: &Image<'a>, flow: &Flow<'_, '_>, call: usize) -> Option<&'a str> {
    let length = constant_before(flow, call, Register::RDX)
        .filter(|length| (1..=MAX_NAME).contains(length))?;
    let address = constant_before(flow, call, Register::RSI)?;
    let name = std::str::from_utf8(image.memory(address, length as usize)?).ok()?;
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_')
        .then_some(name)
}

/// The constant that a register is set to before a call, with no way around.
fn constant_before(flow: &Flow<'_, '_>, call: usize, register: Register) -> Option<u64> {
    let instructions = &flow.function.instructions;
    let mut info = InstructionInfoFactory::new();
    for index in (call.saturating_sub(MAX_WALK)..call).rev() {
        // Whoever jumps to behind this instruction may bring another value.
        if flow.is_target(index + 1) {
            return None;
        }
        let instruction = &instructions[index];
        if !matches!(
            instruction.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        ) {
            return None;
        }
        if !writes_register(&mut info, instruction, register) {
            continue;
        }
        return match instruction.mnemonic() {
            Mnemonic::Mov if instruction.op0_register().size() >= 4 => {
                instruction.try_immediate(1).ok()
            }
            Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
                Some(instruction.ip_rel_memory_address())
            }
            _ => None,
        };
    }
    None
}

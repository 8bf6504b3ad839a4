//! The message type of a function whose symbol does not have it (legacy mangling), from the code.
//!
//! The body of a method of `prost::Message` may have the code of nested messages inlined, and then calls functions of
//! *their* types. So only evidence that cannot be theirs counts:
//! - encode: `encoded_len` is called on the very message, as the first call and before any branch;
//! - or `encode_raw` is called on it before anything can have been written: a nested message has its key in front;
//! - decode and merge: `merge_field` is called with the recursion limit that is left for the outermost message only;
//! - else `merge_field` is inlined, and pushes the name of the message on its errors: if all pushes name the same
//!   message, it is the outermost one.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register};

use crate::inspect::code::callees::{Callee, Callees};
use crate::inspect::code::flow::Flow;
use crate::inspect::code::function::writes_register;
use crate::inspect::code::values::Uses;
use crate::inspect::elf::image::Image;
use crate::inspect::plan::{Operation, TypeSource};
use crate::inspect::prost::names::{Method, short_name};

/// prost's recursion limit, given to the first level.
const RECURSION_LIMIT: u64 = 100;
/// How far before a call its arguments are looked for, in instructions.
const MAX_WALK: usize = 24;
/// Longest name of a message.
const MAX_NAME: u64 = 256;

/// The message type, if it is certain.
pub(in crate::inspect) fn message_type<'a>(
    image: &Image<'a>,
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, 'a>,
    uses: &Uses,
    operation: Operation,
) -> Option<(String, TypeSource)> {
    if operation.is_encode() {
        return measured_type(flow, callees, uses, operation)
            .or_else(|| written_type(flow, callees, uses, operation))
            .map(|name| (name, TypeSource::Callees));
    }
    merged_type(image, flow, callees, operation).or_else(|| {
        let name = pushed_name(image, flow, callees)?;
        Some((full_name(name, dropped(flow, callees)), TypeSource::ErrorString))
    })
}

/// The type whose `encoded_len` is the first thing called, with the method's own `self`.
fn measured_type(flow: &Flow<'_, '_>, callees: &Callees<'_, '_>, uses: &Uses, operation: Operation) -> Option<String> {
    let instructions = &flow.function.instructions;
    let first = instructions.iter().position(|instruction| instruction.flow_control() != FlowControl::Next)?;
    // The place of the result is the first argument, `self` the second.
    uses.calls.iter().find(|call| call.index == first && call.this.is_argument(1))?;
    let message = method_type(callees, &instructions[first], "encoded_len")?;
    // A message with one required message in it asks for that one's length, and adds the length of the length.
    let straight = instructions[first + 1..].iter().take_while(|i| i.flow_control() == FlowControl::Next);
    let lengths = straight.filter(|i| matches!(i.mnemonic(), Mnemonic::Bsr | Mnemonic::Lzcnt)).count();
    let own = matches!(operation, Operation::EncodeLengthDelimited | Operation::EncodeLengthDelimitedToVec);
    (lengths <= usize::from(own)).then_some(message)
}

/// The type whose `encode_raw` is called with the method's own `self` when nothing has been written yet.
fn written_type(flow: &Flow<'_, '_>, callees: &Callees<'_, '_>, uses: &Uses, operation: Operation) -> Option<String> {
    if !matches!(operation, Operation::Encode | Operation::EncodeToVec) {
        return None;
    }
    let instructions = &flow.function.instructions;
    let own = uses.calls.iter().filter(|call| call.this.is_argument(1));
    let mut typed =
        own.filter_map(|call| Some((call.index, method_type(callees, &instructions[call.index], "encode_raw")?)));
    let (index, message) = typed.next()?;
    if typed.next().is_some() {
        return None;
    }
    let silent = |callee: &Callee| match callee {
        Callee::Silent => true,
        Callee::Method(method) => method.name == "encoded_len",
        _ => false,
    };
    let before = flow.before(index);
    let mut calls = before
        .into_iter()
        .map(|index| &instructions[index])
        .filter(|instruction| matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall));
    calls
        .all(|call| {
            callees.target(call).is_some_and(|target| {
                let found = callees.at(target);
                !found.is_empty() && found.iter().all(silent)
            })
        })
        .then_some(message)
}

/// The type whose fields are merged as those of the outermost message.
fn merged_type<'a>(
    image: &Image<'a>,
    flow: &Flow<'_, '_>,
    callees: &Callees<'_, 'a>,
    operation: Operation,
) -> Option<(String, TypeSource)> {
    let delimited = matches!(operation, Operation::DecodeLengthDelimited | Operation::MergeLengthDelimited);
    // Reading the length of a delimited message counts as one level.
    let limit = RECURSION_LIMIT - u64::from(delimited);
    let mut found: Option<(String, TypeSource)> = None;
    for (index, instruction) in flow.function.instructions.iter().enumerate() {
        let Some(target) = callees.target(instruction) else {
            continue;
        };
        let outermost = |argument| constant_before(flow, index, argument) == Some(limit);
        let message = match &*callees.at(target) {
            [Callee::Method(Method { name, message: Some(message), .. })] if name == "merge_field" => {
                outermost(Register::R8).then(|| (message.clone(), TypeSource::Callees))
            }
            [Callee::MergeLoop] if delimited && [Register::RDX, Register::RCX].into_iter().any(outermost) => {
                Some(looped_type(image, flow, callees, target)?)
            }
            _ => None,
        };
        match (&found, message) {
            (Some((known, _)), Some((other, _))) if *known != other => return None,
            (None, Some(message)) => found = Some(message),
            _ => {}
        }
    }
    found
}

/// The type whose fields a merge loop merges: it calls its `merge_field`, or has it inlined.
fn looped_type<'a>(
    image: &Image<'a>,
    caller: &Flow<'_, '_>,
    callees: &Callees<'_, 'a>,
    address: u64,
) -> Option<(String, TypeSource)> {
    let function = callees.decode(address)?;
    let mut called = BTreeSet::new();
    let mut inlined = false;
    for target in function.instructions.iter().filter_map(|instruction| callees.target(instruction)) {
        match &*callees.at(target) {
            [Callee::Method(Method { name, message: Some(message), .. })] if name == "merge_field" => {
                called.insert(message.clone());
            }
            // Names are pushed by `merge_field` only; where that is inlined too, a vector of names grows.
            [Callee::ErrorPush | Callee::GrowVec] => inlined = true,
            _ => {}
        }
    }
    if !inlined {
        let message = called.pop_first().filter(|_| called.is_empty())?;
        return Some((message, TypeSource::Callees));
    }
    let name = pushed_name(image, &Flow::new(image, &function), callees)?;
    Some((full_name(name, dropped(caller, callees)), TypeSource::ErrorString))
}

/// The type of the called method of `prost::Message`, if it is the one of this name.
fn method_type(callees: &Callees<'_, '_>, instruction: &Instruction, method: &str) -> Option<String> {
    match &*callees.at(callees.target(instruction)?) {
        [Callee::Method(Method { name, message: Some(message), .. })] if name == method => Some(message.clone()),
        _ => None,
    }
}

/// The name that every decode error of the function gets.
fn pushed_name<'a>(image: &Image<'a>, flow: &Flow<'_, '_>, callees: &Callees<'_, '_>) -> Option<&'a str> {
    let mut name = None;
    for (index, instruction) in flow.function.instructions.iter().enumerate() {
        let Some(target) = callees.target(instruction) else {
            continue;
        };
        if *callees.at(target) == [Callee::ErrorPush] {
            let pushed = name_argument(image, flow, index)?;
            if *name.get_or_insert(pushed) != pushed {
                return None;
            }
        }
    }
    name
}

/// The types of the values that the function drops.
fn dropped(flow: &Flow<'_, '_>, callees: &Callees<'_, '_>) -> BTreeSet<String> {
    let mut dropped = BTreeSet::new();
    for target in flow.function.instructions.iter().filter_map(|instruction| callees.target(instruction)) {
        if let [Callee::Drop(name)] = &*callees.at(target) {
            dropped.insert(name.clone());
        }
    }
    dropped
}

/// The one type of this short name among those that are dropped, else the short name.
fn full_name(name: &str, dropped: BTreeSet<String>) -> String {
    let mut paths = dropped.into_iter().filter(|path| path.contains("::") && short_name(path) == name);
    match (paths.next(), paths.next()) {
        (Some(path), None) => path,
        _ => name.to_owned(),
    }
}

/// The message name that a call of `DecodeError::push` adds.
fn name_argument<'a>(image: &Image<'a>, flow: &Flow<'_, '_>, call: usize) -> Option<&'a str> {
    let length = constant_before(flow, call, Register::RDX).filter(|length| (1..=MAX_NAME).contains(length))?;
    let address = constant_before(flow, call, Register::RSI)?;
    let name = std::str::from_utf8(image.memory(address, length as usize)?).ok()?;
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(name)
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
        if !matches!(instruction.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch) {
            return None;
        }
        if !writes_register(&mut info, instruction, register) {
            continue;
        }
        return match instruction.mnemonic() {
            Mnemonic::Mov if instruction.op0_register().size() >= 4 => instruction.try_immediate(1).ok(),
            Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => Some(instruction.ip_rel_memory_address()),
            _ => None,
        };
    }
    None
}

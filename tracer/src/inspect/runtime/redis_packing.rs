//! Functions that pack Redis commands on behalf of many tasks: redis-rs's multiplexed connection sends from a task of its own,
//! so the task that asks is seen where it packs.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_common::map::{BUFFER_OUTPUT, BUFFER_RESULT, Probe};

use crate::inspect::code::entry::{ALL_ARGUMENTS, entry};
use crate::inspect::code::exits::{AfterCalls, exits};
use crate::inspect::code::flow::Flow;
use crate::inspect::code::function::Function;
use crate::inspect::code::references::Hits;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::plan::{Operation, PackFn, ProbePlan, Remark, RemarkKind};
use crate::inspect::prost::layout;

/// Part of the mangled names of a client whose connection many tasks share.
const SHARED: &str = "multiplexed_connection";
/// More of them than this are not planned.
const MAX_PACKS: usize = 64;

/// Appends a command to the vector that is its first argument. It has been the same since redis-rs 0.20.
const WRITE_COMMAND: &str = "redis::cmd::write_command";
/// Returns a pipeline as a vector. Its public caller is a few instructions long, none of which the kernel emulates.
const ENCODE_PIPELINE: &str = "redis::pipeline::encode_pipeline";

/// Adds the functions to the plan.
pub(in crate::inspect) fn plan(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    relocations: &Relocations,
    compiler_known: bool,
    plan: &mut ProbePlan,
) {
    let mut shared = false;
    let mut found = BTreeMap::new();
    for function in symbols.functions() {
        let mangled = symbols.name(function);
        shared |= mangled.contains(SHARED);
        if mangled.contains("redis") && (mangled.contains("write_command") || mangled.contains("encode_pipeline")) {
            let name = demangle(mangled);
            if let Some(buffer) = buffer(&name)
                && found.len() < MAX_PACKS
            {
                found.insert(function.address, (name, buffer));
            }
        }
    }
    let Some(layout) = layout::of_type("alloc::vec::Vec<u8>", compiler_known) else { return };
    if !shared || found.is_empty() {
        return;
    }
    let wanted: HashSet<u64> = found.keys().copied().collect();
    let hits = Hits::scan(image, symbols, relocations, &wanted);
    // As far as the exits are concerned: the vector behind the first argument must not have changed.
    let operations: HashMap<u64, Operation> = wanted.iter().map(|address| (*address, Operation::EncodeToVec)).collect();
    let after_calls = AfterCalls::find(image, &hits, &operations);
    let mut open = relocations.taken.clone();
    open.extend(wanted.iter().copied().filter(|address| symbols.exported(*address)));
    for (address, (name, buffer)) in found {
        let planned = Function::decode(image, address, symbols.size_at(address))
            .ok_or("its code cannot be decoded")
            .and_then(|function| {
                let flow = Flow::new(image, &function);
                let (exit_kind, exits) = exits(image, &flow, &after_calls, &open)?;
                Ok((entry(image, &flow, ALL_ARGUMENTS)?, exit_kind, exits))
            });
        match planned {
            Ok((entry, exit_kind, exits)) => plan.packs.push(PackFn {
                name,
                entry,
                exits,
                exit_kind,
                probe: Probe {
                    operation: Operation::EncodeToVec.code(),
                    buffer,
                    ptr_offset: layout.pointer,
                    len_offset: layout.length,
                    ..Probe::default()
                },
            }),
            Err(reason) => plan.remarks.push(Remark {
                kind: RemarkKind::Untraceable,
                subject: Some(name),
                text: format!("cannot be probed, so commands belong to the task that sends them: {reason}"),
                remedy: None,
            }),
        }
    }
}

/// Where the function of this name leaves the packed bytes. Both manglings; v0 has generic arguments behind.
fn buffer(name: &str) -> Option<u8> {
    let is = |path: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::<"));
    if is(WRITE_COMMAND) {
        Some(BUFFER_OUTPUT)
    } else if is(ENCODE_PIPELINE) {
        Some(BUFFER_RESULT)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::buffer;
    use tracer_common::map::{BUFFER_OUTPUT, BUFFER_RESULT};

    #[test]
    fn both_manglings_are_known_and_others_are_left() {
        assert_eq!(buffer("redis::cmd::write_command"), Some(BUFFER_OUTPUT));
        assert_eq!(buffer("redis::cmd::write_command::<core::iter::Map<_, _>>"), Some(BUFFER_OUTPUT));
        assert_eq!(buffer("redis::pipeline::encode_pipeline"), Some(BUFFER_RESULT));
        assert_eq!(buffer("redis::cmd::write_command_to_vec"), None);
        assert_eq!(buffer("redis::cmd::write_command::{closure#0}"), None);
    }
}

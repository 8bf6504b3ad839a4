//! Whether the code of an inlined call is there twice, as an unrolled loop leaves it: then one visit is several calls.
//!
//! The debug info gives all copies to the same call. What gives them away is order: the same function called twice from the same
//! place with the same constants, the length computed after bytes were written, or two loops over the fields.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic};

use crate::inspect::code::fuel::Fuel;
use crate::inspect::code::function::{Function, direct_target, pointer_target};
use crate::inspect::dwarf::InlinedCall;
use crate::inspect::inlined::calls::{TOO_MUCH, constants};
use crate::inspect::inlined::region::{Graph, Region};

/// More calls of one function from one place are not compared.
const MAX_ALIKE: usize = 16;

/// An error if the region may hold several calls.
pub(in crate::inspect) fn refuse(
    call: &InlinedCall,
    function: &Function<'_>,
    graph: &Graph,
    region: &Region,
    body: &[bool],
    fuel: &Fuel,
) -> Result<(), &'static str> {
    const TWICE: &str = "its code may be there twice";
    let loops = region.loops(graph);
    let marks = Marks::of(call, function, body);
    let within = |node: usize| region.contains(node) && node != region.entry;

    // A call of the same function from the same place.
    let mut alike: HashMap<(u32, u64, Vec<_>), Vec<usize>> = HashMap::new();
    for node in region.nodes.iter().copied().filter(|node| body[*node] && graph.work[*node].calls) {
        let instruction = &function.instructions[node];
        let target = direct_target(instruction).or_else(|| pointer_target(instruction)).unwrap_or_default();
        alike.entry((marks.innermost[node], target, constants(function, node))).or_default().push(node);
    }
    for group in alike.values().filter(|group| group.len() > 1) {
        if group.len() > MAX_ALIKE {
            return Err(TWICE);
        }
        for from in group {
            for to in group.iter().filter(|to| *to != from) {
                fuel.spend(body.len()).ok_or(TOO_MUCH)?;
                let same_loop = loops[*from] != 0 && loops[*from] == loops[*to];
                if !same_loop && graph.leads(*from, *to, within) {
                    return Err(TWICE);
                }
            }
        }
    }

    // Bytes are written, then the length is computed again.
    let block = blocks(function, graph);
    let written: Vec<usize> = region.nodes.iter().copied().filter(|node| marks.writes[*node]).collect();
    let measured: Vec<usize> = region.nodes.iter().copied().filter(|node| marks.measures[*node]).collect();
    for same_block in written.chunk_by(|one, other| block[*one] == block[*other]) {
        fuel.spend(body.len()).ok_or(TOO_MUCH)?;
        let later = graph.reach(same_block.iter().copied(), false, within);
        if measured.iter().any(|to| later[*to] && block[*to] != block[same_block[0]]) {
            return Err(TWICE);
        }
    }

    // Two loops over the fields.
    let over_fields: BTreeSet<u32> =
        region.nodes.iter().filter(|node| marks.keys[**node] && loops[**node] != 0).map(|node| loops[*node]).collect();
    if over_fields.len() > 1 { Err(TWICE) } else { Ok(()) }
}

/// What the inlined functions say about each instruction.
struct Marks {
    /// Number of the innermost one, 0 for the method itself.
    innermost: Vec<u32>,
    measures: Vec<bool>,
    writes: Vec<bool>,
    keys: Vec<bool>,
}

impl Marks {
    fn of(call: &InlinedCall, function: &Function<'_>, body: &[bool]) -> Self {
        let count = body.len();
        let mut marks = Self {
            innermost: vec![0; count],
            measures: vec![false; count],
            writes: vec![false; count],
            keys: vec![false; count],
        };
        for (number, scope) in call.scopes.iter().enumerate() {
            let name = scope.name.as_deref().unwrap_or_default();
            for (start, end) in &scope.ranges {
                let first = function.instructions.partition_point(|instruction| instruction.ip() < *start);
                let last = function.instructions.partition_point(|instruction| instruction.ip() < *end);
                for node in first..last {
                    // Inner functions come behind the ones around them.
                    marks.innermost[node] = number as u32 + 1;
                    marks.measures[node] |=
                        scope.depth == 1 && name == "encoded_len" && computes(&function.instructions[node]);
                    marks.writes[node] |= scope.depth == 1 && name == "encode_raw";
                    marks.keys[node] |= name == "decode_key";
                }
            }
        }
        marks
    }
}

/// Whether an instruction computes something. That a field is not empty is asked when the length is computed and when the
/// field is written; the compiler may ask it once, at the later place and in the name of the former.
fn computes(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Test | Mnemonic::Cmp | Mnemonic::Neg | Mnemonic::Mov)
        && !instruction.is_jcc_short_or_near()
}

/// The number of the basic block of each instruction.
fn blocks(function: &Function<'_>, graph: &Graph) -> Vec<u32> {
    let mut starts = vec![false; function.instructions.len()];
    for (node, next) in graph.successors.iter().enumerate() {
        let falls = matches!(
            function.instructions[node].flow_control(),
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall
        );
        for next in next.iter().map(|next| *next as usize).filter(|next| !(falls && *next == node + 1)) {
            starts[next] = true;
        }
        if !falls && let Some(start) = starts.get_mut(node + 1) {
            *start = true;
        }
    }
    let mut number = 0;
    starts
        .into_iter()
        .map(|start| {
            number += u32::from(start);
            number
        })
        .collect()
}

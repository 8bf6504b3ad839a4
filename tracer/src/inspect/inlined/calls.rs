//! Probes of inlined calls: on the first instruction of a call's code, and wherever control leaves it.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use tracer_common::map::{PROBE_INLINED, Probe};

use crate::inspect::code::exits::site;
use crate::inspect::code::flow::{Flow, Leave};
use crate::inspect::code::frames::Frames;
use crate::inspect::code::fuel::Fuel;
use crate::inspect::code::function::Function;
use crate::inspect::code::returns::Returns;
use crate::inspect::code::values;
use crate::inspect::dwarf::InlinedCall;
use crate::inspect::elf::image::Image;
use crate::inspect::inlined::copies;
use crate::inspect::inlined::frame_bytes::{Frame, Helpers};
use crate::inspect::inlined::region::{Graph, Region, Work};
use crate::inspect::plan::{CallPlace, ExitKind, MessageFn, Site, TypeSource};

/// How far from where control enters or leaves a probe may be, in instructions.
const MAX_WALK: usize = 32;
/// Functions with inlined calls larger than this are not analysed, in bytes.
const MAX_FUNCTION: u64 = 1 << 20;

/// In larger functions nobody looks for the bytes of calls, in instructions.
const MAX_FOLLOWED: usize = 1 << 15;

/// Instructions that are looked at in all, each as often as it is.
const MAX_WORK: u64 = 4 << 30;
/// Why the rest is refused.
pub(in crate::inspect) const TOO_MUCH: &str = "the analysis takes too long";

/// What became of the inlined calls.
#[derive(Debug, Default)]
pub(in crate::inspect) struct Planned {
    pub(in crate::inspect) messages: Vec<MessageFn>,
    /// Calls that are not probed, and why not.
    pub(in crate::inspect) refused: Vec<(InlinedCall, &'static str)>,
}

/// Plans the probes of all calls, function by function.
pub(in crate::inspect) fn plan<'a>(
    image: &Image<'a>,
    calls: Vec<InlinedCall>,
    returns: &Returns<'_, '_>,
    helpers: &Helpers<'_, '_, 'a>,
) -> Planned {
    let mut planned = Planned::default();
    if calls.is_empty() {
        return planned;
    }
    let mut by_function: BTreeMap<(u64, u64), Vec<InlinedCall>> = BTreeMap::new();
    for call in calls {
        by_function.entry(call.function).or_default().push(call);
    }
    let frames = Frames::read(image);
    let fuel = Fuel::new(MAX_WORK);
    for ((start, end), mut calls) in by_function {
        // Units that are there twice say the same twice.
        calls.sort_by(|one, other| one.ranges.cmp(&other.ranges));
        calls.dedup_by(|one, other| one.ranges == other.ranges && one.operation == other.operation);
        let size = end.saturating_sub(start);
        let function = if size <= MAX_FUNCTION { Function::decode(image, start, size) } else { None };
        let Some(function) = function else {
            planned.refused.extend(calls.into_iter().map(|call| (call, "the function around it cannot be decoded")));
            continue;
        };
        Around::new(image, &function, returns, &frames, helpers).plan(calls, &fuel, &mut planned);
    }
    planned
}

/// A function with inlined calls.
struct Around<'f, 'i, 'a> {
    image: &'i Image<'a>,
    function: &'f Function<'a>,
    flow: Flow<'f, 'a>,
    graph: Graph,
    deltas: Vec<Option<i64>>,
    /// Nobody can say where an indirect jump leads to.
    astray: bool,
    helpers: &'i Helpers<'i, 'i, 'a>,
    /// Calls of helpers.
    calls: Vec<values::Call>,
}

impl<'f, 'i, 'a> Around<'f, 'i, 'a> {
    fn new(
        image: &'i Image<'a>,
        function: &'f Function<'a>,
        returns: &Returns<'_, '_>,
        frames: &Frames<'_>,
        helpers: &'i Helpers<'i, 'i, 'a>,
    ) -> Self {
        let flow = Flow::new(image, function);
        let count = function.instructions.len();
        let mut successors = vec![Vec::new(); count];
        let mut work = vec![Work::default(); count];
        for (index, instruction) in function.instructions.iter().enumerate() {
            let call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            if matches!(instruction.mnemonic(), Mnemonic::Ud2 | Mnemonic::Int3) || call && returns.never(instruction) {
                continue;
            }
            let next = &mut successors[index];
            next.extend(flow.successors(index).map(|next| next as u32));
            next.sort_unstable();
            next.dedup();
            work[index] = Work {
                calls: call || instruction.mnemonic() == Mnemonic::Syscall,
                branches: next.len() > 1,
                compares: matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test),
            };
        }
        let mut deltas = flow.stack_deltas_along(|index| successors[index].iter().map(|next| *next as usize));
        frames.complete(function, &mut deltas);
        let astray = (0..count).any(|index| flow.leaves(index) == Some(Leave::Indirect) && deltas[index] != Some(0));
        let small = function.instructions.len() <= MAX_FOLLOWED;
        let calls = if small {
            values::calls(&flow, |index| helpers.is_call(&function.instructions[index]))
        } else {
            Vec::new()
        };
        Self { image, function, flow, graph: Graph::new(successors, work), deltas, astray, helpers, calls }
    }

    fn plan(&self, calls: Vec<InlinedCall>, fuel: &Fuel, planned: &mut Planned) {
        let mut found = Vec::new();
        for call in calls {
            let result = self.region(&call, fuel).and_then(|region| {
                let message = self.message(&call, &region)?;
                Ok((region, message))
            });
            found.push((call, result));
        }
        let regions: Vec<Option<&Region>> =
            found.iter().map(|(_, result)| result.as_ref().map(|(region, _)| region).ok()).collect();
        let mixed: Vec<bool> = (0..found.len()).map(|index| self.mixed(&regions, index, fuel)).collect();
        for ((call, result), mixed) in found.into_iter().zip(mixed) {
            match result {
                Ok(_) if mixed => planned.refused.push((call, "its code is mixed with that of another call")),
                Ok((_, message)) => planned.messages.push(message),
                Err(reason) => planned.refused.push((call, reason)),
            }
        }
    }

    /// Whether another call begins in the middle of this one, or the other way round. Where the end of one and the beginning of
    /// the next are shuffled, the programs end the first when the second begins.
    fn mixed(&self, regions: &[Option<&Region>], index: usize, fuel: &Fuel) -> bool {
        let Some(one) = regions[index] else { return false };
        let inside = |first: &Region, second: &Region| {
            let within = |node: usize| first.contains(node) && node != first.entry;
            let work = |node: &&usize| within(**node) && !second.contains(**node) && self.graph.work[**node].calls;
            let leads =
                |node: &usize| fuel.spend(self.deltas.len()).is_none() || self.graph.leads(second.entry, *node, within);
            first.contains(second.entry) && (first.entry == second.entry || first.nodes.iter().filter(work).any(leads))
        };
        let others = regions.iter().enumerate().filter(|(other, _)| *other != index).filter_map(|(_, other)| *other);
        others.into_iter().any(|other| fuel.spend(1).is_none() || inside(one, other) || inside(other, one))
    }

    fn region(&self, call: &InlinedCall, fuel: &Fuel) -> Result<Region, &'static str> {
        // What is done for one call takes so many passes over its function.
        fuel.spend(self.deltas.len() * 16).ok_or(TOO_MUCH)?;
        if self.astray {
            return Err("the function around it has a jump that may lead anywhere");
        }
        let mut body = vec![false; self.function.instructions.len()];
        for (start, end) in &call.ranges {
            let (Some(first), Some(last)) = (self.function.index_over(*start), self.function.index_over(end - 1))
            else {
                return Err("a part of it is in another function");
            };
            if self.function.instructions[first].ip() != *start || self.function.instructions[last].next_ip() != *end {
                return Err("its parts are not whole instructions");
            }
            body[first..=last].fill(true);
        }
        let nowhere = |instruction: &Instruction| {
            let behind = call.nowhere.partition_point(|(start, _)| *start <= instruction.ip());
            behind.checked_sub(1).is_some_and(|at| instruction.ip() < call.nowhere[at].1)
        };
        let nowhere: Vec<bool> = self.function.instructions.iter().map(nowhere).collect();
        let region = Region::find(&self.graph, &body, &nowhere)?;
        let works = |node: &&usize| self.graph.work[**node].calls || self.graph.work[**node].branches;
        if region.nodes.iter().find(works).is_none() {
            return Err("hardly anything is left of it");
        }
        copies::refuse(call, self.function, &self.graph, &region, &body, fuel)?;
        Ok(region)
    }

    fn message(&self, call: &InlinedCall, region: &Region) -> Result<MessageFn, &'static str> {
        let entry = self.entry(region)?;
        let mut exits: Vec<Site> = Vec::new();
        // From where a call has ended to where it is seen.
        let mut ways: Vec<(usize, usize)> = Vec::new();
        for (next, from) in region.exits(&self.graph) {
            match self.landing(region, next)? {
                (site, _)
                    if !site.cheap
                        && let Some(sites) = self.leaving(&from) =>
                {
                    exits.extend(sites)
                }
                (site, at) => {
                    exits.push(site);
                    ways.push((next, at));
                }
            }
        }
        for node in region.nodes.iter().filter(|node| self.flow.leaves(**node).is_some()) {
            let conditional = self.function.instructions[*node].flow_control() == FlowControl::ConditionalBranch;
            if conditional {
                return Err("it ends in a conditional jump to another function");
            }
            exits.push(self.site(*node)?);
        }
        exits.sort_unstable();
        exits.dedup();
        if exits.is_empty() {
            return Err("it never ends");
        }
        let mut probe = Probe { operation: call.operation.code(), flags: PROBE_INLINED, ..Probe::default() };
        if let Some(at) = self.function.index_at(entry.address) {
            let frame = Frame { function: self.function, deltas: &self.deltas, region, entry: at, ways: &ways };
            self.helpers.probe(call.operation, &self.calls, &frame, &mut probe);
        }
        Ok(MessageFn {
            operation: call.operation,
            message_type: Some(call.message.clone()),
            type_source: TypeSource::DebugInfo,
            buffer_type: call.buffer.clone(),
            entry,
            exits,
            exit_kind: ExitKind::Inlined,
            probe,
            call: Some(CallPlace { function: call.caller.clone(), file: call.file.clone(), line: call.line }),
        })
    }

    /// The first emulated instruction that every call passes at its beginning, else the very first.
    fn entry(&self, region: &Region) -> Result<Site, &'static str> {
        for node in region.entry..(region.entry + MAX_WALK).min(self.function.instructions.len()) {
            if !region.contains(node) || node != region.entry && self.flow.is_target(node) {
                break;
            }
            let instruction = &self.function.instructions[node];
            if self.function.emulated(instruction) {
                return self.site(node);
            }
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
        }
        self.site(region.entry)
    }

    /// The first emulated instruction from a node outside on, with no way around, else the node itself.
    fn landing(&self, region: &Region, node: usize) -> Result<(Site, usize), &'static str> {
        for index in node..(node + MAX_WALK).min(self.function.instructions.len()) {
            if region.contains(index) {
                break;
            }
            let instruction = &self.function.instructions[index];
            if self.function.emulated(instruction) && self.deltas[index].is_some() {
                return Ok((self.site(index)?, index));
            }
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
        }
        Ok((self.site(node)?, node))
    }

    /// The jumps by which control leaves, if all of them are unconditional and emulated.
    fn leaving(&self, from: &[usize]) -> Option<Vec<Site>> {
        let jumps = |node: &usize| {
            let instruction = &self.function.instructions[*node];
            instruction.flow_control() == FlowControl::UnconditionalBranch && self.function.emulated(instruction)
        };
        from.iter().all(jumps).then(|| from.iter().map(|node| self.site(*node).ok()).collect()).flatten()
    }

    fn site(&self, node: usize) -> Result<Site, &'static str> {
        let instruction: &Instruction = &self.function.instructions[node];
        if !self.function.probeable(instruction) {
            return Err("the kernel refuses a probe where it begins or ends");
        }
        let delta = self.deltas[node].ok_or("the height of the stack is not known where it begins or ends")?;
        site(self.image, self.function, instruction, delta).ok_or("its code is not in the file")
    }
}

/// The constants that are set just before a call: two calls from the same place in the source differ in them.
pub(in crate::inspect) fn constants(function: &Function<'_>, call: usize) -> Vec<(Register, u64)> {
    let mut found: HashMap<Register, u64> = HashMap::new();
    for instruction in function.instructions[call.saturating_sub(MAX_WALK)..call].iter().rev() {
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        if instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.mnemonic() == Mnemonic::Mov
            && let Ok(value) = instruction.try_immediate(1)
        {
            found.entry(instruction.op0_register().full_register()).or_insert(value);
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable_by_key(|(register, _)| *register as usize);
    found
}

//! Who refers to the wanted functions.
//!
//! One pass over all code looks for four bytes that, read as a displacement, lead to a wanted function or to a GOT slot of
//! one. That finds every reference wherever instructions begin, and some chance hits, which decoding sorts out.

use std::collections::{BTreeMap, HashMap, HashSet};

use iced_x86::{FlowControl, Instruction, OpKind};

use crate::inspect::code::function::{Function, direct_target};
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::Symbols;

/// More hits than this are not the work of a compiler.
const MAX_HITS: usize = 1 << 20;

/// Possible references from one function.
#[derive(Debug, Default)]
pub(in crate::inspect) struct Hits {
    /// Start of the function, its size, and (address of the displacement, wanted function).
    pub(in crate::inspect) by_function: BTreeMap<(u64, u64), Vec<Hit>>,
    /// Wanted functions with a reference in code that belongs to no symbol.
    pub(in crate::inspect) unknown: HashSet<u64>,
    /// There are too many: nothing is known about any function.
    pub(in crate::inspect) too_many: bool,
}

/// A possible reference.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct Hit {
    /// Address of the displacement.
    at: u64,
    /// What the displacement leads to: the function itself or a GOT slot.
    leads_to: u64,
    /// The function.
    pub(in crate::inspect) function: u64,
}

/// What a hit turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Reference {
    /// A call, at this index of the decoded function.
    Call(usize),
    /// A jump from within the function itself.
    Inside,
    /// A tail call, or the address is taken.
    Escape,
    /// Other bytes that looked like a reference.
    Chance,
}

impl Hits {
    pub(in crate::inspect) fn scan(
        image: &Image<'_>,
        symbols: &Symbols<'_>,
        relocations: &Relocations,
        wanted: &HashSet<u64>,
    ) -> Self {
        let mut targets: HashMap<u64, u64> = wanted.iter().map(|address| (*address, *address)).collect();
        let slots = relocations.slots.iter().filter(|(_, function)| wanted.contains(function));
        targets.extend(slots.map(|(slot, function)| (*slot, *function)));
        let mut hits = Self::default();
        let Some(filter) = Filter::new(targets.keys().copied()) else {
            return hits;
        };
        let mut count = 0;
        for code in image.code() {
            for (index, bytes) in code.bytes.windows(4).enumerate() {
                let displacement = i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                let at = code.address + index as u64;
                let relative = at.wrapping_add(4).wrapping_add_signed(displacement);
                let absolute = displacement as u64;
                for leads_to in [Some(relative), image.fixed.then_some(absolute)].into_iter().flatten() {
                    if !filter.may_have(leads_to) {
                        continue;
                    }
                    let Some(&function) = targets.get(&leads_to) else {
                        continue;
                    };
                    count += 1;
                    if count > MAX_HITS {
                        hits.too_many = true;
                        return hits;
                    }
                    match symbols.around(at) {
                        Some(around) => {
                            hits.by_function.entry(around).or_default().push(Hit { at, leads_to, function })
                        }
                        None => drop(hits.unknown.insert(function)),
                    }
                }
            }
        }
        hits
    }
}

impl Hit {
    /// Tells by decoding what the hit is.
    pub(in crate::inspect) fn resolve(&self, caller: &Function<'_>) -> Reference {
        let Some(index) = caller.index_over(self.at) else {
            return Reference::Escape;
        };
        let instruction = &caller.instructions[index];
        let flow = instruction.flow_control();
        if direct_target(instruction) == Some(self.leads_to) {
            return match flow {
                FlowControl::Call => Reference::Call(index),
                _ if caller.address == self.function => Reference::Inside,
                _ => Reference::Escape,
            };
        }
        if instruction.is_ip_rel_memory_operand() && instruction.ip_rel_memory_address() == self.leads_to {
            return if flow == FlowControl::IndirectCall { Reference::Call(index) } else { Reference::Escape };
        }
        if has_constant(instruction, self.leads_to) { Reference::Escape } else { Reference::Chance }
    }
}

/// Whether the instruction holds the value as an immediate or an absolute displacement.
fn has_constant(instruction: &Instruction, value: u64) -> bool {
    (0..instruction.op_count()).any(|operand| match instruction.op_kind(operand) {
        OpKind::Memory => instruction.memory_displacement64() == value,
        OpKind::Register | OpKind::NearBranch64 => false,
        _ => instruction.try_immediate(operand).is_ok_and(|immediate| immediate == value),
    })
}

/// A quick no for most addresses.
struct Filter {
    first: u64,
    span: u64,
    bits: Vec<u64>,
}

impl Filter {
    const BITS: u64 = 1 << 18;

    fn new(addresses: impl Iterator<Item = u64> + Clone) -> Option<Self> {
        let first = addresses.clone().min()?;
        let span = addresses.clone().max()? - first;
        let mut filter = Self { first, span, bits: vec![0; (Self::BITS / 64) as usize] };
        for address in addresses {
            let (word, bit) = Self::place(address);
            filter.bits[word] |= 1 << bit;
        }
        Some(filter)
    }

    fn place(address: u64) -> (usize, u64) {
        let hash = (address ^ address >> 18) % Self::BITS;
        ((hash / 64) as usize, hash % 64)
    }

    fn may_have(&self, address: u64) -> bool {
        if address.wrapping_sub(self.first) > self.span {
            return false;
        }
        let (word, bit) = Self::place(address);
        self.bits[word] >> bit & 1 != 0
    }
}

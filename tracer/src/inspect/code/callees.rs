//! What the functions are that a prost function calls.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::inspect::code::flow::Flow;
use crate::inspect::code::function::Function;
use crate::inspect::code::values::{self, Uses, callee};
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::prost::names::{self, Method};

/// How deep growth of a buffer is looked for.
const MAX_DEPTH: usize = 3;

/// A called function, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Callee {
    /// A method of `prost::Message`.
    Method(Method),
    /// Adds a message and field name to a decode error.
    ErrorPush,
    /// Merges the fields of a nested or delimited message.
    MergeLoop,
    /// Drops a value of this type.
    Drop(String),
    /// Makes room in a `BytesMut`.
    GrowBytesMut,
    /// Makes room in a vector.
    GrowVec,
    /// Computes a length or allocates: writes no message.
    Silent,
    /// Another function of prost, bytes or alloc.
    Helper,
    Other,
}

/// Names the called functions, each once.
pub(in crate::inspect) struct Callees<'i, 'a> {
    image: &'i Image<'a>,
    symbols: &'i Symbols<'a>,
    relocations: &'i Relocations,
    known: RefCell<HashMap<u64, Rc<[Callee]>>>,
    growth: RefCell<HashMap<u64, Growth>>,
    uses: RefCell<HashMap<u64, Option<Rc<Uses>>>>,
}

/// Which buffers a function can make larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::inspect) struct Growth {
    pub(in crate::inspect) vec: bool,
    pub(in crate::inspect) bytes_mut: bool,
}

impl<'i, 'a> Callees<'i, 'a> {
    pub(in crate::inspect) fn new(
        image: &'i Image<'a>,
        symbols: &'i Symbols<'a>,
        relocations: &'i Relocations,
    ) -> Self {
        Self {
            image,
            symbols,
            relocations,
            known: RefCell::default(),
            growth: RefCell::default(),
            uses: RefCell::default(),
        }
    }

    /// What a called function reads through its arguments. Each is looked at once: many call the same ones.
    pub(in crate::inspect) fn uses(&self, address: u64) -> Option<Rc<Uses>> {
        let mut known = self.uses.borrow_mut();
        let uses = known.entry(address).or_insert_with(|| {
            let function = self.decode(address)?;
            Some(Rc::new(values::reads(&Flow::new(self.image, &function))))
        });
        uses.clone()
    }

    /// Whether the function at an address reads or writes a part of a message.
    pub(in crate::inspect) fn is_encoding(&self, address: u64) -> bool {
        let encodes = |name: &str| name.contains("prost") && demangle(name).contains("prost::encoding::");
        self.symbols.at(address).iter().any(|function| encodes(self.symbols.name(function)))
    }

    /// The function that an instruction calls, if that is certain.
    pub(in crate::inspect) fn target(&self, instruction: &iced_x86::Instruction) -> Option<u64> {
        callee(instruction, &self.relocations.slots)
    }

    /// What the function at an address is; more than one if the linker folded several.
    pub(in crate::inspect) fn at(&self, address: u64) -> Rc<[Callee]> {
        if let Some(known) = self.known.borrow().get(&address) {
            return Rc::clone(known);
        }
        let mut found: Vec<Callee> = Vec::new();
        for function in self.symbols.at(address) {
            let callee = classify(self.symbols.name(function));
            if !found.contains(&callee) {
                found.push(callee);
            }
        }
        let found: Rc<[Callee]> = found.into();
        self.known.borrow_mut().insert(address, Rc::clone(&found));
        found
    }

    /// Decodes a called function.
    pub(in crate::inspect) fn decode(&self, address: u64) -> Option<Function<'a>> {
        /// Larger helpers do not exist.
        const MAX_SIZE: u64 = 32 << 10;
        let size = self.symbols.size_at(address);
        (size <= MAX_SIZE).then(|| Function::decode(self.image, address, size)).flatten()
    }

    /// Which buffers a function can make larger, through helpers only.
    pub(in crate::inspect) fn growth(&self, function: &Function<'_>) -> Growth {
        self.growth_within(function, MAX_DEPTH)
    }

    fn growth_within(&self, function: &Function<'_>, depth: usize) -> Growth {
        let mut growth = Growth::default();
        let targets: HashSet<u64> = function.instructions.iter().filter_map(|i| self.target(i)).collect();
        for target in targets {
            for callee in self.at(target).iter() {
                match callee {
                    Callee::GrowVec => growth.vec = true,
                    Callee::GrowBytesMut => growth.bytes_mut = true,
                    Callee::Helper | Callee::Method(_) if depth > 0 => {
                        let inner = self.growth_of(target, depth - 1);
                        growth.vec |= inner.vec;
                        growth.bytes_mut |= inner.bytes_mut;
                    }
                    _ => {}
                }
            }
        }
        growth
    }

    fn growth_of(&self, address: u64, depth: usize) -> Growth {
        if let Some(known) = self.growth.borrow().get(&address) {
            return *known;
        }
        // Stands while the function is looked at, so that recursion ends.
        self.growth.borrow_mut().insert(address, Growth::default());
        let growth = self.decode(address).map(|function| self.growth_within(&function, depth)).unwrap_or_default();
        self.growth.borrow_mut().insert(address, growth);
        growth
    }
}

fn classify(mangled: &str) -> Callee {
    const PARTS: [&str; 6] = ["prost", "drop_in_place", "bytes", "raw_vec", "alloc", "iter"];
    if !PARTS.iter().any(|part| mangled.contains(part)) {
        return Callee::Other;
    }
    let name = demangle(mangled);
    if let Some(method) = names::method(&name) {
        return Callee::Method(method);
    }
    let dropped = name.strip_prefix("core::ptr::drop_in_place").map(|rest| rest.strip_prefix("::").unwrap_or(rest));
    if let Some(dropped) = dropped.and_then(|rest| rest.strip_prefix('<')?.strip_suffix('>')) {
        return Callee::Drop(dropped.to_owned());
    }
    let dropped = name.strip_suffix(" as core::ops::drop::Drop>::drop").and_then(|rest| rest.strip_prefix('<'));
    if let Some(dropped) = dropped {
        return Callee::Drop(dropped.to_owned());
    }
    // Legacy names have no brackets around the type of an inherent method.
    let path: String = name.split("::<").next().unwrap_or(&name).replace(['<', '>'], "");
    match path.as_str() {
        "prost::error::DecodeError::push" => Callee::ErrorPush,
        "prost::encoding::merge_loop" => Callee::MergeLoop,
        "bytes::bytes_mut::BytesMut::reserve_inner" => Callee::GrowBytesMut,
        path if is_silent(path) => Callee::Silent,
        path if path.contains("raw_vec::RawVec") && (path.contains("grow") || path.contains("reserve")) => {
            Callee::GrowVec
        }
        path if ["prost::", "bytes::", "alloc::"].iter().any(|part| path.contains(part)) => Callee::Helper,
        _ => Callee::Other,
    }
}

/// Whether the function computes a length (the sum over a repeated field is a fold) or allocates.
fn is_silent(path: &str) -> bool {
    let last = path.rsplit("::").next().unwrap_or(path);
    last.starts_with("encoded_len")
        || last.starts_with("__rust_alloc")
        || last.starts_with("__rust_no_alloc_shim_is_unstable")
        || matches!(path, "alloc::raw_vec::handle_error" | "alloc::alloc::handle_alloc_error")
        || (last == "fold" && path.contains("core::iter::adapters::map::Map"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_both_manglings() {
        let legacy = |name: &str| classify(name);
        assert_eq!(legacy("_ZN5prost8encoding10merge_loop17h0123456789abcdefE"), Callee::MergeLoop);
        assert_eq!(legacy("_ZN5prost5error11DecodeError4push17h0123456789abcdefE"), Callee::ErrorPush);
        assert_eq!(
            legacy("_ZN4core3ptr31drop_in_place$LT$tgt..Order$GT$17h0123456789abcdefE"),
            Callee::Drop("tgt::Order".into())
        );
        assert_eq!(legacy("_ZN5bytes9bytes_mut8BytesMut13reserve_inner17h0123456789abcdefE"), Callee::GrowBytesMut);
        assert_eq!(legacy("main"), Callee::Other);
    }
}

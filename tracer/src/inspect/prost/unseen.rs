//! Calls of prost that the compiler has put into the functions that make them, where no debug info says so: code around one that
//! refers to the parts of which prost's methods are made. They are not probed, but it is known that they are there.

use std::collections::HashSet;

use crate::inspect::code::function::Function;
use crate::inspect::code::references::{Hits, Reference};
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::plan::ProbePlan;
use crate::inspect::prost::names;

/// The functions with such calls, by name.
pub(in crate::inspect) fn callers(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    relocations: &Relocations,
    plan: &ProbePlan,
) -> Vec<String> {
    let parts: HashSet<u64> = symbols
        .functions()
        .iter()
        .filter(|function| {
            let mangled = symbols.name(function);
            mangled.contains("prost") && is_part(&demangle(mangled))
        })
        .map(|function| function.address)
        .collect();
    let hits = Hits::scan(image, symbols, relocations, &parts);
    let mut found = Vec::new();
    for (&(start, size), hits) in &hits.by_function {
        if plan.messages.iter().any(|message| message.entry.address.wrapping_sub(start) < size) {
            continue;
        }
        let Some(name) = symbols.at(start).first().map(|function| demangle(symbols.name(function))) else { continue };
        if is_library(&name) {
            continue;
        }
        let Some(function) = Function::decode(image, start, size) else { continue };
        if hits.iter().any(|hit| matches!(hit.resolve(&function), Reference::Call(_) | Reference::Escape)) {
            found.push(name);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether only methods of messages call this.
fn is_part(name: &str) -> bool {
    let path = name.trim_start_matches('<');
    path.starts_with("prost::encoding::")
        || names::method(name).is_some_and(|method| matches!(method.name.as_str(), "encode_raw" | "merge_field"))
}

/// Whether it is prost itself or a message, a helper that the compiler has made of a loop, or the shim, whose spans are complete.
fn is_library(name: &str) -> bool {
    const OURS: [&str; 5] = ["prost::", "core::", "alloc::", "tracer_shim::", "hashbrown::"];
    let path = name.trim_start_matches('<');
    names::method(name).is_some() || OURS.iter().any(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::{is_library, is_part};

    #[test]
    fn parts_and_their_usual_callers() {
        let encode_raw = "<app::Order as prost::message::Message>::encode_raw";
        let encoder = "<tonic::codec::prost::ProstEncoder<T> as tonic::codec::Encoder>::encode";
        assert!(is_part("prost::encoding::varint::encode_varint") && is_part(encode_raw));
        assert!(!is_part("<app::Order as prost::message::Message>::encoded_len") && !is_part(encoder));
        assert!(is_library(encode_raw) && is_library("prost::message::Message::encode_to_vec"));
        assert!(is_library("<core::iter::adapters::map::Map<I,F> as core::iter::traits::iterator::Iterator>::fold"));
        assert!(!is_library(encoder) && !is_library("app::main"));
    }
}

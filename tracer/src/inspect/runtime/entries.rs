//! Functions that are known by their names, and probed where they begin.

use crate::inspect::code::entry::{ALL_ARGUMENTS, entry};
use crate::inspect::code::flow::Flow;
use crate::inspect::code::function::Function;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::symbols::Symbols;
use crate::inspect::plan::{FunctionEntry, Remark, RemarkKind};

/// Plans an entry for each function, by address and name; of one that cannot be probed it is said what is `unseen`.
pub(in crate::inspect) fn entries(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    functions: Vec<(u64, String)>,
    unseen: &str,
    remarks: &mut Vec<Remark>,
) -> Vec<FunctionEntry> {
    let mut planned = Vec::new();
    for (address, name) in functions {
        let entry = Function::decode(image, address, symbols.size_at(address))
            .ok_or("its code cannot be decoded")
            .and_then(|function| entry(image, &Flow::new(image, &function), ALL_ARGUMENTS));
        match entry {
            Ok(entry) => planned.push(FunctionEntry { name, entry }),
            Err(reason) => remarks.push(Remark {
                kind: RemarkKind::Untraceable,
                subject: Some(name),
                text: format!("cannot be probed, so {unseen}: {reason}"),
                remedy: None,
            }),
        }
    }
    planned
}

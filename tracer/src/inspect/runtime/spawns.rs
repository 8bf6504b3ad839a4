//! Where a task is spawned: tokio's functions that every new task goes through, whatever its future is.

use crate::inspect::elf::image::Image;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::plan::{FunctionEntry, Remark, RemarkKind};
use crate::inspect::runtime::entries::entries;

/// There is one for each kind of runtime, and one for blocking tasks; more than so many in a file are not planned.
const MAX_SPAWNS: usize = 8;

/// Finds them. They are there since tokio 1.32; all have the new task's header in their second argument.
pub(in crate::inspect) fn spawns(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    remarks: &mut Vec<Remark>,
) -> Vec<FunctionEntry> {
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut binds = false;
    for function in symbols.functions() {
        let mangled = symbols.name(function);
        if mangled.contains("10bind_inner") || mangled.contains("10spawn_task") {
            let name = demangle(mangled);
            let known = found.iter().any(|(address, _)| *address == function.address);
            let bind = is_bind(&name);
            if (bind || is_blocking(&name)) && !known && found.len() < MAX_SPAWNS {
                binds |= bind;
                found.push((function.address, name));
            }
        }
    }
    if !binds {
        remarks.push(Remark {
            kind: RemarkKind::Untraceable,
            subject: Some("spawned tasks".to_owned()),
            text: "the function that spawns them is inlined or not in this tokio, so a task that a handler spawns does not belong to its \
                   message"
                .to_owned(),
            remedy: Some("build with tokio 1.32 or later and without fat LTO, or use the shim".to_owned()),
        });
    }
    entries(image, symbols, found, "what is spawned there does not belong to the message of its handler", remarks)
}

fn is_bind(name: &str) -> bool {
    name.trim_start_matches('<').starts_with("tokio::runtime::task::list::OwnedTasks<")
        && name.ends_with("::bind_inner")
}

fn is_blocking(name: &str) -> bool {
    let name = name.trim_start_matches('<').replace('>', "");
    name == "tokio::runtime::blocking::pool::Spawner::spawn_task"
}

#[cfg(test)]
mod tests {
    use super::{is_bind, is_blocking};

    #[test]
    fn both_manglings_are_known_and_others_are_left() {
        assert!(is_bind("tokio::runtime::task::list::OwnedTasks<S>::bind_inner"));
        assert!(is_bind(
            "<tokio::runtime::task::list::OwnedTasks<alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle>>>::bind_inner"
        ));
        assert!(!is_bind("tokio::runtime::task::list::OwnedTasks<S>::bind_inner::{{closure}}"));
        assert!(!is_bind("app::OwnedTasks<S>::bind_inner"));
        assert!(is_blocking("tokio::runtime::blocking::pool::Spawner::spawn_task"));
        assert!(is_blocking("<tokio::runtime::blocking::pool::Spawner>::spawn_task"));
        assert!(!is_blocking("tokio::runtime::blocking::pool::Spawner::spawn_task::{{closure}}"));
        assert!(!is_blocking("tokio::runtime::blocking::pool::InnerImpl::spawn_task"));
    }
}

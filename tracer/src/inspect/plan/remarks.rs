//! What the plan lacks, and the one build flag that would change it.

use tracer_common::map::BUFFER_UNKNOWN;

use crate::inspect::elf::symbols::Symbols;
use crate::inspect::plan::limits::Limit;
use crate::inspect::plan::{ProbePlan, Remark, RemarkKind, SymbolSource, TypeSource};
use crate::inspect::prost::layout;
use crate::inspect::prost::messages::Catalog;

/// Functions that are named in a remark; of the others it is said how many there are.
const MAX_SHOWN: usize = 5;

/// Says which files of split units are not there.
pub(in crate::inspect) fn split(missing: &[String], plan: &mut ProbePlan) {
    let Some(first) = missing.first() else { return };
    let others = if missing.len() > 1 { format!(" and {} others", missing.len() - 1) } else { String::new() };
    plan.remarks.push(Remark {
        kind: RemarkKind::MissingDebugInfo,
        subject: None,
        text: format!("debug info is in {first}{others}, which cannot be read, so inlined calls are not found"),
        remedy: Some("keep it where it was built, or put it (or PROGRAM.dwp) beside the program".to_owned()),
    });
}

/// Adds remarks about the file as a whole.
///
/// `unseen` are functions with prost calls in them that are not probed.
pub(in crate::inspect) fn add(
    symbols: &Symbols<'_>,
    catalog: &Catalog,
    unseen: &[String],
    compiler_known: bool,
    plan: &mut ProbePlan,
) {
    if !unseen.is_empty() {
        let (shown, others) = unseen.split_at(unseen.len().min(MAX_SHOWN));
        let others = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
        plan.remarks.push(Remark {
            kind: RemarkKind::Inlined,
            subject: None,
            text: format!("{}: into {}{others}", Limit::Inlined.text(), shown.join(", ")),
            remedy: Limit::Inlined.remedy().map(str::to_owned),
        });
    }
    let mut add = |kind, text: &str, remedy: Option<&str>| {
        plan.remarks.push(Remark { kind, subject: None, text: text.to_owned(), remedy: remedy.map(str::to_owned) });
    };
    if symbols.damaged {
        add(RemarkKind::Damaged, "a symbol table cannot be read", None);
    }
    if symbols.source == SymbolSource::Dynamic && plan.is_rust {
        add(RemarkKind::Stripped, Limit::Stripped.text(), Limit::Stripped.remedy());
    } else if !plan.is_rust {
        add(RemarkKind::NotRust, "there is no code by rustc, so no prost functions are looked for", None);
    } else if plan.messages.is_empty() && catalog.has_messages && unseen.is_empty() {
        add(RemarkKind::Inlined, Limit::Inlined.text(), Limit::Inlined.remedy());
    }
    if plan.tls.tokio_context.is_some() && plan.tls.task_id_offset.is_none() {
        add(
            RemarkKind::UnknownTask,
            "where this tokio keeps the id of the current task is not known, so what its threads do is not told apart by task",
            Some("build with tokio 1.29 to 1.54, without tokio_unstable"),
        );
    }
    if symbols.has_rustls() {
        add(RemarkKind::Encrypted, "it has rustls: what passes its connections with TLS is not read", None);
    }
    let legacy = plan.messages.iter().any(|message| message.type_source != TypeSource::Symbol);
    let symbols_help = legacy.then_some("build with RUSTFLAGS=\"-C symbol-mangling-version=v0\"");
    let untyped = plan.messages.iter().filter(|message| message.message_type.is_none()).count();
    if untyped > 0 {
        let text = format!("the message type of {untyped} of {} functions is not known", plan.messages.len());
        add(RemarkKind::UnknownType, &text, symbols_help);
    }
    let unsized_ = plan.messages.iter().filter(|message| message.probe.buffer == BUFFER_UNKNOWN).count();
    if unsized_ > 0 && compiler_known {
        let text = format!(
            "where the bytes of {unsized_} of {} functions are is not known, so their spans have no size",
            plan.messages.len()
        );
        add(RemarkKind::UnknownBuffer, &text, symbols_help);
    } else if unsized_ > 0 {
        let text = "where this compiler keeps pointer and length of a buffer is not known, so most spans have no size";
        add(RemarkKind::UnknownBuffer, text, Some(&format!("build with {}", layout::KNOWN_COMPILERS)));
    }
}

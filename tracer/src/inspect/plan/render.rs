//! The plan for people and for programs.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

use crate::inspect::plan::{ExitKind, ProbePlan, Site, SymbolSource, TypeSource, describe};

/// The plan as tables, `width` columns wide.
pub fn table(plan: &ProbePlan, width: u16) -> String {
    let mut out = header(plan);
    section(
        &mut out,
        "prost functions",
        width,
        &["operation", "message", "buffer", "entry", "exits", "bytes"],
        messages(plan),
    );
    let inlined = plan.messages.iter().filter_map(inlined).collect();
    section(&mut out, "inlined prost calls", width, &["operation", "message", "in", "at", "entry", "exits"], inlined);
    let packs = plan.packs.iter().map(|f| vec![f.name.clone(), one(&f.entry), many(&f.exits)]).collect();
    section(&mut out, "functions that pack Redis commands", width, &["function", "entry", "exits"], packs);
    let calls = plan.errors.iter().map(|f| ("decode error", f)).chain(plan.panics.iter().map(|f| ("panic", f)));
    let calls = calls.chain(plan.grpc_calls.iter().map(|f| ("gRPC call", f)));
    let calls = calls.chain(plan.spawns.iter().map(|f| ("spawn of a task", f)));
    let calls = calls.map(|(what, f)| vec![what.to_owned(), f.name.clone(), one(&f.entry)]).collect();
    section(&mut out, "functions whose call says it all", width, &["what", "function", "entry"], calls);
    let sockets = plan.sockets.iter().map(|f| vec![f.name.clone(), one(&f.entry), many(&f.exits)]).collect();
    section(&mut out, "socket functions", width, &["function", "entry", "exits"], sockets);
    let notes = plan.notes.iter().map(|note| {
        let semaphore = note.semaphore.map(|semaphore| format!("{:#x}", semaphore.address)).unwrap_or_default();
        vec![format!("{}:{}", note.provider, note.name), one(&note.site), semaphore, note.arguments.clone()]
    });
    section(&mut out, "USDT probes", width, &["probe", "site", "semaphore", "arguments"], notes.collect());
    let tls = plan.tls.thread_context.iter().chain(&plan.tls.tokio_context).map(|symbol| {
        let table = if symbol.dynamic { ".dynsym" } else { ".symtab" };
        vec![symbol.name.clone(), format!("{:#x}", symbol.offset), table.to_owned()]
    });
    section(&mut out, "thread-local variables", width, &["symbol", "offset", "table"], tls.collect());
    let remarks = plan.remarks.iter().map(|remark| {
        vec![remark.subject.clone().unwrap_or_default(), remark.text.clone(), remark.remedy.clone().unwrap_or_default()]
    });
    section(&mut out, "remarks", width, &["about", "what is so", "what would change it"], remarks.collect());
    out
}

/// The plan as JSON, for `--json`.
///
/// # Errors
/// Never for a plan of this crate; the error is that of the serializer.
pub fn json(plan: &ProbePlan) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(plan)
}

fn header(plan: &ProbePlan) -> String {
    let mut out = String::new();
    let producer = plan.producer.as_deref().unwrap_or("compiler unknown");
    let build_id = plan.build_id.as_ref().map_or_else(|| "none".to_owned(), hex::encode);
    let traits = [
        (plan.is_rust, "Rust"),
        (plan.static_exe, "static"),
        (plan.stripped, "stripped"),
        (plan.symbols == SymbolSource::DebugFile, "symbols from its debug file"),
        (plan.symbols == SymbolSource::DebugData, "symbols from .gnu_debugdata"),
        (plan.has_dwarf, "with debug info"),
    ];
    let traits: Vec<&str> = traits.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{producer}; build-id {build_id}; {}", traits.join(", "));
    out
}

fn messages(plan: &ProbePlan) -> Vec<Vec<String>> {
    let row = |function: &crate::inspect::plan::MessageFn| {
        let message = function.message_type.clone().unwrap_or_else(|| "?".to_owned());
        let source = match function.type_source {
            TypeSource::Symbol | TypeSource::Unknown => "",
            TypeSource::Callees => " (by callees)",
            TypeSource::Callers => " (by callers)",
            TypeSource::ErrorString => " (by error string)",
            TypeSource::DebugInfo => " (by debug info)",
        };
        let exits = match function.exit_kind {
            ExitKind::AfterCall => format!("{} behind calls", many(&function.exits)),
            ExitKind::Return => format!("{} on return", many(&function.exits)),
            ExitKind::Inlined => format!("{} where it is left", many(&function.exits)),
        };
        let (buffer, pointer, length) = describe(&function.probe);
        let bytes = match (pointer, length) {
            (Some(pointer), Some(length)) => format!("{buffer} {pointer}, {length}"),
            _ => buffer.to_owned(),
        };
        vec![
            function.operation.name().to_owned(),
            format!("{message}{source}"),
            function.buffer_type.clone().unwrap_or_default(),
            one(&function.entry),
            exits,
            bytes,
        ]
    };
    plan.messages.iter().filter(|function| function.call.is_none()).map(row).collect()
}

fn inlined(function: &crate::inspect::plan::MessageFn) -> Option<Vec<String>> {
    let call = function.call.as_ref()?;
    // The end of a path tells more than its beginning.
    let file = call.file.as_deref().unwrap_or("?");
    let short = file.rmatch_indices('/').nth(2).map_or(file, |(at, _)| &file[at + 1..]);
    Some(vec![
        function.operation.name().to_owned(),
        function.message_type.clone().unwrap_or_default(),
        call.function.clone().unwrap_or_default(),
        call.line.map_or_else(String::new, |line| format!("{short}:{line}")),
        one(&function.entry),
        many(&function.exits),
    ])
}

/// An address; a star says that the kernel single-steps the instruction there.
fn one(site: &Site) -> String {
    format!("{:#x}{}", site.address, if site.cheap { "" } else { "*" })
}

fn many(sites: &[Site]) -> String {
    let dear = sites.iter().filter(|site| !site.cheap).count();
    match (sites, dear) {
        ([site], _) => one(site),
        (_, 0) => sites.len().to_string(),
        (_, dear) => format!("{} ({dear} single-stepped*)", sites.len()),
    }
}

fn section(out: &mut String, title: &str, width: u16, header: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_width(width);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_header(header.to_vec()).add_rows(rows);
    let _ = writeln!(out, "\n{title}\n{table}");
}

//! Thread-local variables that a probe reads.

use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{Symbols, TlsVariable, demangle};
use crate::inspect::plan::{TlsSymbol, TlsSymbols};
use crate::inspect::runtime::tokio;

/// The variable of OTEP 4947.
const THREAD_CONTEXT: &str = "otel_thread_ctx_v1";
/// tokio's per-thread context; the symbol of its storage is below this path.
const TOKIO_CONTEXT: &str = "tokio::runtime::context::CONTEXT";

/// Finds them.
pub(in crate::inspect) fn tls(image: &Image<'_>, symbols: &Symbols<'_>, relocations: &Relocations) -> TlsSymbols {
    let Some(segment) = image.tls else {
        return TlsSymbols::default();
    };
    // The executable's block ends at the thread pointer, rounded up to its alignment.
    let align = segment.align.max(1);
    let block = segment.size.checked_next_multiple_of(align).and_then(|size| i64::try_from(size).ok());
    let place = |variable: &TlsVariable, name: String| {
        let offset = i64::try_from(variable.offset).ok();
        let relocation = |descriptor: bool| {
            let of_variable = |symbol: u32, addend: u64| {
                (variable.dynamic && symbol != 0 && symbol == variable.index)
                    || (symbol == 0 && addend == variable.offset)
            };
            let mut all = relocations.tls.iter().filter(|relocation| relocation.descriptor == descriptor);
            all.find(|relocation| of_variable(relocation.symbol, relocation.addend)).map(|relocation| relocation.slot)
        };
        TlsSymbol {
            name,
            offset: variable.offset,
            size: variable.size,
            dynamic: variable.dynamic,
            static_offset: image.program.then(|| offset?.checked_sub(block?)).flatten(),
            descriptor: relocation(true),
            module_slot: relocation(false),
        }
    };
    let mut found = TlsSymbols { segment_size: segment.size, segment_align: segment.align, ..TlsSymbols::default() };
    for variable in &symbols.variables {
        let name = symbols.variable_name(variable);
        if name == THREAD_CONTEXT && found.thread_context.as_ref().is_none_or(|known| !known.dynamic) {
            found.thread_context = Some(place(variable, name.to_owned()));
        } else if name.contains("tokio") && name.contains("CONTEXT") {
            let name = demangle(name);
            if name.starts_with(TOKIO_CONTEXT) && found.tokio_context.is_none() {
                found.task_id_offset = tokio::task_id_offset(image, variable.size);
                found.tokio_context = Some(place(variable, name));
            }
        }
    }
    found
}

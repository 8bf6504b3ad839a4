//! From a binary to a probe plan. Pure: bytes in, plan out.
//!
//! A [`ProbePlan`] says where to attach, what a hit there means and how to read the arguments, for prost functions, decode
//! errors, panics, libc socket functions, USDT probes and thread-local variables. What cannot be probed is a [`Remark`] with
//! the build flag that would change it.
//!
//! The file may be hostile or huge: sections are read when needed, `.debug_*` never, and every step has a bound.
//!
//! ```no_run
//! let plan = tracer::inspect::inspect_file("/usr/bin/service".as_ref())?;
//! for function in &plan.messages {
//!     println!("{} of {:?} at {:#x}", function.operation.name(), function.message_type, function.entry.offset);
//! }
//! # Ok::<(), tracer::inspect::InspectError>(())
//! ```

mod buffers;
mod callees;
mod code;
mod entry;
mod error;
mod exits;
mod flow;
mod image;
mod layout;
mod messages;
mod names;
mod notes;
mod packs;
mod plan;
mod references;
mod relocations;
mod remarks;
pub mod render;
mod sockets;
mod symbols;
mod tls;
mod tokio;
mod types;
mod values;

use std::fs::File;
use std::path::Path;

use object::{ReadCache, ReadRef};

use error::Fault;
use image::Image;
use messages::Catalog;
use relocations::Relocations;
use symbols::Symbols;

pub use error::InspectError;
pub use plan::{
    ExitKind, FunctionEntry, MessageFn, Operation, PackFn, ProbePlan, Remark, RemarkKind, Semaphore, Site, SocketFn,
    TlsSymbol, TlsSymbols, TypeSource, UsdtNote,
};

/// Plans the probes of a file.
///
/// # Errors
/// If the file cannot be read, or is not an executable or shared object for x86-64.
pub fn inspect_file(path: &Path) -> Result<ProbePlan, InspectError> {
    let io = |source| InspectError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(Fault::NotElf.at(path));
    }
    // Not mapped: a file that somebody truncates while it is mapped kills the reader with SIGBUS.
    let cache = ReadCache::new(file);
    inspect(&cache).map_err(|fault| fault.at(path))
}

/// Plans the probes of a file's content; `path` is only for messages.
///
/// # Errors
/// As [`inspect_file`].
pub fn inspect_bytes(bytes: &[u8], path: &Path) -> Result<ProbePlan, InspectError> {
    inspect(bytes).map_err(|fault| fault.at(path))
}

fn inspect<'a, R: ReadRef<'a> + 'a>(data: R) -> Result<ProbePlan, Fault> {
    let image = Image::parse(data)?;
    let symbols = Symbols::read(&image);
    let catalog = Catalog::read(&symbols);
    let relocations = Relocations::read(&image, &symbols, &catalog.wanted());
    let producers = producers(&image);
    let compiler_known = !producers.is_empty() && producers.iter().all(|producer| layout::known_compiler(producer));
    let producer = producers.into_iter().next();
    let mut plan = ProbePlan {
        build_id: notes::build_id(&image),
        stripped: symbols.stripped,
        has_dwarf: image.section(b".debug_info").is_some(),
        is_rust: producer.is_some() || !catalog.panics.is_empty() || catalog.has_prost,
        static_exe: image.program && !image.interpreter,
        producer,
        notes: notes::usdt(&image),
        tls: tls::tls(&image, &symbols, &relocations),
        ..ProbePlan::default()
    };
    messages::plan(&image, &symbols, &relocations, &catalog, compiler_known, &mut plan);
    packs::plan(&image, &symbols, &relocations, compiler_known, &mut plan);
    plan.sockets = sockets::sockets(&image, &symbols, plan.static_exe, &mut plan.remarks);
    remarks::add(&symbols, &catalog, compiler_known, &mut plan);
    Ok(plan)
}

/// The Rust compilers named in `.comment`; several if objects of several were linked.
fn producers(image: &Image<'_>) -> Vec<String> {
    const LONGEST: usize = 200;
    const MOST: usize = 8;
    let bytes = image.section(b".comment").and_then(|section| image.section_bytes(section)).unwrap_or_default();
    let lines =
        bytes.split(|byte| *byte == 0).filter(|line| line.starts_with(b"rustc version ") && line.len() < LONGEST);
    lines.take(MOST).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

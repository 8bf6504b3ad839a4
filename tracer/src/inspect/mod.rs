//! From a binary to a probe plan. Pure: bytes in, plan out.
//!
//! A [`ProbePlan`] says where to attach, what a hit there means and how to read the arguments, for prost functions, decode
//! errors, panics, libc socket functions, USDT probes and thread-local variables. What cannot be probed is a [`Remark`] with
//! the build flag that would change it.
//!
//! The file may be hostile or huge: sections are read when needed, `.debug_*` in pieces, and every step has a bound.
//!
//! ```no_run
//! let plan = tracer::inspect::inspect_file("/usr/bin/service".as_ref())?;
//! for function in &plan.messages {
//!     println!("{} of {:?} at {:#x}", function.operation.name(), function.message_type, function.entry.offset);
//! }
//! # Ok::<(), tracer::inspect::InspectError>(())
//! ```

mod code;
mod dwarf;
mod elf;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod inlined;
mod plan;
mod prost;
mod runtime;

use std::fs::File;
use std::path::{Path, PathBuf};

use object::ReadCache;
use serde::{Deserialize, Serialize};

use crate::files;
use elf::debug_data::{self, DebugData};
use elf::debug_file::{self, Elsewhere};
use elf::image::Image;
use elf::notes;
use elf::relocations::Relocations;
use elf::source::ReadAt as _;
use elf::symbols::Symbols;
use error::Fault;
use plan::remarks;
use prost::messages::{self, Catalog};
use prost::{layout, unseen};
use runtime::{grpc, redis_packing, sockets, spawns, tls};

pub use elf::loader::loaded_offset;
pub use error::InspectError;
pub use plan::limits::{Limit, Limits};
pub use plan::render;
pub use plan::{
    CallPlace, ExitKind, FunctionEntry, MessageFn, Operation, PackFn, ProbePlan, Remark, RemarkKind, Semaphore, Site,
    SocketFn, SymbolSource, TlsSymbol, TlsSymbols, TypeSource, UsdtNote,
};

/// Plans the probes of a file, with its debug info where that was split off.
///
/// # Errors
/// If the file cannot be read, or is not an executable or shared object for x86-64.
pub fn inspect_file(path: &Path) -> Result<ProbePlan, InspectError> {
    inspect_open(&open_file(path)?, path)
}

/// The same of a file that is open already; its debug info is looked for where `path` says that it is.
///
/// # Errors
/// As [`inspect_file`].
pub fn inspect_open(file: &File, path: &Path) -> Result<ProbePlan, InspectError> {
    let (cache, file) = twice(file, path)?;
    let first = Image::parse(&cache, &file).map_err(|fault| fault.at(path))?;
    let (parts, mini) = (split_off(path, &first), debug_data::read(&first));
    let debug = parts.as_ref().and_then(|(cache, file)| Image::parse(cache, file).ok());
    let image = Image::parse(&cache, &file).map_err(|fault| fault.at(path))?;
    Ok(inspect(&image, debug.as_ref(), &mini, Elsewhere { program: Some(path) }))
}

/// The file with what a file lacks of debug info and symbols.
fn split_off(path: &Path, image: &Image<'_>) -> Option<(ReadCache<File>, File)> {
    if image.has(b".debug_info") && image.has(b".symtab") {
        return None;
    }
    debug_file::candidates(path, image).into_iter().find_map(|candidate| {
        let (cache, file) = open(&candidate).ok()?;
        let belongs = Image::parse(&cache, &file).is_ok_and(|debug| debug_file::belongs(image, &debug, &file));
        belongs.then_some((cache, file))
    })
}

/// Plans the probes of a file's content; `path` is only for messages.
///
/// # Errors
/// As [`inspect_file`].
pub fn inspect_bytes(bytes: &[u8], path: &Path) -> Result<ProbePlan, InspectError> {
    let mini = debug_data::read(&Image::parse(bytes, &bytes).map_err(|fault| fault.at(path))?);
    let image = Image::parse(bytes, &bytes).map_err(|fault| fault.at(path))?;
    Ok(inspect(&image, None, &mini, Elsewhere { program: None }))
}

/// What tells a file from another one, without looking at its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The GNU build-id in hexadecimal digits.
    pub build_id: String,
    /// Size in bytes.
    pub size: u64,
    /// The file with its debug info if that was split off, with its size in bytes.
    pub debug: Option<(PathBuf, u64)>,
    /// The package with the entries of its split units, with its size in bytes.
    pub package: Option<(PathBuf, u64)>,
}

/// Says which file it is; none if it has no build-id.
///
/// # Errors
/// As [`inspect_file`].
pub fn identity(file: &File, path: &Path) -> Result<Option<Identity>, InspectError> {
    let (cache, file) = twice(file, path)?;
    let image = Image::parse(&cache, &file).map_err(|fault| fault.at(path))?;
    let Some(build_id) = notes::build_id(&image).map(hex::encode) else { return Ok(None) };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let existing = |path: PathBuf| files::size(&path).map(|size| (path, size));
    let debug = debug_file::candidates(path, &image).into_iter().find_map(existing);
    let package = debug_file::package_path(path).and_then(existing);
    Ok(Some(Identity { build_id, size, debug, package }))
}

/// The code around every site of a plan: what a plan that was kept must still find in the file.
///
/// # Errors
/// As [`inspect_file`]. None if a site is not where its address says, or not in executable memory.
pub fn code_at_sites(file: &File, path: &Path, plan: &ProbePlan) -> Result<Option<Vec<u8>>, InspectError> {
    const AROUND: u64 = 16;
    let (cache, file) = twice(file, path)?;
    let image = Image::parse(&cache, &file).map_err(|fault| fault.at(path))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut code = Vec::new();
    for site in plan.sites() {
        if image.code_offset(site.address) != Some(site.offset) || site.offset >= size {
            return Ok(None);
        }
        let mut bytes = [0; AROUND as usize];
        let some = &mut bytes[..(size - site.offset).min(AROUND) as usize];
        if !file.read_at(site.offset, some) {
            return Ok(None);
        }
        code.extend(bytes);
    }
    let placed = |semaphore: &Semaphore| image.file_offset(semaphore.address) == Some(semaphore.offset);
    Ok(plan.notes.iter().filter_map(|note| note.semaphore.as_ref()).all(placed).then_some(code))
}

/// Opens a file for [`twice`].
fn open(path: &Path) -> Result<(ReadCache<File>, File), InspectError> {
    twice(&open_file(path)?, path)
}

/// Opens a file without waiting for anybody.
fn open_file(path: &Path) -> Result<File, InspectError> {
    files::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::InvalidInput => Fault::NotElf.at(path),
        _ => InspectError::Io { path: path.to_owned(), source },
    })
}

/// The same file twice: what is kept of it is read through the cache.
fn twice(file: &File, path: &Path) -> Result<(ReadCache<File>, File), InspectError> {
    let again = || file.try_clone().map_err(|source| InspectError::Io { path: path.to_owned(), source });
    // Not mapped: a file that somebody truncates while it is mapped kills the reader with SIGBUS.
    Ok((ReadCache::new(again()?), again()?))
}

fn inspect<'a>(
    image: &Image<'a>,
    debug: Option<&Image<'a>>,
    mini: &'a DebugData,
    elsewhere: Elsewhere<'_>,
) -> ProbePlan {
    let symbols = Symbols::read(image, debug, mini);
    let catalog = Catalog::read(&symbols);
    let relocations = Relocations::read(image, &symbols, &catalog.wanted());
    let producers = producers(image);
    let compiler_known = !producers.is_empty() && producers.iter().all(|producer| layout::known_compiler(producer));
    let producer = producers.into_iter().next();
    let with_dwarf = [Some(image), debug].into_iter().flatten().find(|image| image.has(b".debug_info"));
    let mut plan = ProbePlan {
        build_id: notes::build_id(image),
        stripped: symbols.source == SymbolSource::Dynamic,
        symbols: symbols.source,
        has_dwarf: with_dwarf.is_some(),
        code_start: image.code_start(),
        is_rust: producer.is_some() || !catalog.panics.is_empty() || catalog.has_prost,
        static_exe: image.program && !image.interpreter,
        producer,
        notes: notes::usdt(image),
        tls: tls::tls(image, &symbols, &relocations),
        ..ProbePlan::default()
    };
    let inlined = with_dwarf.map(|image| dwarf::inlined_calls(image, elsewhere)).unwrap_or_default();
    remarks::split(&inlined.missing, &mut plan);
    messages::plan(image, &symbols, &relocations, &catalog, compiler_known, inlined, &mut plan);
    redis_packing::plan(image, &symbols, &relocations, compiler_known, &mut plan);
    plan.grpc_calls = grpc::calls(image, &symbols, &mut plan.remarks);
    // Of any use only where a task is known again.
    if plan.tls.task_id_offset.is_some() {
        plan.spawns = spawns::spawns(image, &symbols, &mut plan.remarks);
    }
    plan.sockets = sockets::sockets(image, &symbols, plan.static_exe, &mut plan.remarks);
    let unseen = unseen::callers(image, &symbols, &relocations, &plan);
    remarks::add(&symbols, &catalog, &unseen, compiler_known, &mut plan);
    plan
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

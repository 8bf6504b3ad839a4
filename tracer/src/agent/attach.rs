//! Attached files: which probes are where, once per file (and per process where only numbers were asked for).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracer_common::map::{Cookie, Executable, MAX_PROBES, Place, Probe, TLS_NONE, TLS_STATIC, Target, Tls};

use super::plans::Plans;
use super::{Sink, usdt};
use crate::capture::{Item, ProbeInfo};
use crate::inspect::{InspectError, MessageFn, ProbePlan, Site, TlsSymbol};
use crate::probe::{Link, LinkError, LoadError, Programs};
use crate::target::{MappedFile, Process};
use crate::trace::packs::PACK;

/// Why a file was not attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It could not be read as a program.
    #[error("cannot inspect {path}")]
    Inspect {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: InspectError,
    },
    /// It is not there.
    #[error("cannot read the program")]
    Read(#[from] std::io::Error),
    /// The kernel refused.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The programs are not there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The table of probes is full.
    #[error("more than {MAX_PROBES} prost functions are probed already; trace fewer programs at once")]
    TooMany,
}

/// What was attached for a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached {
    /// prost functions.
    pub functions: usize,
    /// Probe sites.
    pub sites: usize,
    /// It has the shim, whose spans replace those of prost calls.
    pub with_shim: bool,
    /// Where threads publish their active context.
    pub thread_context: Tls,
    /// Where tokio keeps what is current on a thread, and the offset of the task's id in it.
    pub tokio_context: (Tls, u32),
    /// The shim's semaphore: its offset in a file, and its address in a process.
    pub semaphore: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    file: (u64, u64),
    pid: Option<u32>,
}

#[derive(Debug, Default)]
struct AttachedFile {
    links: Vec<Link>,
    attached: Attached,
}

impl Drop for Attachments {
    fn drop(&mut self) {
        Link::drop_all(self.files.drain().flat_map(|(_, file)| file.links).collect());
    }
}

/// All attached files.
#[derive(Debug)]
pub struct Attachments {
    files: HashMap<Key, AttachedFile>,
    /// By inode number and the kernel's number of the device.
    watched: HashMap<(u64, u32), PathBuf>,
    next_probe: u32,
    plans: Plans,
    /// Attach to single processes: others that run the same file pay nothing.
    per_process: bool,
}

impl Attachments {
    pub(super) fn new(per_process: bool) -> Self {
        Self { files: HashMap::new(), watched: HashMap::new(), next_probe: 0, plans: Plans::open(), per_process }
    }

    /// Attaches to the executable of a process and to every shared object that it has mapped.
    pub(super) fn process<S: Sink>(
        &mut self,
        process: &Process,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<Attached, AttachError> {
        let mut total = Attached::default();
        for (index, file) in process.mapped_files().into_iter().enumerate() {
            let pid = self.per_process.then_some(process.id.pid);
            match self.attach(&file.path, file.key, pid, programs, sink) {
                Ok(attached) => {
                    total.functions += attached.functions;
                    total.sites += attached.sites;
                    total.with_shim |= attached.with_shim;
                    if total.thread_context.kind == TLS_NONE {
                        total.thread_context = attached.thread_context;
                    }
                    if total.tokio_context.0.kind == TLS_NONE {
                        total.tokio_context = attached.tokio_context;
                    }
                    if index == 0 {
                        total.semaphore = attached.semaphore.and_then(|offset| process.variable(&file, offset));
                    }
                }
                // Without the executable there is nothing to trace; a strange library is passed over.
                Err(error) if index == 0 => return Err(error),
                Err(error) => tracing::warn!("{}: {}", file.shown.display(), super::chain(&error)),
            }
        }
        Ok(total)
    }

    /// Attaches to an executable that is not running yet.
    pub(super) fn file<S: Sink>(
        &mut self,
        file: &MappedFile,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<Attached, AttachError> {
        self.attach(&file.path, file.key, None, programs, sink)
    }

    /// Makes every process that starts this executable a target at once.
    pub(super) fn watch(
        &mut self,
        executable: &MappedFile,
        target: Target,
        programs: &mut Programs,
    ) -> Result<(), AttachError> {
        let (device, inode) = executable.key;
        let device = kernel_device(device);
        if self.watched.insert((inode, device), executable.shown.clone()).is_none() {
            programs.watch_executable(Executable { inode, device, reserved: 0 }, target)?;
        }
        Ok(())
    }

    /// Whether processes that start this executable are targets.
    pub(super) fn watches(&self, executable: &MappedFile) -> bool {
        let (device, inode) = executable.key;
        self.watched.contains_key(&(inode, kernel_device(device)))
    }

    /// Path of a watched executable.
    pub(super) fn watched(&self, inode: u64, device: u32) -> Option<&Path> {
        self.watched.get(&(inode, device)).map(PathBuf::as_path)
    }

    fn attach<S: Sink>(
        &mut self,
        path: &Path,
        file: (u64, u64),
        pid: Option<u32>,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<Attached, AttachError> {
        if let Some(attached) = self.files.get(&Key { file, pid }).or_else(|| self.files.get(&Key { file, pid: None }))
        {
            return Ok(attached.attached);
        }
        let plan = self.plans.plan(path).map_err(|source| AttachError::Inspect { path: path.to_owned(), source })?;
        let mut links = Links { path, inode: file.1, pid, links: Vec::new() };
        let with_shim = usdt::shim_notes(&plan).next().is_some();
        // The shim calls prost itself: its messages would have two spans.
        let messages: &[MessageFn] = if with_shim { &[] } else { &plan.messages };
        self.functions(&plan, messages, &mut links, programs, sink)?;
        for note in usdt::shim_notes(&plan) {
            let offset = usdt::best_offset(path, note);
            let counter = note.semaphore.map(|semaphore| semaphore.offset);
            links.add("shim_span", programs, offset, 0, counter)?;
        }
        let attached = Attached {
            functions: if with_shim { 0 } else { plan.messages.len() },
            with_shim,
            sites: links.links.len(),
            thread_context: place(plan.tls.thread_context.as_ref()),
            semaphore: usdt::shim_notes(&plan).find_map(|note| note.semaphore).map(|semaphore| semaphore.offset),
            tokio_context: match plan.tls.task_id_offset {
                Some(offset) => (place(plan.tls.tokio_context.as_ref()), offset),
                None => <_>::default(),
            },
        };
        self.files.insert(Key { file, pid }, AttachedFile { links: links.links, attached });
        Ok(attached)
    }

    fn functions<S: Sink>(
        &mut self,
        plan: &ProbePlan,
        messages: &[MessageFn],
        links: &mut Links<'_>,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<(), AttachError> {
        if messages.is_empty() && plan.packs.is_empty() {
            return Ok(());
        }
        // Ends before beginnings: a call is never seen to begin without its end being seen.
        let mut entries = Vec::new();
        for function in messages {
            let info = ProbeInfo {
                index: 0,
                operation: function.operation.name().to_owned(),
                message_type: function.message_type.clone(),
                call: function.call.clone(),
            };
            let index = self.probe(function.probe, info, programs, sink)?;
            links.places(plan, programs, index, &function.entry, &function.exits)?;
            links.exits(programs, index, &function.exits)?;
            entries.push((function.entry, index));
        }
        for function in &plan.packs {
            let info = ProbeInfo { index: 0, operation: PACK.to_owned(), message_type: None, call: None };
            let index = self.probe(function.probe, info, programs, sink)?;
            links.places(plan, programs, index, &function.entry, &function.exits)?;
            links.exits(programs, index, &function.exits)?;
            entries.push((function.entry, index));
        }
        for (name, functions) in [("message_error", &plan.errors), ("message_panic", &plan.panics)] {
            for function in functions {
                links.add(name, programs, function.entry.offset, 0, None)?;
            }
        }
        for (entry, probe) in entries {
            links.message("message_entry", programs, probe, &entry)?;
        }
        Ok(())
    }

    /// Says what a function's call means, to the programs and to the sink. Returns the probe's number.
    fn probe<S: Sink>(
        &mut self,
        probe: Probe,
        info: ProbeInfo,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<u32, AttachError> {
        if self.next_probe >= MAX_PROBES {
            return Err(AttachError::TooMany);
        }
        let index = self.next_probe;
        self.next_probe += 1;
        programs.set_probe(index, probe)?;
        sink.item(&Item::Probe(ProbeInfo { index, ..info }));
        Ok(index)
    }
}

struct Links<'a> {
    path: &'a Path,
    inode: u64,
    pid: Option<u32>,
    links: Vec<Link>,
}

impl Links<'_> {
    /// Tells the programs what the sites of a function mean, if links cannot.
    fn places(
        &self,
        plan: &ProbePlan,
        programs: &mut Programs,
        probe: u32,
        entry: &Site,
        exits: &[Site],
    ) -> Result<(), AttachError> {
        for site in exits.iter().chain([entry]) {
            let offset = site.address.wrapping_sub(plan.code_start);
            let cookie = Cookie { probe, sp_delta: site.sp_delta };
            programs.set_place(Place { inode: self.inode, offset }, cookie)?;
        }
        Ok(())
    }

    fn exits(&mut self, programs: &Programs, probe: u32, exits: &[Site]) -> Result<(), AttachError> {
        exits.iter().try_for_each(|exit| self.message("message_exit", programs, probe, exit))
    }

    fn message(&mut self, name: &'static str, programs: &Programs, probe: u32, site: &Site) -> Result<(), AttachError> {
        self.add(name, programs, site.offset, Cookie { probe, sp_delta: site.sp_delta }.pack(), None)
    }

    fn add(
        &mut self,
        name: &'static str,
        programs: &Programs,
        offset: u64,
        cookie: u64,
        counter: Option<u64>,
    ) -> Result<(), AttachError> {
        let program = programs.uprobe(name)?;
        self.links.push(Link::uprobe(program, self.path, offset, cookie, self.pid, counter)?);
        Ok(())
    }
}

/// Where the threads of an executable have a variable. Those of shared objects have no fixed place.
fn place(variable: Option<&TlsSymbol>) -> Tls {
    let offset = variable.and_then(|variable| variable.static_offset);
    offset.map_or_else(Tls::default, |offset| Tls { kind: TLS_STATIC, module: 0, offset })
}

/// The kernel's device number (`MKDEV`: 12 bits major, 20 bits minor) from that of `stat`.
fn kernel_device(device: u64) -> u32 {
    (libc::major(device) << 20) | (libc::minor(device) & 0xf_ffff)
}

//! Attached files: which probes are where, once per file (and per process where only numbers were asked for).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracer_common::map::{Cookie, Executable, MAX_PROBES, TLS_NONE, TLS_STATIC, Target, Tls};

use super::plans::Plans;
use super::{Sink, usdt};
use crate::capture::{Item, ProbeInfo};
use crate::inspect::{InspectError, ProbePlan};
use crate::probe::{Link, LinkError, LoadError, Programs};
use crate::target::{MappedFile, Process};

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
        let mut links = Links { path, pid, links: Vec::new() };
        let with_shim = usdt::shim_notes(&plan).next().is_some();
        if !with_shim {
            // The shim calls prost itself: its messages would have two spans.
            self.messages(&plan, &mut links, programs, sink)?;
        }
        for note in usdt::shim_notes(&plan) {
            let offset = usdt::best_offset(path, note);
            let counter = note.semaphore.map(|semaphore| semaphore.offset);
            links.add("shim_span", programs, offset, 0, counter)?;
        }
        let attached = Attached {
            functions: if with_shim { 0 } else { plan.messages.len() },
            with_shim,
            sites: links.links.len(),
            thread_context: thread_context(&plan),
        };
        self.files.insert(Key { file, pid }, AttachedFile { links: links.links, attached });
        Ok(attached)
    }

    fn messages<S: Sink>(
        &mut self,
        plan: &ProbePlan,
        links: &mut Links<'_>,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<(), AttachError> {
        if plan.messages.is_empty() {
            return Ok(());
        }
        // Ends before beginnings: a call is never seen to begin without its end being seen.
        let mut entries = Vec::new();
        for function in &plan.messages {
            if self.next_probe >= MAX_PROBES {
                return Err(AttachError::TooMany);
            }
            let index = self.next_probe;
            self.next_probe += 1;
            programs.set_probe(index, function.probe)?;
            sink.item(&Item::Probe(ProbeInfo {
                index,
                operation: function.operation.name().to_owned(),
                message_type: function.message_type.clone(),
                call: function.call.clone(),
            }));
            for exit in &function.exits {
                let cookie = Cookie { probe: index, sp_delta: exit.sp_delta };
                links.add("message_exit", programs, exit.offset, cookie.pack(), None)?;
            }
            let entry = &function.entry;
            entries.push((entry.offset, Cookie { probe: index, sp_delta: entry.sp_delta }));
        }
        for (name, functions) in [("message_error", &plan.errors), ("message_panic", &plan.panics)] {
            for function in functions {
                links.add(name, programs, function.entry.offset, 0, None)?;
            }
        }
        for (offset, cookie) in entries {
            links.add("message_entry", programs, offset, cookie.pack(), None)?;
        }
        Ok(())
    }
}

struct Links<'a> {
    path: &'a Path,
    pid: Option<u32>,
    links: Vec<Link>,
}

impl Links<'_> {
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

/// Where the threads of an executable publish their context. Shared objects have no fixed place.
fn thread_context(plan: &ProbePlan) -> Tls {
    let offset = plan.tls.thread_context.as_ref().and_then(|symbol| symbol.static_offset);
    offset.map_or_else(Tls::default, |offset| Tls { kind: TLS_STATIC, module: 0, offset })
}

/// The kernel's device number (`MKDEV`: 12 bits major, 20 bits minor) from that of `stat`.
fn kernel_device(device: u64) -> u32 {
    (libc::major(device) << 20) | (libc::minor(device) & 0xf_ffff)
}

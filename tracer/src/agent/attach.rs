//! Attached files: which probes are where, once per file (and per process where only numbers were asked for).
//!
//! A file is opened once, guarded ([`super::guard`]), planned by another thread ([`super::planner`]) and attached to when the
//! plan is there. It is given up with its probes, their numbers and its descriptor when the last process that maps it has
//! ended, or when it is written to.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracer_common::map::{Cookie, Executable, Place, TARGET_IF_FOLLOWED, TLS_NONE, TLS_STATIC, Target, Tls};

use super::guard::{Guard, GuardedFile};
use super::numbers::Numbers;
use super::planner::Planner;
use super::plans::Plans;
use super::sites::{Function, Sites};
use super::target_file::{Key, Stage, TargetFile, Watched};
use super::{Sink, usdt};
use crate::capture::Item;
use crate::inspect::{self, InspectError, Limits, MessageFn, ProbePlan, TlsSymbol};
use crate::model::{CallOf, ProbeInfo};
use crate::probe::{LinkTarget, LoadError, Programs, Site, descriptors};
use crate::target::{MappedFile, Process, ProcessError, is_loader};

/// How often files are looked at of which nothing was heard.
const TIDY_EVERY: Duration = Duration::from_millis(250);

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
    /// Another process writes to it.
    #[error("{0} was written to while it was inspected; it is inspected again when a process runs it")]
    Changed(PathBuf),
    /// It was said before why.
    #[error("{0} cannot be inspected, as was said when a process ran it first")]
    Again(PathBuf),
    /// The programs are not there.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What was attached for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// prost functions.
    pub functions: usize,
    /// Probe sites.
    pub sites: usize,
    /// Of these, the ones in dynamic loaders, which tell of libraries.
    pub loads: usize,
    /// It has the shim, whose spans replace those of prost calls.
    pub with_shim: bool,
    /// Where threads publish their active context.
    pub thread_context: Tls,
    /// Where tokio keeps what is current on a thread, and the offset of the task's id in it.
    pub tokio_context: (Tls, u32),
    /// The shim's semaphore in the executable: its offset in the file.
    pub semaphore: Option<u64>,
    /// What cannot be seen.
    pub limits: Limits,
}

/// All attached files.
#[derive(Debug)]
pub struct Attachments {
    files: HashMap<Key, TargetFile>,
    numbers: Numbers,
    guard: Guard,
    tidied: Instant,
    planner: Planner,
    /// Attach to single processes: others that run the same file pay nothing.
    per_process: bool,
    /// Processes that cannot have probes of their own: the kernel ties these to a main thread, and theirs has ended.
    headless: HashSet<u32>,
    /// Sites that could not be attached to.
    missing: u64,
    /// Libraries that could not be read, which was said.
    passed_over: HashSet<(u64, u64)>,
}

impl Attachments {
    pub(super) fn new(per_process: bool, programs: &Programs) -> std::io::Result<Self> {
        Ok(Self {
            files: HashMap::new(),
            numbers: Numbers::new(programs.probe_room()),
            guard: Guard::start()?,
            tidied: Instant::now(),
            planner: Planner::start(Plans::open())?,
            per_process,
            headless: HashSet::new(),
            missing: 0,
            passed_over: HashSet::new(),
        })
    }

    /// Probe sites that could not be attached to, so far.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Has the files of a process planned that are not; the executable is the first.
    pub(super) fn request(
        &mut self,
        pid: u32,
        files: &[MappedFile],
        programs: &mut Programs,
    ) -> Result<(), AttachError> {
        for (index, file) in files.iter().enumerate() {
            let key = self.key(file, pid);
            let opened = self.open(key, file, programs).map(|entry| {
                entry.processes.insert(pid);
                entry.idle = None;
            });
            match opened {
                Ok(()) => {}
                // Without the executable there is nothing to trace; a strange library is passed over.
                Err(error) if index == 0 => return Err(error),
                // It is gone with its process: there is nothing to say about it. Else it is said once.
                Err(_) if is_gone(pid) => {}
                Err(error) if self.passed_over.insert(file.key) => {
                    tracing::warn!("{}: {}", file.shown.display(), super::chain(&error));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Has an executable planned that no process runs yet. Before a session begins nobody knows when one will: then it is left
    /// alone where no lease guards it, and false is returned.
    pub(super) fn expect(
        &mut self,
        file: &MappedFile,
        only_guarded: bool,
        programs: &mut Programs,
    ) -> Result<bool, AttachError> {
        let entry = self.open(Key { file: file.key, pid: None }, file, programs)?;
        entry.expected = !only_guarded || entry.file.is_leased();
        if !entry.expected {
            entry.idle = Some(Instant::now());
        }
        Ok(entry.expected)
    }

    /// What an expected executable is attached at; none while it is planned.
    pub(super) fn expected(&mut self, file: &MappedFile) -> Option<Result<Attached, AttachError>> {
        self.attached(&[file], 0)
    }

    /// Attaches to the files whose plans are ready.
    pub(super) fn attach_planned<S: Sink>(&mut self, programs: &mut Programs, sink: &mut S) {
        while let Some((file, plan)) = self.planner.planned() {
            let same = |entry: &TargetFile| Arc::ptr_eq(&entry.file, &file);
            self.tidy(programs);
            let Some((&key, entry)) = self.files.iter().find(|(_, entry)| same(entry)) else { continue };
            if matches!(entry.stage, Stage::Over) {
                continue;
            }
            let result = match plan {
                Ok(plan) => self.attach(key, &plan, programs, sink),
                Err(source) => Err(AttachError::Inspect { path: self.shown(key), source }),
            };
            if let Some(entry) = self.files.get_mut(&key) {
                entry.stage = match result {
                    Ok(attached) => Stage::Attached(attached),
                    Err(error) => Stage::Failed(Some(error)),
                };
                if !matches!(entry.stage, Stage::Attached(Attached { sites: 1.., .. })) {
                    entry.file.release();
                }
            }
        }
    }

    /// What a process is attached at; none while one of its files is planned.
    pub(super) fn process(&mut self, pid: u32, files: &[MappedFile]) -> Option<Result<Attached, AttachError>> {
        self.attached(&files.iter().collect::<Vec<_>>(), pid)
    }

    fn attached(&mut self, files: &[&MappedFile], pid: u32) -> Option<Result<Attached, AttachError>> {
        let keys: Vec<Key> = files.iter().map(|file| self.key(file, pid)).collect();
        if keys.iter().any(|key| matches!(self.files.get(key), Some(TargetFile { stage: Stage::Planning, .. }))) {
            return None;
        }
        let mut total = Attached::default();
        for (index, (key, file)) in keys.iter().zip(files).enumerate() {
            match self.files.get_mut(key).map(|entry| &mut entry.stage) {
                Some(Stage::Attached(attached)) => {
                    total.functions += attached.functions;
                    total.sites += attached.sites;
                    total.loads += attached.loads;
                    total.with_shim |= attached.with_shim;
                    total.limits.extend(attached.limits);
                    if total.thread_context.kind == TLS_NONE {
                        total.thread_context = attached.thread_context;
                    }
                    if total.tokio_context.0.kind == TLS_NONE {
                        total.tokio_context = attached.tokio_context;
                    }
                    if index == 0 {
                        total.semaphore = attached.semaphore;
                    }
                }
                Some(Stage::Failed(error)) => {
                    let error = error.take();
                    if index == 0 {
                        return Some(Err(error.unwrap_or_else(|| AttachError::Again(file.shown.clone()))));
                    }
                    if let Some(error) = error.filter(|_| !is_gone(pid)) {
                        tracing::warn!("{}: {}", file.shown.display(), super::chain(&error));
                    }
                }
                // It was written to in the meantime, or could not be opened.
                Some(Stage::Planning | Stage::Over) | None if index == 0 => {
                    return Some(Err(AttachError::Changed(file.shown.clone())));
                }
                Some(Stage::Planning | Stage::Over) | None => {}
            }
        }
        Some(Ok(total))
    }

    /// Makes every process that starts this executable a target at once, for as long as the file is kept; with TARGET_IF_FOLLOWED,
    /// descendants of the command.
    pub(super) fn watch(
        &mut self,
        executable: &MappedFile,
        pid: Option<u32>,
        target: Target,
        programs: &mut Programs,
    ) -> Result<(), AttachError> {
        let key = Key { file: executable.key, pid: None };
        let entry = match self.files.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Nothing is attached, but its inode's number must not become that of another file.
            Entry::Vacant(entry) => entry.insert(TargetFile {
                stage: Stage::Attached(Attached::default()),
                ..TargetFile::new(Arc::new(GuardedFile::hold(&executable.path, executable.key)?), executable)
            }),
        };
        match pid {
            Some(pid) => _ = entry.processes.insert(pid),
            None => entry.expected = true,
        }
        let name = programs.identify(executable.locate()?.as_fd())?;
        let known = entry.watched.iter().position(|watched| watched.executable == name);
        let if_followed =
            target.flags & TARGET_IF_FOLLOWED != 0 && known.is_none_or(|index| entry.watched[index].if_followed);
        let only = if if_followed { TARGET_IF_FOLLOWED } else { 0 };
        programs.watch_executable(name, Target { flags: target.flags & !TARGET_IF_FOLLOWED | only, ..target })?;
        let watched = Watched { executable: name, if_followed };
        match known {
            Some(index) => entry.watched[index] = watched,
            None => entry.watched.push(watched),
        }
        Ok(())
    }

    /// Whether whoever starts this executable is a target; it is named as in the record of an exec.
    pub(super) fn watches(&self, inode: u64, device: u32) -> bool {
        self.named(inode, device).is_some_and(|(_, watched)| !watched.if_followed)
    }

    /// Path of a watched executable, and whether its functions are probed.
    pub(super) fn watched(&self, inode: u64, device: u32) -> Option<(&Path, bool)> {
        let (entry, _) = self.named(inode, device)?;
        Some((entry.shown.as_path(), matches!(entry.stage, Stage::Attached(_))))
    }

    /// Whether processes have probes of their own.
    pub(super) fn per_process(&self) -> bool {
        self.per_process
    }

    /// The main thread of a process has ended: it shares its probes with others that run the same files.
    pub(super) fn lost_main_thread(&mut self, pid: u32) {
        self.headless.insert(pid);
    }

    fn named(&self, inode: u64, device: u32) -> Option<(&TargetFile, &Watched)> {
        let name = Executable { inode, device, reserved: 0 };
        self.files.values().find_map(|entry| {
            let watched = entry.watched.iter().find(|watched| watched.executable == name)?;
            Some((entry, watched))
        })
    }

    /// A process has ended, or runs another program now.
    pub(super) fn ended(&mut self, pid: u32, programs: &mut Programs) {
        self.headless.remove(&pid);
        self.numbers.ended(pid);
        for (key, entry) in &mut self.files {
            if entry.processes.remove(&pid) && entry.processes.is_empty() {
                entry.idle = Some(Instant::now());
                // Probes of one process are no good for what it runs now: after an exec in another thread than the main one the
                // kernel does not know them as its own.
                entry.over_with_process |= key.pid == Some(pid);
            }
        }
        self.tidy(programs);
    }

    /// Everything that was in the ring buffer has been read.
    pub(super) fn drained(&mut self, programs: &mut Programs) {
        if self.guard.has_news() || self.tidied.elapsed() >= TIDY_EVERY {
            self.tidy(programs);
        }
        self.numbers.drained();
    }

    /// Gives up what is not needed, or must not be attached to, any more.
    fn tidy(&mut self, programs: &mut Programs) {
        self.tidied = Instant::now();
        for entry in self.files.values_mut() {
            if entry.file.is_over() && !matches!(entry.stage, Stage::Over) {
                entry.is_written_to(programs);
            }
        }
        let unneeded: Vec<Key> =
            self.files.iter().filter(|(_, entry)| !entry.is_needed()).map(|(key, _)| *key).collect();
        for key in unneeded {
            let Some(entry) = self.files.remove(&key) else { continue };
            for watched in &entry.watched {
                programs.unwatch_executable(watched.executable);
            }
            entry.give_up(&mut self.numbers);
        }
    }

    fn shown(&self, key: Key) -> PathBuf {
        self.files.get(&key).map(|entry| entry.shown.clone()).unwrap_or_default()
    }

    fn key(&self, file: &MappedFile, pid: u32) -> Key {
        let expected = Key { file: file.key, pid: None };
        let single = self.per_process && !self.headless.contains(&pid) && !self.files.contains_key(&expected);
        Key { pid: single.then_some(pid), ..expected }
    }

    /// The file of this key, opened and being planned if it was not known.
    fn open(&mut self, key: Key, file: &MappedFile, programs: &mut Programs) -> Result<&mut TargetFile, AttachError> {
        let entry = self.files.entry(key);
        let entry = match entry {
            Entry::Occupied(entry) if !entry.get().file.is_over() => return Ok(entry.into_mut()),
            // What is known of a file that has been written to is of no use.
            entry => entry,
        };
        let guarded = self.guard.open(&file.path, file.key)?;
        self.planner.plan(&guarded, file.path.clone());
        let mut fresh = TargetFile::new(guarded, file);
        Ok(match entry {
            Entry::Vacant(entry) => entry.insert(fresh),
            Entry::Occupied(mut entry) => {
                entry.get_mut().is_written_to(programs);
                (fresh.watched, fresh.expected) = (entry.get().watched.clone(), entry.get().expected);
                entry.insert(fresh).give_up(&mut self.numbers);
                entry.into_mut()
            }
        })
    }

    fn attach<S: Sink>(
        &mut self,
        key: Key,
        plan: &ProbePlan,
        programs: &mut Programs,
        sink: &mut S,
    ) -> Result<Attached, AttachError> {
        let Some(entry) = self.files.get_mut(&key) else { return Ok(Attached::default()) };
        let with_shim = usdt::shim_notes(plan).next().is_some();
        let mut sites = Sites { room: self.numbers.room(), ..Sites::default() };
        for note in usdt::shim_notes(plan) {
            let offset = usdt::best_offset(entry.file.file(), note);
            let counter = note.semaphore.map(|semaphore| semaphore.offset);
            sites.shim.push(Site { offset, cookie: 0, counter });
        }
        if is_loader(&entry.shown) {
            sites.loads.extend(inspect::loaded_offset(entry.file.file()));
        }
        // The shim calls prost itself: its messages would have two spans.
        let messages: &[MessageFn] = if with_shim { &[] } else { &plan.messages };
        if !messages.is_empty() || !plan.packs.is_empty() {
            sites.errors = plan.errors.iter().map(|function| function.entry.offset).collect();
            sites.grpc_calls = plan.grpc_calls.iter().map(|function| function.entry.offset).collect();
            sites.spawns = plan.spawns.iter().map(|function| function.entry.offset).collect();
            sites.panics = plan.panics.iter().map(|function| function.entry.offset).collect();
        }
        let numbers = &mut entry.numbers;
        let mut function = |probe, info, entry, exits| -> Result<(), AttachError> {
            let (entry, exits): (&inspect::Site, &[inspect::Site]) = (entry, exits);
            let Some(number) = self.numbers.take() else {
                sites.unnumbered += exits.len() + 1;
                return Ok(());
            };
            numbers.push(number);
            programs.set_probe(number, probe)?;
            for site in exits.iter().chain([entry]) {
                let offset = site.address.wrapping_sub(plan.code_start);
                let cookie = Cookie { probe: number, sp_delta: site.sp_delta };
                programs.set_place(Place { inode: key.file.1, offset }, cookie)?;
            }
            sink.item(&Item::Probe(ProbeInfo { index: number, ..info }));
            sites.functions.push(Function { number, entry, exits });
            Ok(())
        };
        for message in messages {
            let info = ProbeInfo {
                index: 0,
                call_of: CallOf::Message(message.operation),
                message_type: message.message_type.clone(),
                call: message.call.clone(),
            };
            function(message.probe, info, &message.entry, &message.exits)?;
        }
        for pack in &plan.packs {
            let info = ProbeInfo { index: 0, call_of: CallOf::RedisPacking, message_type: None, call: None };
            function(pack.probe, info, &pack.entry, &pack.exits)?;
        }
        let programs: &Programs = programs;
        let placed = entry.file.attach(|path| {
            let target = LinkTarget { path, pid: key.pid, descriptors: descriptors::available() };
            match sites.attach(target, programs) {
                Ok(mut placed) => (std::mem::take(&mut placed.links), Ok(placed)),
                Err(error) => (Vec::new(), Err(error)),
            }
        });
        let placed = placed.ok_or_else(|| AttachError::Changed(entry.shown.clone()))??;
        // Of a process that has ended in the meantime nothing is missing.
        if let Some(why) = placed.why.as_ref().filter(|_| !key.pid.is_some_and(is_gone)) {
            let (missing, all) = (placed.missing, sites.len());
            tracing::warn!("{missing} of {all} probe sites of {} are missing: {why}", entry.shown.display());
            self.missing += missing as u64;
        }
        Ok(Attached {
            functions: placed.functions.saturating_sub(plan.packs.len()),
            with_shim,
            limits: plan.limits(),
            sites: placed.sites,
            loads: placed.loads,
            thread_context: place(plan.tls.thread_context.as_ref()),
            semaphore: usdt::shim_notes(plan).find_map(|note| note.semaphore).map(|semaphore| semaphore.offset),
            tokio_context: match plan.tls.task_id_offset {
                Some(offset) => (place(plan.tls.tokio_context.as_ref()), offset),
                None => <_>::default(),
            },
        })
    }
}

/// Whether a process has ended.
fn is_gone(pid: u32) -> bool {
    matches!(Process::read(pid), Err(ProcessError::NotFound(_)))
}

/// Where the threads of an executable have a variable. Those of shared objects have no fixed place.
fn place(variable: Option<&TlsSymbol>) -> Tls {
    let offset = variable.and_then(|variable| variable.static_offset);
    offset.map_or_else(Tls::default, |offset| Tls { kind: TLS_STATIC, module: 0, offset })
}

//! Attached files are guarded: a breakpoint must never meet text that it was not planned for.
//!
//! The kernel puts breakpoints at the same offsets of a file whenever it is mapped, whatever the file holds by then. So each
//! attached file has a read lease: who opens it for writing, or truncates it, waits in the kernel until the agent has
//! detached and given the lease up, which takes milliseconds. (Who asks not to wait, with `O_NONBLOCK`, is told EAGAIN once.)
//! The kernel gives no lease of a file that is open for writing, so nobody can have begun before.
//!
//! Some file systems have no leases, and files of others need CAP_LEASE. Then inotify says that a file was written to, which
//! is after the fact: its probes go as soon as the agent runs, and when the last process of the file ends.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use crate::files;
use crate::probe::Link;

/// The files that are guarded, and the thread that does it: it must not wait for anything that the agent does.
#[derive(Debug)]
pub struct Guard {
    files: Arc<Mutex<Vec<Weak<GuardedFile>>>>,
    /// None where the kernel gives none: then only leases protect.
    inotify: Option<Arc<OwnedFd>>,
    /// A file was detached since this was asked.
    news: Arc<AtomicBool>,
}

/// A file that was opened once: what is read of it and what is attached to are the same.
#[derive(Debug)]
pub struct GuardedFile {
    links: Mutex<Vec<Link>>,
    file: File,
    stamp: Stamp,
    /// The kernel makes others wait before they write.
    leased: AtomicBool,
    /// Somebody is writing to it, or has: nothing is attached any more, or will not be in a moment.
    over: AtomicBool,
    /// Number of the inotify watch, negative if there is none.
    watch: AtomicI32,
    inotify: Option<Arc<OwnedFd>>,
    /// Dropped last: who holds another one can tell that nothing is attached any more.
    presence: Arc<()>,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { size: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

impl Guard {
    /// Starts the thread; it ends with the process.
    pub fn start() -> io::Result<Self> {
        let (signals, sender) = UnixStream::pair()?;
        // The kernel's word for a lease that somebody waits for.
        signal_hook::low_level::pipe::register(libc::SIGIO, sender)?;
        signals.set_nonblocking(true)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map(Arc::new).ok();
        let guard = Self { files: Arc::default(), inotify, news: Arc::default() };
        let (files, inotify, news) = (Arc::clone(&guard.files), guard.inotify.clone(), Arc::clone(&guard.news));
        std::thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || watch(&signals, inotify.as_deref(), &files, &news))?;
        Ok(guard)
    }

    /// Whether files may have been detached since this was asked last.
    pub fn has_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    /// Opens a file that has these numbers of device and inode, and guards it from here on.
    ///
    /// # Errors
    /// When it cannot be read, is another file or none that can be a program, or is being written to.
    pub fn open(&self, path: &Path, key: (u64, u64)) -> io::Result<Arc<GuardedFile>> {
        let file = open(path, key)?;
        let leased = match set_lease(&file, libc::F_RDLCK) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other("another process has it open for writing"));
            }
            Err(_) => false,
        };
        let guarded = Arc::new(GuardedFile::new(file, leased, self.inotify.clone().filter(|_| !leased))?);
        let mut files = lock(&self.files);
        files.retain(|file| file.strong_count() > 0);
        files.push(Arc::downgrade(&guarded));
        drop(files);
        // Whoever came between the lease and the list has had his signal already.
        guarded.look();
        if let Some(inotify) = &guarded.inotify {
            let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CLOSE_WRITE;
            if let Ok(number) = inotify::add_watch(inotify, guarded.path(), flags) {
                guarded.watch.store(number, Ordering::Relaxed);
            }
        }
        Ok(guarded)
    }
}

/// Opens a file without waiting for anybody, and checks that it is the one that is meant.
pub fn open(path: &Path, key: (u64, u64)) -> io::Result<File> {
    let located = files::locate(path)?;
    if files::identity(&located)? != key {
        return Err(io::Error::other("another file has taken its place"));
    }
    files::readable(&located)
}

impl GuardedFile {
    fn new(file: File, leased: bool, inotify: Option<Arc<OwnedFd>>) -> io::Result<Self> {
        Ok(Self {
            links: Mutex::default(),
            stamp: Stamp::of(&file)?,
            file,
            leased: AtomicBool::new(leased),
            over: AtomicBool::new(false),
            watch: AtomicI32::new(-1),
            inotify,
            presence: Arc::default(),
        })
    }

    /// A file that nothing is attached to. While it is held, no other file is given its inode's number.
    ///
    /// # Errors
    /// As [`Guard::open`].
    pub fn hold(path: &Path, key: (u64, u64)) -> io::Result<Self> {
        Self::new(open(path, key)?, false, None)
    }

    /// The file, to be read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A path to this very file, whatever has become of its name.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether nobody can write to it before its probes are gone.
    pub fn is_leased(&self) -> bool {
        self.leased.load(Ordering::Relaxed)
    }

    /// Nothing is attached to it and nothing will be: others may write to it without waiting.
    pub fn release(&self) {
        if self.leased.swap(false, Ordering::Relaxed) {
            let _ = set_lease(&self.file, libc::F_UNLCK);
        }
    }

    /// Whether it has a name still.
    pub fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether it has been written to since it was opened, or is about to be.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.is_disturbed()
    }

    /// Exists for as long as something may be attached to the file.
    pub fn presence(&self) -> Arc<()> {
        Arc::clone(&self.presence)
    }

    /// Attaches to it by `make`, unless it has changed; what was attached while it changed is detached again.
    pub fn attach<T>(&self, make: impl FnOnce(&Path) -> (Vec<Link>, T)) -> Option<T> {
        let mut attached = lock(&self.links);
        if self.is_over() {
            return None;
        }
        let (links, made) = make(&self.path());
        attached.extend(links);
        drop(attached);
        // Whoever wants to write waits for this.
        if self.is_over() {
            self.end();
            return None;
        }
        Some(made)
    }

    /// Detaches if somebody writes to the file or wants to.
    fn look(&self) {
        if self.is_disturbed() {
            self.end();
        }
    }

    fn is_disturbed(&self) -> bool {
        if self.is_leased() {
            // While somebody waits this says what the lease is to become.
            // SAFETY: the call takes no pointer; the descriptor is ours.
            return unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) } != libc::F_RDLCK;
        }
        !Stamp::of(&self.file).is_ok_and(|stamp| stamp == self.stamp)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        let mut links = lock(&self.links);
        Link::drop_all(std::mem::take(&mut links));
        if self.is_leased() {
            // It may be gone already: whoever waited did so for longer than the kernel lets him wait.
            let _ = set_lease(&self.file, libc::F_UNLCK);
        }
    }
}

impl Drop for GuardedFile {
    fn drop(&mut self) {
        Link::drop_all(std::mem::take(self.links.get_mut().unwrap_or_else(PoisonError::into_inner)));
        let watch = self.watch.load(Ordering::Relaxed);
        if let (Some(inotify), true) = (&self.inotify, watch >= 0) {
            // It goes with the file if that is gone.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }
}

fn set_lease(file: &File, kind: i32) -> io::Result<()> {
    // SAFETY: the call takes no pointer; the descriptor is ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread: waits until somebody wants to write, or has written, and has the file detached.
fn watch(signals: &UnixStream, inotify: Option<&OwnedFd>, files: &Mutex<Vec<Weak<GuardedFile>>>, news: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    loop {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(inotify.map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        // An interrupted call is one more look.
        let _ = poll(&mut fds, None);
        let mut signals = signals;
        while signals.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        let mut modified = HashSet::new();
        if let Some(inotify) = inotify {
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            while let Ok(event) = reader.next() {
                modified.insert(event.wd());
            }
        }
        let all: Vec<Arc<GuardedFile>> = lock(files).iter().filter_map(Weak::upgrade).collect();
        for file in all {
            if modified.contains(&file.watch.load(Ordering::Relaxed)) {
                file.end();
            }
            file.look();
        }
        news.store(true, Ordering::Relaxed);
    }
}

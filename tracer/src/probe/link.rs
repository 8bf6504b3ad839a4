//! Attaching a program to one place in a file, through a perf event.
//!
//! aya's own attach has no reference counter (USDT semaphore), so the two system calls are made here. Links, and cookies with
//! them, need Linux 5.15; before that, a program is given to the event itself. `uprobe_multi` (6.6) would be quicker to detach, but aya 0.14 cannot load programs for it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Why a probe was not attached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel has no uprobe perf events.
    #[error("the kernel has no uprobes ({PMU}): a kernel with CONFIG_UPROBE_EVENTS=y is needed")]
    NoUprobes(#[source] io::Error),
    /// `perf_event_open` refused.
    #[error("perf_event_open of a uprobe at {path}+{offset:#x} failed")]
    Open {
        /// File to be probed.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `bpf(BPF_LINK_CREATE)` refused.
    #[error("bpf(BPF_LINK_CREATE) for a uprobe at {path}+{offset:#x} failed")]
    Create {
        /// File to be probed.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

const PMU: &str = "/sys/bus/event_source/devices/uprobe/type";

/// `struct perf_event_attr` up to version 5 (112 bytes); the fields that uprobes use have names.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    /// Offset of the reference counter in the upper half.
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// Path of the file.
    config1: u64,
    /// Offset in the file.
    config2: u64,
    rest: [u64; 5],
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads.
#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
    rest: [u64; 4],
}

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PERF_EVENT: u32 = 41;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// An attached probe; dropping it detaches.
#[derive(Debug)]
pub struct Link {
    // Dropped first: the program stops before the breakpoint goes. None where the event owns the program.
    _link: Option<OwnedFd>,
    _event: OwnedFd,
}

impl Link {
    /// Attaches `program` at `offset` of the file at `path`, for one process or for all.
    ///
    /// `counter` is the file offset of a 16-bit reference counter that the kernel raises while the probe is there.
    pub fn uprobe(
        program: BorrowedFd<'_>,
        path: &Path,
        offset: u64,
        cookie: u64,
        pid: Option<u32>,
        counter: Option<u64>,
    ) -> Result<Self, LinkError> {
        let kind = fs::read_to_string(PMU)
            .and_then(|text| text.trim().parse().map_err(io::Error::other))
            .map_err(LinkError::NoUprobes)?;
        let failed = |source| LinkError::Open { path: path.to_owned(), offset, source };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(io::Error::other(error)))?;
        let attr = PerfEventAttr {
            kind,
            size: size_of::<PerfEventAttr>() as u32,
            config: counter.unwrap_or(0) << 32,
            config1: name.as_ptr() as u64,
            config2: offset,
            ..PerfEventAttr::default()
        };
        let (pid, cpu) = match pid {
            Some(pid) => (pid as libc::pid_t, -1),
            None => (-1, 0),
        };
        // SAFETY: `attr` and `name` live through the call, which reads them only.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC) };
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let attr = LinkCreateAttr {
            program: program.as_raw_fd() as u32,
            target: event.as_raw_fd() as u32,
            attach_type: BPF_PERF_EVENT,
            cookie,
            ..LinkCreateAttr::default()
        };
        // SAFETY: `attr` lives through the call, which reads it only.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attr, size_of::<LinkCreateAttr>()) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            // The answer of a kernel that has no links for perf events.
            if source.raw_os_error() == Some(libc::EINVAL) && give(&event, program).is_ok() {
                return Ok(Self { _link: None, _event: event });
            }
            return Err(LinkError::Create { path: path.to_owned(), offset, source });
        }
        // SAFETY: as above.
        Ok(Self { _link: Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }), _event: event })
    }

    /// Detaches many. Each detach waits for the kernel's RCU, so they wait together.
    pub fn drop_all(mut links: Vec<Self>) {
        const THREADS: usize = 64;
        let share = links.len().div_ceil(THREADS).max(1);
        std::thread::scope(|scope| {
            while !links.is_empty() {
                let part = links.split_off(links.len().saturating_sub(share));
                scope.spawn(move || drop(part));
            }
        });
    }
}

/// Gives the program to the event, which keeps it.
fn give(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    // _IOW('$', 8, u32)
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // SAFETY: both descriptors are open, and the argument is a number.
    match unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! Attaching a program to places in a file.
//!
//! Linux 6.6 has `uprobe_multi`: one link for all places of a file, which costs one descriptor and detaches at once. Before that
//! each place has a perf event and a link: two descriptors, and each detach waits for the kernel.
//!
//! A hit costs the same either way: with 61 sites on Linux 6.18, medians of 2.88 and 12.4 us for an encode and a decode by one
//! link for all, 3.00 and 12.5 us by perf events. Ending that session took 0.4 s against 8.3 s, on a busy machine.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Why a place was not attached to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Perf events need two descriptors for each place.
    #[error("the limit of descriptors is reached: raise the hard limit (`ulimit -Hn`, LimitNOFILE= of a systemd unit)")]
    Descriptors,
    /// `perf_event_open` refused.
    #[error("perf_event_open of a uprobe at offset {offset:#x} failed")]
    Open {
        /// Offset in the file.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `bpf(BPF_LINK_CREATE)` refused.
    #[error("bpf(BPF_LINK_CREATE) for a uprobe at offset {offset:#x} failed")]
    Create {
        /// Offset in the file.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl LinkError {
    /// Whether another place may still be attached to: what is wrong is this place.
    fn concerns_the_site(&self) -> bool {
        let (Self::Open { source, .. } | Self::Create { source, .. }) = self else { return false };
        !matches!(
            source.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EPERM | libc::EACCES | libc::ENOSPC | libc::ESRCH)
        )
    }
}

/// A place to attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Offset in the file.
    pub offset: u64,
    /// What the program is told at each hit.
    pub cookie: u64,
    /// File offset of a 16-bit reference counter (USDT semaphore) that the kernel raises while the probe is there.
    pub counter: Option<u64>,
}

/// A program to attach.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
    /// What it was loaded for.
    pub way: Way,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By one `uprobe_multi` link for all sites.
    Multi,
    /// By perf events of this kind, one for each site.
    Events(u32),
}

/// Attached probes; dropping it detaches.
#[derive(Debug)]
pub enum Link {
    /// Many places.
    Multi(OwnedFd),
    /// One place. The link is dropped first: the program stops before the breakpoint goes.
    Event(Option<OwnedFd>, OwnedFd),
}

/// What came of attaching a program to some sites.
#[derive(Debug, Default)]
pub struct Attached {
    /// Dropping them detaches.
    pub links: Vec<Link>,
    /// The places, by their position in the list, that could not be attached to.
    pub failed: Vec<usize>,
    /// Why the first of them could not be.
    pub error: Option<LinkError>,
}

/// Where a list of sites is attached.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The file.
    pub path: &'a Path,
    /// Only this process.
    pub pid: Option<u32>,
    /// Descriptors that may be used.
    pub descriptors: usize,
}

impl Link {
    /// Attaches a program to as many of the sites as can be: one that fails does not cost the others.
    pub fn attach(program: Program<'_>, target: &Target<'_>, sites: &[Site]) -> Attached {
        let mut attached = Attached::default();
        match program.way {
            Way::Multi => split(program, target, sites, 0, &mut attached),
            Way::Events(kind) => one_by_one(kind, program, target, sites, &mut attached),
        }
        attached
    }

    /// Detaches many. Each takes its breakpoints out and then waits for the kernel's RCU, so they do it side by side.
    pub fn drop_all(mut links: Vec<Self>) {
        const THREADS: usize = 64;
        let share = links.len().div_ceil(THREADS).max(1);
        std::thread::scope(|scope| {
            while links.len() > share {
                let part = links.split_off(links.len() - share);
                scope.spawn(move || drop(part));
            }
            drop(links);
        });
    }
}

/// Attaches with one link; if the kernel refuses, finds the bad sites by halves.
fn split(program: Program<'_>, target: &Target<'_>, sites: &[Site], first: usize, attached: &mut Attached) {
    if sites.is_empty() {
        return;
    }
    let failed = |attached: &mut Attached, error| {
        attached.failed.extend(first..first + sites.len());
        attached.error.get_or_insert(error);
    };
    match multi(program.fd, target.path, sites, target.pid) {
        Ok(link) => attached.links.push(link),
        // A kernel that refuses so much will not take the rest.
        Err(error) if sites.len() == 1 || !error.concerns_the_site() || attached.failed.len() >= MAX_BAD_SITES => {
            failed(attached, error);
        }
        Err(_) => {
            let (left, right) = sites.split_at(sites.len() / 2);
            split(program, target, left, first, attached);
            split(program, target, right, first + left.len(), attached);
        }
    }
}

/// Bad sites of a file that are looked for one by one.
const MAX_BAD_SITES: usize = 64;

fn one_by_one(kind: u32, program: Program<'_>, target: &Target<'_>, sites: &[Site], attached: &mut Attached) {
    let mut over = false;
    for (index, site) in sites.iter().enumerate() {
        let result = match over {
            true => None,
            false if 2 * (attached.links.len() + 1) > target.descriptors => Some(Err(LinkError::Descriptors)),
            false => Some(event(kind, program.fd, target.path, site, target.pid)),
        };
        match result {
            Some(Ok(link)) => attached.links.push(link),
            Some(Err(error)) => {
                over = !error.concerns_the_site();
                attached.failed.push(index);
                attached.error.get_or_insert(error);
            }
            None => attached.failed.push(index),
        }
    }
}

/// The number by which this kernel knows uprobes among its perf events.
pub(super) fn event_kind() -> io::Result<u32> {
    fs::read_to_string(PMU)?.trim().parse().map_err(io::Error::other)
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

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads for a perf event.
#[repr(C)]
#[derive(Default)]
struct EventLinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
    rest: [u64; 4],
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads for `uprobe_multi`.
#[repr(C)]
#[derive(Default)]
struct MultiLinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    rest: u32,
}

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PERF_EVENT: u32 = 41;
pub(super) const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// One link for all sites.
fn multi(program: BorrowedFd<'_>, path: &Path, sites: &[Site], pid: Option<u32>) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Create { offset: sites.first().map_or(0, |site| site.offset), source };
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(io::Error::other(error)))?;
    let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
    let counters: Vec<u64> = sites.iter().map(|site| site.counter.unwrap_or(0)).collect();
    let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
    let attr = MultiLinkAttr {
        program: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: name.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        counters: counters.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: sites.len() as u32,
        pid: pid.unwrap_or(0),
        ..MultiLinkAttr::default()
    };
    create(&attr).map(Link::Multi).map_err(failed)
}

/// A perf event for one site, with the program.
fn event(kind: u32, program: BorrowedFd<'_>, path: &Path, site: &Site, pid: Option<u32>) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Open { offset: site.offset, source };
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(io::Error::other(error)))?;
    let attr = PerfEventAttr {
        kind,
        size: size_of::<PerfEventAttr>() as u32,
        config: site.counter.unwrap_or(0) << 32,
        config1: name.as_ptr() as u64,
        config2: site.offset,
        ..PerfEventAttr::default()
    };
    let (pid, cpu) = match pid {
        Some(pid) => (pid as libc::pid_t, -1),
        None => (-1, 0),
    };
    // SAFETY: `attr` and `name` live through the call, which reads them only.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC) };
    let event = opened(fd).map_err(failed)?;
    let attr = EventLinkAttr {
        program: program.as_raw_fd() as u32,
        target: event.as_raw_fd() as u32,
        attach_type: BPF_PERF_EVENT,
        cookie: site.cookie,
        ..EventLinkAttr::default()
    };
    match create(&attr) {
        Ok(link) => Ok(Link::Event(Some(link), event)),
        // The answer of a kernel that has no links for perf events (before 5.15); it has no cookies either.
        Err(source) if source.raw_os_error() == Some(libc::EINVAL) && give(&event, program).is_ok() => {
            Ok(Link::Event(None, event))
        }
        Err(source) => Err(LinkError::Create { offset: site.offset, source }),
    }
}

/// BPF_LINK_CREATE; `attr` is one of the two structures above, and what it points to is alive.
fn create<T>(attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` lives through the call, which reads it only.
    opened(unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, std::ptr::from_ref(attr), size_of::<T>()) })
}

/// The descriptor that a system call has returned.
pub(super) fn opened(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether this thread, as it is now, may have uprobes by perf events: the kernel asks for rights before it looks at the path.
pub(super) fn events_are_allowed() -> bool {
    let kind = fs::read_to_string(PMU).ok().and_then(|text| text.trim().parse().ok());
    let Some(kind) = kind else { return false };
    let size = size_of::<PerfEventAttr>() as u32;
    let attr = PerfEventAttr { kind, size, config1: c"".as_ptr() as u64, ..PerfEventAttr::default() };
    // SAFETY: `attr` and the empty path live through the call, which reads them only.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    opened(fd).map_or_else(|error| error.kind() != io::ErrorKind::PermissionDenied, |_| true)
}

/// Whether the running kernel has such links, by what it says to one for a folder.
pub(super) fn multi_links_are_known(program: BorrowedFd<'_>) -> io::Result<()> {
    match for_a_folder(program, 0) {
        Some(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a link for one process is for all of its threads: before Linux 6.10 it was for the first one only. Kernels that
/// have put this right look at the process first.
pub(super) fn multi_links_filter_processes(program: BorrowedFd<'_>) -> bool {
    for_a_folder(program, u32::MAX).is_some_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

fn for_a_folder(program: BorrowedFd<'_>, pid: u32) -> Option<io::Error> {
    let offset = 0_u64;
    let attr = MultiLinkAttr {
        program: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: c"/".as_ptr() as u64,
        offsets: &raw const offset as u64,
        count: 1,
        pid,
        ..MultiLinkAttr::default()
    };
    create(&attr).err()
}

/// Gives the program to the event, which keeps it.
fn give(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    // _IOW('$', 8, u32)
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    // SAFETY: both descriptors are open, and the argument is a number.
    match unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Link, Site, Target};
    use crate::probe::{Options, Programs, SocketProbe};

    /// Needs root: the end-to-end run sets TRACER_STRICT, and then it must not be missing.
    #[test]
    #[ignore = "needs root; `cargo xtask test` runs it"]
    fn sites_that_cannot_be_attached_to_do_not_cost_the_others() {
        let path = Path::new("/proc/self/exe");
        let plan = crate::inspect::inspect_file(path).expect("a program");
        let offset = plan.panics.first().expect("a Rust program panics somewhere").entry.offset;
        let good = Site { offset, cookie: 0, counter: None };
        // Beyond the end of the file.
        let bad = Site { offset: 1 << 40, ..good };
        let programs =
            Programs::load(&Options { ring_bytes: 1 << 16, map_sizes: <_>::default(), sockets: SocketProbe::Off })
                .expect("load");
        let program = programs.uprobe("message_panic").expect("it is there");
        let target = Target { path, pid: None, descriptors: 64 };
        let mut sites = vec![good; 9];
        for (number, index) in [0, 4, 8].into_iter().enumerate() {
            sites[index] = bad;
            let attached = Link::attach(program, &target, &sites);
            assert_eq!(attached.failed.len(), number + 1, "{attached:?}");
            assert!(attached.failed.iter().all(|index| sites[*index] == bad), "{attached:?}");
            assert!(!attached.links.is_empty() && attached.error.is_some());
        }
        assert_eq!(Link::attach(program, &target, &[bad; 200]).failed.len(), 200);
    }
}

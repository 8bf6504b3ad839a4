//! The few functions of the C library that the shim needs, declared here so that it needs no crate for them.

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io;
use std::mem::ManuallyDrop;

#[repr(C)]
struct Timespec {
    sec: i64,
    nsec: c_long,
}

const CLOCK_MONOTONIC: c_int = 1;
const CLOCK_BOOTTIME: c_int = 7;

unsafe extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn getrandom(buf: *mut c_void, len: usize, flags: c_uint) -> isize;
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    fn ftruncate(fd: c_int, len: i64) -> c_int;
    fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn munmap(addr: *mut c_void, len: usize) -> c_int;
    fn madvise(addr: *mut c_void, len: usize, advice: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

fn clock(id: c_int) -> u64 {
    let mut time = Timespec { sec: 0, nsec: 0 };
    // SAFETY: `time` is a valid `timespec`; both clocks exist on every Linux that runs this.
    unsafe { clock_gettime(id, &raw mut time) };
    time.sec as u64 * 1_000_000_000 + time.nsec as u64
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
#[inline]
pub(crate) fn monotonic() -> u64 {
    clock(CLOCK_MONOTONIC)
}

/// Nanoseconds of CLOCK_BOOTTIME.
pub(crate) fn boottime() -> u64 {
    clock(CLOCK_BOOTTIME)
}

/// Random bits from the kernel; where it has none to give (it never happens after boot), bits that at least differ.
pub(crate) fn random() -> u64 {
    let mut word = 0_u64;
    // SAFETY: the buffer is eight writable bytes.
    let got = unsafe { getrandom((&raw mut word).cast(), size_of::<u64>(), 0) };
    if got == size_of::<u64>() as isize { word } else { monotonic() ^ (&raw const word).addr() as u64 }
}

/// Runs `child` in the child of every `fork` from now on.
pub(crate) fn at_fork(child: extern "C" fn()) {
    // SAFETY: `child` is a function of the executable or of a library that holds its own text.
    unsafe { pthread_atfork(None, None, Some(child)) };
}

/// Memory that other processes find by its name in `/proc/PID/maps`.
#[derive(Debug)]
pub(crate) struct NamedMemory {
    address: *mut u8,
    len: usize,
}

/// Who sees what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Only this process writes; a forked child does not have it.
    Private,
    /// Whoever opens it through `/proc/PID/map_files` writes too; a forked child shares it.
    Shared,
}

impl NamedMemory {
    /// Maps `len` zero bytes named `/memfd:NAME`.
    ///
    /// # Errors
    /// The kernel's, when it grants no memory file or mapping.
    pub(crate) fn new(name: &core::ffi::CStr, len: usize, sharing: Sharing) -> io::Result<Self> {
        const MFD_CLOEXEC: c_uint = 1;
        const MFD_ALLOW_SEALING: c_uint = 2;
        const MFD_NOEXEC_SEAL: c_uint = 8;
        const PROT_READ_WRITE: c_int = 3;
        const MAP_SHARED: c_int = 1;
        const MAP_PRIVATE: c_int = 2;
        const MADV_DONTFORK: c_int = 10;
        const PR_SET_VMA: c_int = 0x5356_4d41;
        const MAP_FAILED: usize = usize::MAX;

        // SAFETY: `name` ends in a zero byte. Kernels before 6.3 do not know MFD_NOEXEC_SEAL.
        let fd = unsafe {
            match memfd_create(name.as_ptr(), MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) {
                -1 => memfd_create(name.as_ptr(), MFD_CLOEXEC | MFD_ALLOW_SEALING),
                fd => fd,
            }
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = if sharing == Sharing::Shared { MAP_SHARED } else { MAP_PRIVATE };
        // SAFETY: a new mapping, wherever the kernel puts it, of a file that is as long; the descriptor is ours to close.
        let address = unsafe {
            let address = match ftruncate(fd, len as i64) {
                0 => mmap(core::ptr::null_mut(), len, PROT_READ_WRITE, flags, fd, 0),
                _ => core::ptr::without_provenance_mut(MAP_FAILED),
            };
            let error = io::Error::last_os_error();
            close(fd);
            if address.addr() == MAP_FAILED {
                return Err(error);
            }
            address
        };
        // SAFETY: advice and a name for the mapping just made. Kernels without names for mappings say EINVAL, which is fine.
        unsafe {
            if sharing == Sharing::Private {
                madvise(address, len, MADV_DONTFORK);
            }
            prctl(PR_SET_VMA, 0, address.addr() as c_ulong, len as c_ulong, name.as_ptr().addr() as c_ulong);
        }
        Ok(Self { address: address.cast(), len })
    }

    /// First byte; the rest follows for as long as the value lives.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.address
    }

    /// Keeps the mapping for good.
    pub(crate) fn leak(self) -> *mut u8 {
        ManuallyDrop::new(self).address
    }
}

impl Drop for NamedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the borrow of its bytes ends with it.
        unsafe { munmap(self.address.cast(), self.len) };
    }
}

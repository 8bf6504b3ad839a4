//! A uprobe whose program does nothing: what is left is the cost of the trap.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_KPROBE: u64 = 2;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// A probe that is there as long as this lives.
pub struct EmptyProbe {
    _event: OwnedFd,
    _program: OwnedFd,
}

/// Puts the probe on an offset of a file, in one process.
pub fn attach(file: &Path, offset: u64, pid: u32) -> Result<EmptyProbe> {
    let program = load().context("the kernel takes no empty program")?;
    let event = open(file, offset, pid).context("the kernel takes no uprobe")?;
    // SAFETY: both descriptors are open; the call takes the program by value.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) };
    check(set.into()).context("the program does not go with the uprobe")?;
    Ok(EmptyProbe { _event: event, _program: program })
}

fn load() -> io::Result<OwnedFd> {
    let license = c"GPL";
    // The start of `union bpf_attr`: type and count of instructions, instructions, licence.
    let attributes = [
        BPF_PROG_TYPE_KPROBE | (NOTHING.len() as u64) << 32,
        NOTHING.as_ptr().addr() as u64,
        license.as_ptr().addr() as u64,
    ];
    // SAFETY: the attributes are of the given size, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attributes.as_ptr(), size_of_val(&attributes)) };
    owned(fd)
}

fn open(file: &Path, offset: u64, pid: u32) -> Result<OwnedFd> {
    let kind: u64 = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?.trim().parse()?;
    let path = CString::new(file.as_os_str().as_bytes())?;
    // The start of `struct perf_event_attr`: type and size, path and offset of the probe.
    let mut attributes = [0_u64; 9];
    attributes[0] = kind | (size_of_val(&attributes) as u64) << 32;
    attributes[7] = path.as_ptr().addr() as u64;
    attributes[8] = offset;
    // SAFETY: the attributes are of the size that they name, and the path outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), libc::pid_t::try_from(pid)?, -1, -1, 0)
    };
    Ok(owned(fd)?)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

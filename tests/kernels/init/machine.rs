//! What a distribution's start-up would have done.

use std::{ffi::CString, fs, io, ptr};

use anyhow::{Context, Result};

const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/tmp"),
];

/// Mounts the kernel's file systems and brings the loopback interface up.
pub fn set_up() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(kind, place).with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    loopback_up().context("cannot bring lo up")
}

/// The kernel's version.
pub fn release() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Ends the machine. What was printed is on the console before.
pub fn power_off() -> ! {
    // SAFETY: both calls take no pointers; this is the first process, and nothing is left to save.
    unsafe {
        libc::tcdrain(libc::STDOUT_FILENO);
        libc::reboot(libc::RB_POWER_OFF);
    }
    unreachable!("the machine is off");
}

fn mount(kind: &str, place: &str) -> Result<()> {
    let (kind, place) = (CString::new(kind)?, CString::new(place)?);
    // SAFETY: the strings end with a zero and outlive the call; these file systems take no options.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    check(result)
}

fn loopback_up() -> Result<()> {
    // SAFETY: an ifreq of zeros is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    check(socket)?;
    // SAFETY: the request is an initialised ifreq and outlives the call.
    check(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) })
}

fn check(result: i32) -> Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

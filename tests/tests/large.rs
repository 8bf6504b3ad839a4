//! A program with half a gigabyte of debug info: what it costs to attach to it, first and again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tracer_tests::service::enlarge;

/// Debug info, in bytes.
const SIZE: usize = 500 << 20;

/// What a session has used.
#[derive(Debug)]
struct Used {
    /// Of a processor: other programs are running on this machine.
    time: Duration,
    /// At most, in bytes.
    memory: u64,
}

#[test]
#[ignore = "writes a file of 600 MB: `cargo xtask test --full`"]
fn half_a_gigabyte_of_debug_info_costs_seconds_once() {
    tracer_tests::require_root();
    let folder = tempfile::tempdir().unwrap();
    let service = folder.path().join("service");
    enlarge(&tracer_tests::program("tracer"), &service, SIZE);
    let arguments = ["--version"];
    let nothing = attach(&folder.path().join("cache"), Path::new("/bin/true"), &arguments);
    let first = attach(&folder.path().join("cache"), &service, &arguments);
    let second = attach(&folder.path().join("cache"), &service, &arguments);
    eprintln!("without a program {nothing:?}, first {first:?}, again {second:?}");
    assert!(first.time.saturating_sub(nothing.time) < Duration::from_secs(3), "{first:?}, without {nothing:?}");
    assert!(first.memory < 250 << 20, "{first:?}");
    assert!(second.time.saturating_sub(nothing.time) < Duration::from_millis(300), "{second:?}, without {nothing:?}");
}

/// Runs a program under the agent.
#[expect(clippy::zombie_processes, reason = "`wait4` waits for it, and says what it has used")]
fn attach(cache: &Path, program: &Path, arguments: &[&str]) -> Used {
    let mut command = Command::new(tracer_tests::program("tracer"));
    command.args(["run", "--export", "none", "--"]).arg(program).args(arguments).env("XDG_CACHE_HOME", cache);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid value of this struct of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values, and nobody else waits for this child.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as libc::pid_t);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Used { time: time(usage.ru_utime) + time(usage.ru_stime), memory: usage.ru_maxrss as u64 * 1024 }
}

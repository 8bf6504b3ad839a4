//! What a process pays that nobody traces: system calls of the benchmark itself.

use std::time::Instant;

/// Calls of one measurement.
const CALLS: u32 = 500_000;

/// Nanoseconds of the cheapest system call there is.
pub fn system_call() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        // SAFETY: it takes nothing and returns a number.
        unsafe { libc::getppid() };
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

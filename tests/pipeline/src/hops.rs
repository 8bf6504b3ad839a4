//! The ground truth: for every order, when a service did what, by its own clock.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

use crate::Settings;

/// Steps that are kept before they are written.
const KEPT: usize = 1 << 16;

/// One step of one order.
#[derive(Clone, Copy, Debug)]
struct Hop {
    order: u64,
    name: &'static str,
    start_ns: u64,
    end_ns: u64,
}

/// What a service did when, under the name that the span of it has (but for `process `). `--log PATH` names the file: a line
/// `ORDER START END NAME` per step, times in nanoseconds of CLOCK_MONOTONIC. Without the flag nothing is kept.
#[derive(Debug)]
pub struct Hops(Option<Mutex<Log>>);

#[derive(Debug)]
struct Log {
    file: BufWriter<File>,
    hops: Vec<Hop>,
}

impl Hops {
    /// Creates the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(settings: &Settings) -> Result<Self> {
        let path: String = settings.get_or("log", String::new())?;
        if path.is_empty() {
            return Ok(Self(None));
        }
        // A service that is started again goes on with the file.
        let file = File::options().create(true).append(true).open(&path).with_context(|| path.clone())?;
        Ok(Self(Some(Mutex::new(Log { file: BufWriter::new(file), hops: Vec::with_capacity(KEPT) }))))
    }

    /// A step that began at `start_ns` and ends now.
    pub fn add(&self, order: u64, name: &'static str, start_ns: u64) {
        self.add_until(order, name, start_ns, now());
    }

    /// A step with both times.
    pub fn add_until(&self, order: u64, name: &'static str, start_ns: u64, end_ns: u64) {
        #[cfg(feature = "otel")]
        crate::otel::span(order, name);
        let Some(log) = &self.0 else { return };
        let mut log = log.lock().expect("no thread panics with it");
        log.hops.push(Hop { order, name, start_ns, end_ns });
        if log.hops.len() == KEPT {
            // A full disk costs the log, not the orders.
            let _ = log.write();
        }
    }

    /// Writes what is still kept.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> Result<()> {
        let Some(log) = &self.0 else { return Ok(()) };
        let mut log = log.lock().expect("no thread panics with it");
        log.write()?;
        Ok(log.file.flush()?)
    }
}

impl Log {
    fn write(&mut self) -> std::io::Result<()> {
        for Hop { order, name, start_ns, end_ns } in self.hops.drain(..) {
            writeln!(self.file, "{order} {start_ns} {end_ns} {name}")?;
        }
        Ok(())
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

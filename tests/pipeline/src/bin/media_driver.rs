//! Aeron's C media driver as a process of its own. `media_driver DIR` prints `ready`, and ends on SIGTERM.

use std::ffi::CString;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use rusteron_media_driver::bindings::aeron_threading_mode_t;
use rusteron_media_driver::{AeronDriver, AeronDriverContext};
use tracer_pipeline::Stop;

/// A client that says nothing for so long is taken to be gone, and its publications with it.
const LIVENESS_NS: u64 = 5_000_000_000;
const TERM_BYTES: usize = 1 << 20;

fn main() -> Result<()> {
    let dir = CString::new(std::env::args().nth(1).context("usage: media_driver DIR")?)?;
    let stop = Stop::on_signals()?;
    let context = AeronDriverContext::new()?;
    context.set_dir(&dir)?;
    // What a driver before left behind is of no use.
    context.set_dir_delete_on_start(true)?;
    context.set_dir_delete_on_shutdown(true)?;
    context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_SHARED)?;
    context.set_shared_idle_strategy(c"backoff")?;
    context.set_client_liveness_timeout_ns(LIVENESS_NS)?;
    context.set_ipc_term_buffer_length(TERM_BYTES)?;
    let driver = AeronDriver::new(&context)?;
    driver.start(true)?;
    writeln!(std::io::stdout(), "ready")?;
    while !stop.is_set() {
        driver.main_idle_strategy(driver.main_do_work()?);
    }
    Ok(())
}

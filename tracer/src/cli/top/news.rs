//! What the agent says while a screen is shown: the last line, instead of standard error, which is the same terminal.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

static DIVERTED: AtomicBool = AtomicBool::new(false);
static LAST: Mutex<String> = Mutex::new(String::new());

/// From now on log lines are kept, or go to standard error again.
pub fn divert(yes: bool) {
    DIVERTED.store(yes, Ordering::Relaxed);
}

/// The last line.
pub fn last() -> String {
    LAST.lock().map(|last| last.clone()).unwrap_or_default()
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !DIVERTED.load(Ordering::Relaxed) {
            return io::stderr().write(line);
        }
        if let Ok(mut last) = LAST.lock() {
            *last = String::from_utf8_lossy(line).trim().to_owned();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

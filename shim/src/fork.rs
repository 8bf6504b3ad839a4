//! A forked child must not repeat its parent's ids, nor speak through mappings that it did not inherit.

use std::sync::atomic::{AtomicBool, Ordering};

static WATCHED: AtomicBool = AtomicBool::new(false);

/// From now on the child of a `fork` seeds its generator again and publishes its own context. Nothing is paid per id: the
/// child has one thread, the one that forked, and the handler runs on it.
pub(crate) fn watch() {
    if !WATCHED.swap(true, Ordering::Relaxed) {
        crate::os::at_fork(in_child);
    }
}

extern "C" fn in_child() {
    crate::thread::reset_after_fork();
    crate::process::republish();
}

//! Libraries that a target loads, at its start or by `dlopen` later.
//!
//! Dynamic loaders (glibc, musl) call an empty function for debuggers whenever the list of loaded libraries has changed, before any
//! code of a new one runs. A probe there costs nothing else.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::TARGET_SERVER;
use tracer_common::record::{KIND_LOADED, Lifecycle};

use crate::emit::{QUIET, lifecycle_with};
use crate::maps::TARGETS;
use crate::stack;

/// `_dl_debug_state()`
#[uprobe]
pub fn library_loaded(ctx: ProbeContext) -> u32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    if unsafe { TARGETS.get(pid) }.is_some_and(|target| target.flags & TARGET_SERVER == 0) {
        lifecycle_with(KIND_LOADED, 0, Lifecycle::default(), QUIET);
    }
    stack::of_the_kernel(&ctx);
    0
}

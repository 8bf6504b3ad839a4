//! io_uring, by which a process uses its sockets without a system call for each.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::record::{KIND_URING, Lifecycle};

use crate::emit::lifecycle;
use crate::stream;

/// `io_uring_create(...)`: in the process that will use it.
#[raw_tracepoint(tracepoint = "io_uring_create")]
pub fn uring_created(_ctx: RawTracePointContext) -> i32 {
    if stream::client().is_some() {
        lifecycle(KIND_URING, 0, Lifecycle::default());
    }
    0
}

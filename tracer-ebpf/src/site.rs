//! What the agent has said of the site at which a uprobe program runs.

use aya_ebpf::programs::ProbeContext;
use tracer_common::map::Cookie;

/// From the link: the kernel hands it over (Linux 5.15).
#[cfg(not(feature = "old-kernel"))]
#[inline(always)]
pub fn cookie(ctx: &ProbeContext) -> Option<Cookie> {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::helpers::generated::bpf_get_attach_cookie;

    // SAFETY: the context is the one that the kernel passed to this program.
    Some(Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }))
}

/// By where the site is in the executable, which is the same in each of its processes, from the first instruction on. Sites of
/// libraries have no such place; hits there are counted.
#[cfg(feature = "old-kernel")]
#[inline(always)]
pub fn cookie(ctx: &ProbeContext) -> Option<Cookie> {
    use aya_ebpf::helpers::generated::bpf_get_current_task;
    use tracer_common::map::{Counter, Place};

    use crate::emit::count;
    use crate::maps::{OFFSETS, PLACES};
    use crate::memory::kernel;

    let offsets = OFFSETS.get(0)?;
    // SAFETY: the helper has no preconditions; the task is only read through checked reads.
    let task = unsafe { bpf_get_current_task() };
    let memory = kernel::<u64>(task + offsets.task_mm as u64)?;
    let code = kernel::<u64>(memory + offsets.mm_start_code as u64)?;
    let file = kernel::<u64>(memory + offsets.mm_exe_file as u64)?;
    let inode = kernel::<u64>(file + offsets.file_inode as u64)?;
    // SAFETY: the kernel passes the interrupted thread's registers, valid while the program runs.
    let address = unsafe { (*ctx.regs).rip };
    let place =
        Place { inode: kernel::<u64>(inode + offsets.inode_number as u64)?, offset: address.wrapping_sub(code) };
    // SAFETY: entries are written once, before the site gets its probe.
    match unsafe { PLACES.get(place) } {
        Some(cookie) => Some(Cookie::unpack(*cookie)),
        None => {
            count(Counter::SitesUnknown);
            None
        }
    }
}

//! Keeps uprobe programs on the kernel's own stack.
//!
//! Since Linux 6.13 a program with more than 64 bytes of locals gets a stack of its own: one for each CPU, not for each run. That
//! is right for programs that nobody can preempt, but a uprobe program can be: the thread that preempts it on its CPU and runs the
//! same program writes over its locals, pointers into the kernel among them, and the kernel crashes. Programs with a tail call never
//! get one, so each uprobe program has one, that leads nowhere.

use aya_ebpf::macros::map;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::ProbeContext;

/// Always empty.
#[map]
static NO_PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Belongs at the end of every uprobe program.
#[inline(always)]
pub fn of_the_kernel(ctx: &ProbeContext) {
    // SAFETY: the context is the one that the kernel passed to this program. Without a program in the map, the call does nothing.
    unsafe { NO_PROGRAM.tail_call(ctx, 0) };
}

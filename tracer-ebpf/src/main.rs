//! The eBPF programs: they read, they never write to a target.
//!
//! One file per probe family. User and kernel memory is read through [`memory`] only, and every record leaves through
//! [`emit`], which counts it before it is written, so that the agent can prove what was lost.
#![no_std]
#![no_main]
#![feature(core_intrinsics)] // the eBPF target has atomic additions, but no stable name for them
#![expect(internal_features, reason = "as above")]

mod context;
mod copy;
mod emit;
mod grpc;
mod library;
mod maps;
mod memory;
mod message;
mod process;
mod server;
mod shim;
mod site;
mod socket;
mod spawn;
mod stack;
mod stream;
mod syscalls;
mod transfers;
mod uring;

/// Built for kernels that lack `bpf_loop` (5.17) or attach cookies (5.15).
const OLD_KERNEL: bool = cfg!(feature = "old-kernel");

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects programs from which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

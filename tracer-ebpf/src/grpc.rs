//! Who makes a gRPC call.
//!
//! tonic's channel hands a request to the task of its connection, which encodes the message. The task that asks is seen where it
//! gives the request away, and the two are joined by an address: the request's body lives in one allocation from here to the
//! encode, and the buffer that is encoded into is a part of it.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::Counter;
use tracer_common::record::{GrpcCall, KIND_GRPC_CALL};

use crate::emit::{QUIET, head, reserve};
use crate::maps::TARGETS;
use crate::memory::user;
use crate::{context, stack};

/// Where in a request its body is looked for, in words of eight bytes. `http::Request<tonic::body::Body>` has 30 to 32.
const WORDS: u64 = 32;
/// No body is larger.
const MAX_BODY: u64 = 1 << 16;
/// A body holds two buffers of four words at least.
const MIN_BODY: u64 = 64;
/// What is so near to the code is of the same file.
const NEAR: u64 = 1 << 28;

/// `<tonic::transport::Channel as Service<Request<Body>>>::call(&mut self, request) -> ResponseFuture`
#[uprobe]
pub fn grpc_call(ctx: ProbeContext) -> u32 {
    call(&ctx);
    stack::of_the_kernel(&ctx);
    0
}

#[inline(always)]
fn call(ctx: &ProbeContext) -> Option<()> {
    // SAFETY: entries are only replaced by the agent; a torn copy would still be plain numbers.
    let target = unsafe { TARGETS.get((bpf_get_current_pid_tgid() >> 32) as u32) }?;
    // SAFETY: the kernel passes the interrupted thread's registers, valid while the program runs.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    // The future is returned by way of the first argument, the channel is the second.
    let (body, body_len) = body(regs.rdx, regs.rip).unwrap_or((0, 0));
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut head = head(KIND_GRPC_CALL, now, now);
    context::fill(&mut head, target);
    let mut entry = reserve::<GrpcCall>(Counter::GrpcCalls, Counter::GrpcCallsRingFull)?;
    entry.write(GrpcCall { head, body, body_len });
    entry.submit(QUIET);
    Some(())
}

/// The only `Box<dyn ...>` in the request: a pointer to memory, and one to a vtable with drop function, size and alignment.
#[inline(always)]
fn body(request: u64, code: u64) -> Option<(u64, u64)> {
    for word in 0..WORDS - 1 {
        let [data, vtable] = user::<[u64; 2]>(request.wrapping_add(8 * word))?;
        if is_near(vtable, code)
            && !is_near(data, code)
            && let Some([drop, size, align]) = user::<[u64; 3]>(vtable)
            && (drop == 0 || is_near(drop, code))
            && (MIN_BODY..MAX_BODY).contains(&size)
            && (align == 8 || align == 16)
            && data % align == 0
        {
            return Some((data, size));
        }
    }
    None
}

#[inline(always)]
fn is_near(address: u64, code: u64) -> bool {
    address.wrapping_sub(code).wrapping_add(NEAR) < 2 * NEAR
}

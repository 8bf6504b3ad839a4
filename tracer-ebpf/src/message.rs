//! prost calls: entry and exit sites, and where calls end early.
//!
//! A call is named by the address of its return address (`rsp + cookie.sp_delta`), an inlined one by that of the function
//! around it. Only the outermost call of a nested group makes a record. A call whose frame is gone without an exit (a panic passed through it) is reported as such.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use tracer_common::map::*;
use tracer_common::record::*;

use crate::context;
use crate::emit::{QUIET, count};
use crate::maps::{CALLS, Call, EVENTS, PROBES, TARGETS};
use crate::memory::{copy_user, user};
use crate::{site, stack};

/// Longest length of a buffer that is believed.
const MAX_LEN: u64 = 1 << 32;
const PAYLOAD: u64 = (MESSAGE_PREFIX + MESSAGE_TAIL) as u64;

/// First instructions of a prost function.
#[uprobe]
pub fn message_entry(ctx: ProbeContext) -> u32 {
    enter(&ctx);
    stack::of_the_kernel(&ctx);
    0
}

/// Where a prost function returns, or has returned.
#[uprobe]
pub fn message_exit(ctx: ProbeContext) -> u32 {
    leave(&ctx);
    stack::of_the_kernel(&ctx);
    0
}

/// Where prost makes a `DecodeError`: the open call of the thread has failed.
#[uprobe]
pub fn message_error(ctx: ProbeContext) -> u32 {
    if let Some(call) = open_call(bpf_get_current_pid_tgid()) {
        call.record.head.flags |= FLAG_ERROR;
    }
    stack::of_the_kernel(&ctx);
    0
}

/// Where std starts to unwind: the open call of the thread ends here.
#[uprobe]
pub fn message_panic(ctx: ProbeContext) -> u32 {
    if let Some(call) = open_call(bpf_get_current_pid_tgid()) {
        finish(call, FLAG_PANIC | FLAG_ERROR);
    }
    stack::of_the_kernel(&ctx);
    0
}

#[inline(always)]
fn leave(ctx: &ProbeContext) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(call) = open_call(pid_tgid) else {
        if is_target(pid_tgid) {
            count(Counter::ExitsWithoutEntry);
        }
        return None;
    };
    let cookie = site::cookie(ctx)?;
    // Inlined calls of one function share its frame: each has exits of its own.
    if frame(ctx, cookie) == call.frame && (call.inlined == 0 || call.record.probe == cookie.probe) {
        finish(call, 0);
    }
    Some(())
}

/// The thread is ending: nothing will close its call.
#[inline(always)]
pub fn thread_exit(pid_tgid: u64) {
    if let Some(call) = open_call(pid_tgid) {
        finish(call, FLAG_UNWOUND | FLAG_ERROR);
    }
    // Looking is cheap, removing takes a lock, and most threads have nothing here.
    if CALLS.get_ptr(pid_tgid).is_some() {
        let _ = CALLS.remove(pid_tgid);
    }
}

#[inline(always)]
fn is_target(pid_tgid: u64) -> bool {
    TARGETS.get_ptr((pid_tgid >> 32) as u32).is_some()
}

#[inline(always)]
fn open_call(pid_tgid: u64) -> Option<&'static mut Call> {
    let call = CALLS.get_ptr_mut(pid_tgid)?;
    // SAFETY: the entry belongs to the current thread, which is interrupted: nobody else uses it until it ends.
    let call = unsafe { &mut *call };
    (call.open == 1).then_some(call)
}

#[inline(always)]
fn registers(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the kernel passes the interrupted thread's registers, valid while the program runs.
    unsafe { &*ctx.regs }
}

#[inline(always)]
fn frame(ctx: &ProbeContext, cookie: Cookie) -> u64 {
    registers(ctx).rsp.wrapping_add_signed(cookie.sp_delta as i64)
}

#[inline(always)]
fn enter(ctx: &ProbeContext) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    // SAFETY: entries of TARGETS are only replaced by the agent; a copy torn by that would still be plain numbers.
    let target = unsafe { TARGETS.get(pid) }?;
    let cookie = site::cookie(ctx)?;
    let probe = PROBES.get(cookie.probe)?;
    let regs = registers(ctx);
    let args = arguments(regs);
    let frame = frame(ctx, cookie);
    let return_address = user::<u64>(frame).unwrap_or(0);

    if let Some(call) = open_call(pid_tgid) {
        let intact = user::<u64>(call.frame) == Some(call.return_address);
        if intact && frame < call.frame {
            count(Counter::MessagesNested);
            return None;
        }
        let beside = intact && frame == call.frame && call.inlined == 1;
        if beside && call.record.probe != cookie.probe {
            // The compiler has mixed the end of one call with the beginning of the next.
            finish(call, 0);
        } else {
            finish(call, FLAG_UNWOUND | FLAG_ERROR);
        }
    }
    let call = match CALLS.get_ptr_mut(pid_tgid) {
        Some(call) => call,
        None => {
            // Zeroes for the first call of a thread come from a map of one entry: they are too many for the stack.
            let zero = crate::maps::ZERO_CALL.get_ptr(0)?;
            // SAFETY: the map value lives as long as the map and is never written.
            if CALLS.insert(pid_tgid, unsafe { &*zero }, 0).is_err() {
                count(Counter::MessagesMapFull);
                return None;
            }
            CALLS.get_ptr_mut(pid_tgid)?
        }
    };
    // SAFETY: as in `open_call`.
    let call = unsafe { &mut *call };
    call.frame = frame;
    call.return_address = return_address;
    call.args = [args[0], args[1], args[2]];
    call.open = 1;
    call.inlined = (probe.flags & PROBE_INLINED != 0) as u64;
    call.record = Message {
        head: Head {
            kind: KIND_MESSAGE,
            pid,
            tid: pid_tgid as u32,
            // Last, so that what was done so far is not in the span.
            start_ns: 0,
            ..Head::default()
        },
        probe: cookie.probe,
        prefix_len: 0,
        size: SIZE_UNKNOWN,
        buffer: 0,
    };
    context::fill(&mut call.record.head, target);
    if probe.flags & PROBE_FRAME != 0 {
        let place = frame.wrapping_add_signed(probe.frame_offset as i64);
        let word = probe.flags & PROBE_FRAME_WORD != 0;
        call.args[0] = if word { user::<u64>(place).unwrap_or(0) } else { place };
    }
    if probe.flags & PROBE_BEHIND != 0 {
        call.record.buffer = user::<u64>(buffer(call, &args, probe)).unwrap_or(0);
    }
    match probe.buffer {
        // A message in mapped memory may lie on a page that nobody has touched yet: it is read again at the exit.
        BUFFER_SLICE => drop(capture(call, argument(&args, probe.reg_a), argument(&args, probe.reg_b))),
        BUFFER_INPUT => {
            if let Some((pointer, len)) = view(buffer(call, &args, probe), probe) {
                (call.args[1], call.args[2]) = (pointer, len);
                if !capture(call, pointer, len) && !is_lent(probe) {
                    count(Counter::UserReadFailed);
                }
            }
        }
        BUFFER_OUTPUT => {
            if probe.reg_a > 2 {
                call.args[2] = argument(&args, probe.reg_a);
            }
            call.len_at_entry = match view(buffer(call, &args, probe), probe) {
                Some((_, len)) => len,
                None => u64::MAX,
            };
        }
        _ => {}
    }
    // SAFETY: reading the clock has no preconditions.
    call.record.head.start_ns = unsafe { bpf_ktime_get_ns() };
    Some(())
}

/// Ends a call and sends its record.
#[inline(always)]
fn finish(call: &mut Call, flags: u16) {
    // SAFETY: reading the clock has no preconditions.
    call.record.head.end_ns = unsafe { bpf_ktime_get_ns() };
    call.open = 0;
    call.record.head.flags |= flags;
    if flags == 0
        && let Some(probe) = PROBES.get(call.record.probe)
    {
        if probe.flags & PROBE_ENCODE_RESULT != 0 && encode_failed(call.args[0]) {
            call.record.head.flags |= FLAG_ERROR;
        } else {
            output(call, probe);
        }
    }
    count(Counter::Messages);
    let payload = call.record.head.payload_len as u64;
    let len = size_of::<Message>() as u64 + if payload > PAYLOAD { PAYLOAD } else { payload };
    // SAFETY: record and payload are adjacent fields of a `repr(C)` map value, and `len` covers no more than both.
    let status =
        unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), (&raw mut call.record).cast(), len, QUIET) };
    if status != 0 {
        count(Counter::MessagesRingFull);
    }
}

/// A failed `Result<(), EncodeError>`: tag 1, then more bytes required than remained.
#[inline(always)]
fn encode_failed(result: u64) -> bool {
    match user::<[u64; 3]>(result) {
        Some([1, required, remaining]) => required > remaining,
        _ => false,
    }
}

/// The bytes that an encode has just written, or that a decode has just read and that could not be read before.
#[inline(always)]
fn output(call: &mut Call, probe: &Probe) {
    let before = match probe.buffer {
        BUFFER_OUTPUT => call.len_at_entry,
        BUFFER_RESULT => 0,
        BUFFER_SLICE => return again(call, first(call, probe.reg_a), first(call, probe.reg_b)),
        BUFFER_INPUT if is_lent(probe) => return again(call, call.args[1], call.args[2]),
        _ => return,
    };
    if let Some((pointer, len)) = view(first(call, probe.reg_a), probe)
        && len >= before
        && !capture(call, pointer.wrapping_add(before), len - before)
    {
        count(Counter::UserReadFailed);
    }
}

/// A slice in the frame: the caller has lent its bytes for the call at least.
#[inline(always)]
fn is_lent(probe: &Probe) -> bool {
    probe.flags & PROBE_FRAME != 0 && probe.flags & PROBE_BEHIND == 0
}

/// Reads a lent message again if it could not be read at the entry.
#[inline(always)]
fn again(call: &mut Call, pointer: u64, len: u64) {
    let read = call.record.size == SIZE_UNKNOWN || call.record.size == 0 || call.record.prefix_len > 0;
    if !read && !capture(call, pointer, len) {
        count(Counter::UserReadFailed);
    }
}

/// Where the struct of a buffer is, at the entry.
#[inline(always)]
fn buffer(call: &Call, args: &[u64; 6], probe: &Probe) -> u64 {
    if probe.flags & PROBE_FRAME != 0 { call.args[0] } else { argument(args, probe.reg_a) }
}

/// One of the arguments that are kept: the first three, or of an encode a later one in place of the third. As with [`argument`], no
/// index.
#[inline(always)]
fn first(call: &Call, index: u8) -> u64 {
    match index {
        0 => call.args[0],
        1 => call.args[1],
        _ => call.args[2],
    }
}

/// Pointer and length of a buffer struct.
#[inline(always)]
fn view(address: u64, probe: &Probe) -> Option<(u64, u64)> {
    let (mut buffer, mut limit) = (address, u64::MAX);
    if probe.flags & PROBE_BEHIND != 0 {
        buffer = user::<u64>(address)?;
        if probe.limit_offset != 0 {
            limit = user::<u64>(address + probe.limit_offset as u64)?;
        }
    }
    let pointer = user::<u64>(buffer + probe.ptr_offset as u64)?;
    let len = user::<u64>(buffer + probe.len_offset as u64)?;
    let len = if len < limit { len } else { limit };
    (len < MAX_LEN).then_some((pointer, len))
}

/// Copies a message, or its two ends, behind the record. Says whether it could be read; a length that cannot be is no message.
#[inline(always)]
fn capture(call: &mut Call, pointer: u64, len: u64) -> bool {
    if len >= MAX_LEN {
        return true;
    }
    call.record.size = len;
    let to = (&raw mut call.payload).cast::<u8>();
    let copied = if len <= PAYLOAD {
        call.record.prefix_len = len as u32;
        call.record.head.payload_len = len as u32;
        copy_user::<PAYLOAD>(to, len, pointer)
    } else {
        call.record.prefix_len = MESSAGE_PREFIX as u32;
        call.record.head.payload_len = PAYLOAD as u32;
        // SAFETY: the tail's place is inside the payload array.
        let tail = unsafe { to.add(MESSAGE_PREFIX) };
        copy_user::<{ MESSAGE_PREFIX as u64 }>(to, MESSAGE_PREFIX as u64, pointer)
            && copy_user::<{ MESSAGE_TAIL as u64 }>(tail, MESSAGE_TAIL as u64, pointer + len - MESSAGE_TAIL as u64)
    };
    if !copied {
        call.record.prefix_len = 0;
        call.record.head.payload_len = 0;
    }
    copied
}

/// The six argument registers. Volatile, so that each load keeps its constant offset, as the verifier demands: the
/// compiler would rather compute the address.
#[inline(always)]
fn arguments(regs: &pt_regs) -> [u64; 6] {
    let read = |register: &u64| {
        // SAFETY: a reference is valid for reads.
        unsafe { core::ptr::read_volatile(register) }
    };
    [read(&regs.rdi), read(&regs.rsi), read(&regs.rdx), read(&regs.rcx), read(&regs.r8), read(&regs.r9)]
}

/// Not an index expression: the stack is not addressed with variables.
#[inline(always)]
fn argument(args: &[u64; 6], index: u8) -> u64 {
    match index {
        0 => args[0],
        1 => args[1],
        2 => args[2],
        3 => args[3],
        4 => args[4],
        _ => args[5],
    }
}

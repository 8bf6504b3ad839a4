//! Copies the bytes of one socket call into the ring buffer.
//!
//! A call moves up to gigabytes, from one buffer or from a vector of them. They leave as records of up to [`SOCKET_CHUNK`] bytes,
//! at most [`SOCKET_CAPTURE`] of a call, and what is not copied is reported by its length alone.

use tracer_common::map::*;
use tracer_common::record::*;

use crate::emit::{QUIET, count, reserve};
use crate::memory::{copy_user, user};

/// Buffers of one vectored call that are followed.
const MAX_VECTOR: u64 = if crate::OLD_KERNEL { 96 } else { 1024 };
/// Steps of the copy loop: at most one to fetch and one to copy for each element, and the full chunks.
const STEPS: u32 = 2 * MAX_VECTOR as u32 + (SOCKET_CAPTURE / SOCKET_CHUNK) as u32;

/// Where the bytes of a call are. A struct, because the verifier would meet the unset fields of an enum's other variants.
#[derive(Clone, Copy)]
pub struct Buffers {
    /// The buffer, or a vector of them.
    pub pointer: u64,
    /// Elements of the vector; [`SINGLE`] if it is the buffer itself.
    pub count: u64,
}

/// [`Buffers::count`] of a call with one buffer.
const SINGLE: u64 = u64::MAX;

impl Buffers {
    /// In no place that can be read: spliced, thrown away, or handed over by io_uring.
    pub const UNKNOWN: Self = Self { pointer: 0, count: 0 };

    /// One buffer.
    #[inline(always)]
    pub fn one(pointer: u64) -> Self {
        Self { pointer, count: SINGLE }
    }

    /// Where the first buffer begins, and how long it is as far as that is said here.
    #[inline(always)]
    pub fn first(&self) -> Option<[u64; 2]> {
        match self.count {
            0 => None,
            SINGLE => Some([self.pointer, SINGLE]),
            _ => user::<[u64; 2]>(self.pointer),
        }
    }
}

/// Where the copying of one call stands. It is in a map, because the verifier follows every number on the stack, and would
/// follow the loop to its end.
#[repr(C)]
pub struct Walk {
    /// Describes the next chunk, but for its length.
    pub record: Socket,
    /// Next byte, and how many follow it in this buffer.
    pointer: u64,
    available: u64,
    /// Next element of the vector, and where the vector ends.
    element: u64,
    end: u64,
    /// Bytes at the start that are not needed.
    to_skip: u64,
    /// Bytes of the call that are still to be reported.
    left: u64,
    /// Bytes that may still be copied.
    budget: u64,
}

/// Sends the `total` bytes that a call moved, in chunks. [`Walk::record`] describes the call: it must be filled already. The first
/// `skip` bytes are not needed, and bytes that are not copied are reported all the same.
///
/// # Safety
/// `walk` is that of the current thread's call, and no reference to it is used any more. (A reference would let the compiler keep
/// [`Walk::left`] over the steps, which change it through a pointer of their own where there is no `bpf_loop`.)
#[inline(always)]
pub unsafe fn send(walk: *mut Walk, buffers: &Buffers, total: u64, skip: u64) {
    // SAFETY: the caller's promise; the reference ends before the first step.
    begin(unsafe { &mut *walk }, buffers, total, skip);
    repeat(walk);
    // SAFETY: the caller's promise; no step follows.
    let walk = unsafe { &*walk };
    if walk.left > 0 {
        without_bytes(&walk.record, walk.left);
    }
}

/// Goes to the first byte that is needed.
#[inline(always)]
fn begin(walk: &mut Walk, buffers: &Buffers, total: u64, skip: u64) {
    if skip > 0 {
        without_bytes(&walk.record, skip);
        walk.record.offset += skip;
    }
    walk.left = total - skip;
    walk.budget = SOCKET_CAPTURE as u64;
    walk.available = 0;
    walk.element = 0;
    walk.end = 0;
    walk.to_skip = skip;
    if buffers.count == SINGLE {
        walk.pointer = buffers.pointer + skip;
        walk.available = walk.left;
    } else {
        walk.element = buffers.pointer;
        walk.end = buffers.pointer + 16 * if buffers.count > MAX_VECTOR { MAX_VECTOR } else { buffers.count };
    }
}

/// Takes steps until one is the last. By `bpf_loop` (Linux 5.17): the verifier walks an ordinary loop step by step, and would give up.
#[cfg(not(feature = "old-kernel"))]
#[inline(always)]
fn repeat(mut walk: *mut Walk) {
    use core::ffi::c_void;

    extern "C" fn callback(_index: u32, place: *mut c_void) -> i64 {
        // SAFETY: `bpf_loop` passes what it was given: the address of a pointer to the current thread's map value.
        step(unsafe { &mut **place.cast::<*mut Walk>() })
    }
    // SAFETY: `callback` has the signature that the helper calls, and `walk` outlives the call.
    unsafe { aya_ebpf::helpers::generated::bpf_loop(STEPS, callback as *mut c_void, (&raw mut walk).cast(), 0) };
}

/// Takes steps until one is the last: few, and each a function that the verifier looks at once and not in every round. Such a
/// function takes no pointers, so it looks the thread's call up.
#[cfg(feature = "old-kernel")]
#[inline(always)]
fn repeat(_walk: *mut Walk) {
    for _ in 0..STEPS {
        if copy_step() != 0 {
            return;
        }
    }
}

/// One step of the current thread's call. Its name is seen outside: that makes it a function of its own for the verifier.
#[cfg(feature = "old-kernel")]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn copy_step() -> i64 {
    let Some(call) = crate::maps::SOCKET_CALLS.get_ptr_mut(aya_ebpf::helpers::bpf_get_current_pid_tgid()) else {
        return 1;
    };
    // SAFETY: the entry belongs to the current thread, which is inside the kernel: nobody else uses it.
    step(unsafe { &mut (*call).walk })
}

/// Sends one chunk, or goes on to the next buffer. Returns 1 at the end.
#[inline(always)]
fn step(walk: &mut Walk) -> i64 {
    if walk.left == 0 || walk.budget == 0 {
        return 1;
    }
    if walk.available == 0 {
        if walk.element >= walk.end {
            return 1;
        }
        let Some([base, len]) = user::<[u64; 2]>(walk.element) else { return 1 };
        walk.element += 16;
        let skipped = if walk.to_skip < len { walk.to_skip } else { len };
        walk.to_skip -= skipped;
        walk.pointer = base + skipped;
        walk.available = len - skipped;
        return 0;
    }
    let mut len = if walk.available < walk.left { walk.available } else { walk.left };
    if len > SOCKET_CHUNK as u64 {
        len = SOCKET_CHUNK as u64;
    }
    if len <= 256 {
        chunk::<256>(&walk.record, walk.pointer, len);
    } else if len <= 2048 {
        chunk::<2048>(&walk.record, walk.pointer, len);
    } else if len <= 4096 {
        chunk::<4096>(&walk.record, walk.pointer, len);
    } else if len <= 8192 {
        chunk::<8192>(&walk.record, walk.pointer, len);
    } else {
        chunk::<SOCKET_CHUNK>(&walk.record, walk.pointer, len);
    }
    walk.record.offset += len;
    walk.pointer += len;
    walk.available -= len;
    walk.left -= len;
    walk.budget = walk.budget.saturating_sub(len);
    0
}

#[repr(C)]
struct Chunk<const N: usize> {
    record: Socket,
    bytes: [u8; N],
}

/// Sends one record with `len <= N` bytes; if they cannot be read, the record says so by having none.
#[inline(always)]
fn chunk<const N: usize>(record: &Socket, pointer: u64, len: u64) {
    let Some(mut entry) = reserve::<Chunk<N>>(Counter::Sockets, Counter::SocketsRingFull) else { return };
    let place = entry.as_mut_ptr();
    // SAFETY: `place` is the reserved entry: live, aligned, and ours until it is submitted.
    let copied = unsafe {
        (&raw mut (*place).record).write(*record);
        (*place).record.len = len;
        let bytes = (&raw mut (*place).bytes).cast::<u8>();
        match N {
            256 => copy_user::<256>(bytes, len, pointer),
            2048 => copy_user::<2048>(bytes, len, pointer),
            4096 => copy_user::<4096>(bytes, len, pointer),
            8192 => copy_user::<8192>(bytes, len, pointer),
            _ => copy_user::<{ SOCKET_CHUNK as u64 }>(bytes, len, pointer),
        }
    };
    if !copied {
        count(Counter::UserReadFailed);
    }
    // SAFETY: as above.
    unsafe { (*place).record.head.payload_len = if copied { len as u32 } else { 0 } };
    entry.submit(QUIET);
}

/// Sends one record that stands for `len` bytes that were not copied.
#[inline(always)]
pub fn without_bytes(record: &Socket, len: u64) {
    if let Some(mut entry) = reserve::<Socket>(Counter::Sockets, Counter::SocketsRingFull) {
        let place = entry.write(*record);
        place.len = len;
        entry.submit(QUIET);
    }
}

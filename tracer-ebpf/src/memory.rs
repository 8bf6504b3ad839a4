//! All reads of user and kernel memory. They fail instead of faulting, and they never write.

use aya_ebpf::helpers::generated;

/// Reads a `T` from the interrupted process; `None` when the page is not there.
#[inline(always)]
pub fn user<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: `value` is a live local of exactly the size given, and the helper writes nothing else.
    let status =
        unsafe { generated::bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    (status == 0).then_some(value)
}

/// Reads a `T` from the kernel; `None` when the address is bad.
#[inline(always)]
pub fn kernel<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: `value` is a live local of exactly the size given, and the helper writes nothing else.
    let status = unsafe {
        generated::bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _)
    };
    (status == 0).then_some(value)
}

/// Copies `len` user bytes to `to`, which must have room for `CAP`; more than `CAP` is refused.
#[inline(always)]
pub fn copy_user<const CAP: u64>(to: *mut u8, len: u64, from: u64) -> bool {
    if len == 0 {
        return true;
    }
    // The compiler knows from the caller that this holds and would leave it out; the verifier of Linux 6.1 does not, and
    // refuses the program. A volatile read makes the compiler forget.
    // SAFETY: the address of a live local.
    let len = unsafe { (&raw const len).read_volatile() };
    if len > CAP {
        return false;
    }
    // SAFETY: the caller gives `CAP` writable bytes (the verifier checks it too), and `len <= CAP`.
    unsafe { generated::bpf_probe_read_user(to.cast(), len as u32, from as *const _) == 0 }
}

//! The one USDT site: provider `tracer`, name `span`, hit once per recorded span, at its end.
//!
//! Arguments: the address of a [`crate::record::SpanRecord`] (8 bytes, in rdi) and its length (8 bytes, in rsi).
//! The note's location is a `nop`; a `nop10` follows at +1 and a `nop5` at +11, one for each way in which kernels
//! optimise a probe. The semaphore, a `u16` in `.probes`, counts the listeners: at zero nobody pays.

use crate::record::{self, SpanRecord};
use core::sync::atomic::{AtomicU16, Ordering};

/// The count of listeners, on a page of its own.
///
/// The kernel raises the count of a program that starts while somebody listens when it maps the file page of the count as
/// writable for the first time. lld's data segment may share its first file page with the read-only-after-relocation
/// segment before it, which is mapped first: the kernel would raise a byte of that one.
///
/// Behind the count it says where the flows of tokio's tasks are, for a listener that knows which task a thread runs.
#[repr(C, align(4096))]
struct Semaphore {
    listeners: AtomicU16,
    /// [`record::FLOWS_VERSION`].
    version: u16,
    /// Number of slots, a power of two; 0 without the feature `tokio`.
    slots: u32,
    flows: *const Flows,
}

#[cfg(feature = "tokio")]
use crate::flows::Slot as Flows;
#[cfg(not(feature = "tokio"))]
type Flows = ();

// SAFETY: the pointer is to a static that is shared between threads anyway, and nobody here follows it.
unsafe impl Sync for Semaphore {}

// SAFETY: `.probes` is an ordinary writable data section of this name by convention; the kernel counts listeners in it.
#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), unsafe(link_section = ".probes"))]
#[used]
static SEMAPHORE: Semaphore = Semaphore {
    listeners: AtomicU16::new(0),
    version: record::FLOWS_VERSION,
    #[cfg(feature = "tokio")]
    slots: crate::flows::SLOTS as u32,
    #[cfg(not(feature = "tokio"))]
    slots: 0,
    #[cfg(feature = "tokio")]
    flows: (&raw const crate::flows::FLOWS).cast(),
    #[cfg(not(feature = "tokio"))]
    flows: core::ptr::null(),
};

/// Somebody listens.
#[inline(always)]
pub(crate) fn enabled() -> bool {
    #[cfg(test)]
    if capture::listening() {
        return true;
    }
    SEMAPHORE.listeners.load(Ordering::Relaxed) != 0
}

/// Hits the site. `len` bytes from `record` are initialised: the head and what follows it.
#[inline(never)]
pub(crate) fn fire(record: *const SpanRecord, len: usize) {
    #[cfg(test)]
    capture::keep(record, len);
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: three no-operations. Without `nostack` rustc keeps the red zone free here, which the kernels that turn the
    // nop5 into a call overwrite. The note and the base symbol are those of <sys/sdt.h>.
    unsafe {
        core::arch::asm!(
            r#"
990:    .byte 0x90
        .byte 0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
        .byte 0x0f,0x1f,0x44,0,0
        .pushsection .note.stapsdt,"?","note"
        .balign 4
        .4byte 992f-991f, 994f-993f, 3
991:    .asciz "stapsdt"
992:    .balign 4
993:    .8byte 990b
        .8byte _.stapsdt.base
        .8byte {semaphore}
        .asciz "tracer"
        .asciz "span"
        .asciz "8@%rdi 8@%rsi"
994:    .balign 4
        .popsection
        .ifndef _.stapsdt.base
        .pushsection .stapsdt.base,"aGR","progbits",.stapsdt.base,comdat
        .weak _.stapsdt.base
        .hidden _.stapsdt.base
_.stapsdt.base: .space 1
        .size _.stapsdt.base, 1
        .popsection
        .endif
            "#,
            semaphore = sym SEMAPHORE,
            in("rdi") record,
            in("rsi") len,
            options(att_syntax, preserves_flags, readonly)
        );
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let _ = (record, len);
}

/// A listener inside the test process, for one thread.
#[cfg(test)]
pub(crate) mod capture {
    use super::*;
    use crate::record::ParsedSpan;
    use std::cell::RefCell;

    thread_local! {
        static SEEN: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
    }

    pub(super) fn listening() -> bool {
        SEEN.with_borrow(Option::is_some)
    }

    pub(super) fn keep(record: *const SpanRecord, len: usize) {
        // SAFETY: `fire` is given `len` initialised bytes.
        let bytes = unsafe { core::slice::from_raw_parts(record.cast::<u8>(), len) };
        SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(bytes.to_vec())));
    }

    /// Runs `f` with a listener, then `check` with the spans that this thread fired.
    pub(crate) fn spans<R>(f: impl FnOnce() -> R, check: impl FnOnce(R, &[ParsedSpan<'_>])) {
        SEEN.set(Some(Vec::new()));
        let result = f();
        let records = SEEN.take().expect("set above");
        let parsed: Vec<_> = records.iter().map(|bytes| SpanRecord::parse(bytes).expect("a record")).collect();
        check(result, &parsed);
    }
}

//! `otel_thread_ctx_v1`, the thread-local symbol through which readers find a thread's active context (OTEP 4947).
//!
//! The symbol is weak: with two versions of this crate, or another library that defines it, all share one slot.
//! `build.rs` brings it into the dynamic symbol table.

use crate::thread::Record;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod imp {
    use super::Record;
    use core::arch::{asm, global_asm};

    global_asm!(
        r#"
        .pushsection .tbss.otel_thread_ctx_v1,"awT",@nobits
        .weak otel_thread_ctx_v1
        .type otel_thread_ctx_v1, @object
        .size otel_thread_ctx_v1, 8
        .p2align 3
otel_thread_ctx_v1:
        .zero 8
        .popsection
        "#,
        options(att_syntax)
    );

    /// The calling thread's slot.
    pub(super) fn slot() -> *mut *const Record {
        let slot: *mut *const Record;
        // SAFETY: the TLS descriptor sequence of the x86-64 psABI, which the linker relaxes to a constant in executables.
        // The descriptor's function changes rax and the flags only; `call` uses the stack, hence no `nostack`.
        unsafe {
            asm!(
                "leaq otel_thread_ctx_v1@tlsdesc(%rip), %rax",
                "call *otel_thread_ctx_v1@tlscall(%rax)",
                "addq %fs:0, %rax",
                out("rax") slot,
                options(att_syntax)
            );
        }
        slot
    }
}

/// Makes `record`, which lives in the calling thread's thread-local storage, the thread's active record.
#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), expect(unused_variables, reason = "no slot there"))]
pub(crate) fn publish(record: &Record) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: the slot is a pointer-sized, aligned variable of this thread that only this thread writes; readers interrupt
    // this thread, so a plain store is seen whole.
    unsafe {
        imp::slot().write_volatile(record);
    }
}

/// What a reader would see: valid, trace id, span id, flags.
#[cfg(test)]
pub(crate) fn read() -> Option<(u8, crate::TraceId, crate::SpanId, u8)> {
    // SAFETY: the slot is null or points to the 28-byte record of this thread.
    let bytes = unsafe {
        let record = imp::slot().read_volatile().cast::<[u8; 28]>();
        record.as_ref()?
    };
    let trace = crate::TraceId::from_bytes(bytes[..16].try_into().expect("16 bytes"));
    let span = crate::SpanId::from_bytes(bytes[16..24].try_into().expect("8 bytes"));
    Some((bytes[24], trace, span, bytes[25]))
}

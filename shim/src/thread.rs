//! What a thread knows: its active context, and the generator of its ids.
//!
//! Two things can set the active context. A **guard** (an entered span, [`crate::Context::attach`], a future with a
//! context) sets it for a scope. A **decoded message** moves it within the innermost scope, so that what follows belongs
//! to that message until the next one, or until the scope ends. The active context is always the one that readers of
//! OTEP 4947 see.
//!
//! With the feature `tokio`, messages that a task decodes outside of any scope move the context of that task instead
//! ([`crate::flows`]), on whatever thread it goes on. Readers do not see that one: they have the task's number.

use crate::context::Context;
use crate::id::Generator;
use crate::slot;
use std::cell::Cell;
use std::sync::atomic::{Ordering, compiler_fence};

/// The record of OTEP 4947, without attributes: 28 bytes.
#[repr(C)]
pub(crate) struct Record {
    trace_id: [Cell<u64>; 2],
    span_id: Cell<u64>,
    valid: Cell<u8>,
    trace_flags: Cell<u8>,
    attrs_size: Cell<u16>,
}

const _: () = assert!(core::mem::offset_of!(Record, attrs_size) == 26);

struct State {
    record: Record,
    /// The last word of the active context: what the record does not say.
    bits: Cell<u64>,
    /// The active context is that of a decoded message, not of the scope.
    moved: Cell<bool>,
    published: Cell<bool>,
    /// The context of the innermost scope.
    scope: Cell<Context>,
    /// There is a scope. Outside of any, tokio's tasks have flows of their own.
    scoped: Cell<bool>,
    generator: Generator,
}

thread_local! {
    static STATE: State = const {
        State {
            record: Record {
                trace_id: [const { Cell::new(0) }; 2],
                span_id: Cell::new(0),
                valid: Cell::new(0),
                trace_flags: Cell::new(0),
                attrs_size: Cell::new(0),
            },
            bits: Cell::new(0),
            moved: Cell::new(false),
            published: Cell::new(false),
            scope: Cell::new(Context::NONE),
            scoped: Cell::new(false),
            generator: Generator::new(),
        }
    };
}

/// What a guard puts back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    pub(crate) current: Context,
    scope: Context,
    moved: bool,
    scoped: bool,
}

impl Saved {
    /// A fresh scope with this context.
    pub(crate) fn scope(context: Context) -> Self {
        Self { current: context, scope: context, moved: false, scoped: true }
    }
}

impl State {
    #[inline(always)]
    fn current(&self) -> Context {
        let [a, b] = &self.record.trace_id;
        Context::from_words([a.get(), b.get(), self.record.span_id.get(), self.bits.get()])
    }

    #[inline(always)]
    fn publish(&self, context: Context) {
        if !self.published.get() {
            self.first_use();
        }
        // The reader interrupts this very thread, so keeping the compiler from moving the stores is all it takes.
        self.record.valid.set(0);
        compiler_fence(Ordering::SeqCst);
        let [a, b, span, bits] = context.to_words();
        self.record.trace_id[0].set(a);
        self.record.trace_id[1].set(b);
        self.record.span_id.set(span);
        self.record.trace_flags.set(context.trace_flags());
        compiler_fence(Ordering::SeqCst);
        self.record.valid.set(u8::from(context.is_valid()));
        self.bits.set(bits);
    }

    /// The tokio task that runs here outside of any scope.
    #[cfg(feature = "tokio")]
    #[inline]
    fn task(&self) -> Option<std::num::NonZeroU64> {
        if self.scoped.get() { None } else { crate::tokio::task() }
    }

    #[cold]
    fn first_use(&self) {
        self.published.set(true);
        slot::publish(&self.record);
        crate::process::publish_once();
    }
}

/// The active context.
#[inline]
pub(crate) fn current() -> Context {
    STATE.with(|state| {
        if !state.published.get() {
            state.first_use();
        }
        #[cfg(feature = "tokio")]
        if let Some(task) = state.task() {
            return crate::flows::get(task);
        }
        state.current()
    })
}

/// The context of the innermost scope, whatever has been decoded in it.
#[inline]
pub(crate) fn scope() -> Context {
    STATE.with(|state| state.scope.get())
}

/// Begins a scope.
#[inline(always)]
pub(crate) fn attach(context: Context) -> Saved {
    replace(Saved::scope(context))
}

/// Puts `next` in place and returns what was there.
#[inline(always)]
pub(crate) fn replace(next: Saved) -> Saved {
    STATE.with(|state| {
        let previous = Saved {
            current: state.current(),
            scope: state.scope.get(),
            moved: state.moved.get(),
            scoped: state.scoped.get(),
        };
        state.scope.set(next.scope);
        state.moved.set(next.moved);
        state.scoped.set(next.scoped);
        state.publish(next.current);
        previous
    })
}

/// Ends a scope.
#[inline(always)]
pub(crate) fn restore(saved: Saved) {
    replace(saved);
}

/// A message has been decoded: `context` is what follows belongs to, or [`Context::NONE`] when it belongs to nothing known.
///
/// A reply in the trace of the scope, or a message that says nothing, leaves the scope's own context active.
#[inline]
pub(crate) fn decoded(context: Context) {
    STATE.with(|state| {
        #[cfg(feature = "tokio")]
        if let Some(task) = state.task() {
            crate::flows::set(task, context);
            // What the thread itself decoded before it polled tasks is not this task's.
            if state.moved.replace(false) {
                state.publish(Context::NONE);
            }
            return;
        }
        let scope = state.scope.get();
        let stays = scope.is_valid() && (!context.is_valid() || context.same_trace(scope));
        state.moved.set(!stays);
        state.publish(if stays { scope } else { context });
    });
}

/// Runs `f` with the thread's generator of ids.
pub(crate) fn ids<R>(f: impl FnOnce(&Generator) -> R) -> R {
    STATE.with(|state| f(&state.generator))
}

/// Forgets the generator's state: two processes must not continue the same sequence.
pub(crate) fn reset_after_fork() {
    STATE.with(|state| state.generator.reset());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SpanId, TraceId};

    fn context(n: u8) -> Context {
        Context::new(TraceId::from_bytes([n; 16]), SpanId::from_bytes([n; 8]), 1)
    }

    #[test]
    fn guards_nest_and_restore() {
        assert_eq!(current(), Context::NONE);
        let outer = context(1).attach();
        {
            let _inner = context(2).attach();
            assert_eq!(current(), context(2));
        }
        assert_eq!(current(), context(1));
        drop(outer);
        assert_eq!(current(), Context::NONE);
    }

    #[test]
    fn a_decoded_message_moves_the_context_until_the_next_or_the_end_of_the_scope() {
        decoded(context(1));
        assert_eq!(current(), context(1));
        {
            let _scope = Context::NONE.attach();
            assert_eq!(current(), Context::NONE);
            decoded(context(2));
            assert_eq!(current(), context(2));
        }
        assert_eq!(current(), context(1));
        decoded(Context::NONE);
        assert_eq!(current(), Context::NONE);
    }

    #[test]
    fn inside_a_scope_a_silent_message_or_a_reply_does_not_move_the_context() {
        let _scope = context(1).attach();
        decoded(Context::NONE);
        assert_eq!(current(), context(1));
        decoded(context(1).child(SpanId::from_bytes([9; 8])));
        assert_eq!(current(), context(1));
        decoded(context(2));
        assert_eq!((current(), scope()), (context(2), context(1)));
    }

    #[test]
    fn the_published_record_is_that_of_the_active_context() {
        let record = || slot::read().map(|(valid, trace, span, flags)| (valid, Context::new(trace, span, flags)));
        {
            let _scope = context(7).attach();
            assert_eq!(record(), Some((1, context(7))));
        }
        assert_eq!(record(), Some((0, Context::NONE)));
    }

    #[test]
    fn each_thread_has_its_own() {
        let _scope = context(3).attach();
        std::thread::spawn(|| assert_eq!(current(), Context::NONE)).join().expect("the assertion holds");
        assert_eq!(current(), context(3));
    }
}

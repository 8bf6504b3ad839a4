//! What a thread knows: its active context, and the generator of its ids.
//!
//! Two things can set the active context. A **guard** (an entered span, [`crate::Context::attach`], a future with a
//! context) sets it for a scope. A **decoded message** moves it within the innermost scope, so that what follows belongs
//! to that message until the next one, or until the scope ends. The active context is always the one that readers of
//! OTEP 4947 see.

use crate::context::Context;
use crate::id::{Generator, SpanId, TraceId};
use crate::slot;
use std::cell::Cell;
use std::sync::atomic::{Ordering, compiler_fence};

/// The record of OTEP 4947, without attributes.
#[repr(C)]
pub(crate) struct Record {
    trace_id: Cell<[u8; 16]>,
    span_id: Cell<[u8; 8]>,
    valid: Cell<u8>,
    trace_flags: Cell<u8>,
    attrs_size: Cell<u16>,
}

const _: () = assert!(size_of::<Record>() == 28 && align_of::<Record>() == 2);

struct State {
    record: Record,
    remote: Cell<bool>,
    /// The active context is that of a decoded message, not of the scope.
    moved: Cell<bool>,
    published: Cell<bool>,
    /// The context of the innermost scope.
    scope: Cell<Context>,
    generator: Generator,
}

thread_local! {
    static STATE: State = const {
        State {
            record: Record {
                trace_id: Cell::new([0; 16]),
                span_id: Cell::new([0; 8]),
                valid: Cell::new(0),
                trace_flags: Cell::new(0),
                attrs_size: Cell::new(0),
            },
            remote: Cell::new(false),
            moved: Cell::new(false),
            published: Cell::new(false),
            scope: Cell::new(Context::NONE),
            generator: Generator::new(),
        }
    };
}

/// What a guard puts back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    current: Context,
    scope: Context,
    moved: bool,
}

impl Saved {
    /// A fresh scope with this context.
    pub(crate) fn scope(context: Context) -> Self {
        Self {
            current: context,
            scope: context,
            moved: false,
        }
    }
}

impl State {
    #[inline]
    fn current(&self) -> Context {
        Context {
            trace_id: TraceId::from_bytes(self.record.trace_id.get()),
            span_id: SpanId::from_bytes(self.record.span_id.get()),
            flags: self.record.trace_flags.get(),
            remote: self.remote.get(),
        }
    }

    #[inline]
    fn publish(&self, context: Context) {
        if !self.published.get() {
            self.first_use();
        }
        // The reader interrupts this very thread, so keeping the compiler from moving the stores is all it takes.
        self.record.valid.set(0);
        compiler_fence(Ordering::SeqCst);
        self.record.trace_id.set(context.trace_id.to_bytes());
        self.record.span_id.set(context.span_id.to_bytes());
        self.record.trace_flags.set(context.flags);
        compiler_fence(Ordering::SeqCst);
        self.record.valid.set(u8::from(context.is_valid()));
        self.remote.set(context.remote);
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
    STATE.with(State::current)
}

/// The context of the innermost scope, whatever has been decoded in it.
#[inline]
pub(crate) fn scope() -> Context {
    STATE.with(|state| state.scope.get())
}

/// Begins a scope.
#[inline]
pub(crate) fn attach(context: Context) -> Saved {
    replace(Saved::scope(context))
}

/// Puts `next` in place and returns what was there.
#[inline]
pub(crate) fn replace(next: Saved) -> Saved {
    STATE.with(|state| {
        let previous = Saved {
            current: state.current(),
            scope: state.scope.get(),
            moved: state.moved.get(),
        };
        state.scope.set(next.scope);
        state.moved.set(next.moved);
        state.publish(next.current);
        previous
    })
}

/// Ends a scope.
#[inline]
pub(crate) fn restore(saved: Saved) {
    replace(saved);
}

/// A message has been decoded: `context` is what follows belongs to, or [`Context::NONE`] when it belongs to nothing known.
///
/// A reply in the trace of the scope, or a message that says nothing, leaves the scope's own context active.
#[inline]
pub(crate) fn decoded(context: Context) {
    STATE.with(|state| {
        let scope = state.scope.get();
        let stays = scope.is_valid() && (!context.is_valid() || context.trace_id == scope.trace_id);
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
        decoded(Context {
            span_id: SpanId::from_bytes([9; 8]),
            ..context(1)
        });
        assert_eq!(current(), context(1));
        decoded(context(2));
        assert_eq!((current(), scope()), (context(2), context(1)));
    }

    #[test]
    fn the_published_record_is_that_of_the_active_context() {
        let record = || {
            slot::read()
                .map(|(valid, trace, span, flags)| (valid, Context::new(trace, span, flags)))
        };
        {
            let _scope = context(7).attach();
            assert_eq!(record(), Some((1, context(7))));
        }
        assert_eq!(record(), Some((0, Context::NONE)));
    }

    #[test]
    fn each_thread_has_its_own() {
        let _scope = context(3).attach();
        std::thread::spawn(|| assert_eq!(current(), Context::NONE))
            .join()
            .expect("the assertion holds");
        assert_eq!(current(), context(3));
    }
}

//! Context of futures: what is active inside a future is active at each of its polls, on whatever thread.

use crate::context::Context;
use crate::span::Span;
use crate::thread::{self, Saved};
use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

/// Gives futures a context of their own.
///
/// A future with a context is a scope like a guard: messages decoded in it move its context, and nothing else's, and what
/// they moved it to is there again at the next poll. So a task that decodes a message, awaits, and encodes another one
/// keeps them in one trace, whatever other tasks do on its threads meanwhile.
pub trait FutureExt: Future + Sized {
    /// Polls the future with `context` active. A task that handles messages of its own begins with [`Context::NONE`].
    ///
    /// ```
    /// use tracer_shim::{Context, FutureExt};
    ///
    /// # async fn serve() {}
    /// # async fn audit() {}
    /// let task = serve().with_context(Context::NONE); // to be spawned: it begins a flow of its own
    /// let child = audit().with_context(Context::current()); // belongs to what is active here
    /// # drop((task, child));
    /// ```
    fn with_context(self, context: Context) -> WithContext<Self> {
        WithContext { future: self, state: Saved::scope(context) }
    }

    /// Polls the future with `span` active, and ends the span when the future is done or dropped.
    fn in_span(self, span: Span) -> InSpan<Self> {
        InSpan { future: self.with_context(span.context()), span: Some(span) }
    }
}

impl<F: Future> FutureExt for F {}

/// A future with a context; see [`FutureExt::with_context`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct WithContext<F> {
    future: F,
    state: Saved,
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned with `self`: it is never moved out of it, and there is no `Drop` that could. `state`
        // is plain data.
        let (future, state) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.state)
        };
        let _scope = Swapped::new(state);
        future.poll(cx)
    }
}

/// The state of a future is in place while this lives; what was there before comes back even when a poll panics.
struct Swapped<'a> {
    state: &'a mut Saved,
}

impl<'a> Swapped<'a> {
    #[inline]
    fn new(state: &'a mut Saved) -> Self {
        *state = thread::replace(*state);
        Self { state }
    }
}

impl Drop for Swapped<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.state = thread::replace(*self.state);
    }
}

impl<F> WithContext<F> {
    /// The context that is active at the next poll: the one given, or that of the message decoded last in the future.
    pub fn context(&self) -> Context {
        self.state.current
    }
}

impl<F> fmt::Debug for WithContext<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithContext").field("context", &self.context()).finish_non_exhaustive()
    }
}

/// A future with a span; see [`FutureExt::in_span`].
#[must_use = "futures do nothing unless they are awaited"]
#[derive(Debug)]
pub struct InSpan<F> {
    future: WithContext<F>,
    span: Option<Span>,
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        // SAFETY: as for `WithContext`; `span` does not care where it is.
        let (future, span) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.span)
        };
        let result = future.poll(cx);
        if result.is_ready() {
            drop(span.take());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{SpanId, TraceId};
    use std::pin::pin;
    use std::task::Waker;

    fn context(n: u8) -> Context {
        Context::new(TraceId::from_bytes([n; 16]), SpanId::from_bytes([n; 8]), 1)
    }

    /// Ready at the second poll.
    async fn pause() {
        let mut first = true;
        std::future::poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    #[test]
    fn two_interleaved_futures_keep_their_own_flows() {
        let flow = |n| async move {
            thread::decoded(context(n));
            pause().await;
            Context::current()
        };
        let (mut a, mut b) = (pin!(flow(1).with_context(Context::NONE)), pin!(flow(2).with_context(Context::NONE)));
        let mut cx = task::Context::from_waker(Waker::noop());
        let _outer = context(9).attach();
        assert!(a.as_mut().poll(&mut cx).is_pending() && b.as_mut().poll(&mut cx).is_pending());
        assert_eq!((a.context(), b.context(), Context::current()), (context(1), context(2), context(9)));
        assert_eq!(a.as_mut().poll(&mut cx), Poll::Ready(context(1)));
        assert_eq!(b.as_mut().poll(&mut cx), Poll::Ready(context(2)));
        assert_eq!(Context::current(), context(9));
    }

    #[test]
    fn a_future_that_panics_leaves_the_context_as_it_was() {
        let future = async { panic!("on purpose") };
        let mut future = Box::pin(future.with_context(context(1)));
        let poll = std::panic::AssertUnwindSafe(|| -> Poll<()> {
            future.as_mut().poll(&mut task::Context::from_waker(Waker::noop()))
        });
        assert!(std::panic::catch_unwind(poll).is_err());
        assert_eq!(Context::current(), Context::NONE);
    }

    #[test]
    fn a_span_of_a_future_lasts_from_its_start_to_the_end_of_the_future() {
        crate::site::capture::spans(
            || {
                let span = Span::new("task");
                let expected = span.context();
                let future = async move {
                    assert_eq!(Context::current(), expected);
                    pause().await;
                    assert_eq!(Context::current(), expected);
                    drop(crate::span("inner"));
                };
                let mut future = pin!(future.in_span(span));
                let mut cx = task::Context::from_waker(Waker::noop());
                assert!(future.as_mut().poll(&mut cx).is_pending());
                assert_eq!(Context::current(), Context::NONE);
                assert!(future.as_mut().poll(&mut cx).is_ready());
            },
            |(), seen| {
                let [inner, task] = seen else { panic!("{seen:?}") };
                assert_eq!((inner.name, task.name), ("inner", "task"));
                assert_eq!(inner.head.parent_span_id, task.head.span_id);
            },
        );
    }
}

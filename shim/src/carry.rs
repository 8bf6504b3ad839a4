//! Carrying a context to other threads and through queues.

use crate::context::{Context, Guard};
use std::thread::JoinHandle;

/// An item in a queue, with the context in which it was put there.
///
/// ```
/// use std::sync::mpsc;
/// use tracer_shim::Traced;
///
/// let (sender, receiver) = mpsc::channel();
/// sender.send(Traced::new("order 7"))?;
/// let (order, _scope) = receiver.recv()?.enter();
/// assert_eq!(order, "order 7"); // what happens here belongs to what was active at the sender
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Traced<T> {
    item: T,
    context: Context,
}

impl<T> Traced<T> {
    /// With the context that is active here.
    pub fn new(item: T) -> Self {
        Self::with_context(item, Context::current())
    }

    /// With this context.
    pub fn with_context(item: T, context: Context) -> Self {
        Self { item, context }
    }

    /// The context that came with the item.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Takes the item out, and makes its context the active one until the guard is dropped.
    #[must_use = "the context is active until the guard is dropped"]
    pub fn enter(self) -> (T, Guard) {
        (self.item, self.context.attach())
    }

    /// The item and its context.
    pub fn into_parts(self) -> (T, Context) {
        (self.item, self.context)
    }

    /// The item, to look at.
    pub fn get(&self) -> &T {
        &self.item
    }
}

/// `std::thread::spawn`, with the context that is active here active there.
///
/// # Panics
/// As `std::thread::spawn`: when the system grants no thread.
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(Context::current().bind(f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SpanId, TraceId};

    #[test]
    fn threads_and_items_carry_the_context_of_where_they_began() {
        let context = Context::new(TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]), 1);
        let (item, thread) = {
            let _scope = context.attach();
            (Traced::new(5), spawn(Context::current))
        };
        assert_eq!(thread.join().expect("the thread does not panic"), context);
        assert_eq!((Context::current(), item.context(), *item.get()), (Context::NONE, context, 5));
        let (value, scope) = item.enter();
        assert_eq!((value, Context::current()), (5, context));
        drop(scope);
        assert_eq!(item.into_parts(), (5, context));
    }
}

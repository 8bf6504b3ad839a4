//! Contexts in tokio (feature `tokio`).
//!
//! With this feature, messages that a task decodes move the context of that task only, wherever the runtime polls it: an
//! unchanged service keeps decode, await and encode of a task in one trace. A spawned task begins with nothing; [`spawn`]
//! and its kin let it begin with what is active where it is spawned.

use crate::context::Context;
use crate::future::FutureExt;
use ::tokio::task::{self, JoinHandle};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;

/// `tokio::spawn`, with the context that is active here active in the task.
///
/// # Panics
/// As `tokio::spawn`: outside of a runtime.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    task::spawn(future.with_context(Context::current()))
}

/// `tokio::task::spawn_local`, with the context that is active here active in the task.
///
/// # Panics
/// As `tokio::task::spawn_local`: outside of a `LocalSet`.
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    task::spawn_local(future.with_context(Context::current()))
}

/// `tokio::task::spawn_blocking`, with the context that is active here active in the closure.
///
/// # Panics
/// As `tokio::task::spawn_blocking`: outside of a runtime.
pub fn spawn_blocking<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    task::spawn_blocking(Context::current().bind(f))
}

/// Number of the task that is being polled on this thread.
#[inline]
pub(crate) fn task() -> Option<NonZeroU64> {
    /// tokio shows the number of a task to hashers only, besides text.
    struct Number(u64);

    impl Hasher for Number {
        fn write(&mut self, bytes: &[u8]) {
            let mut word = [0; 8];
            let len = bytes.len().min(8);
            word[..len].copy_from_slice(&bytes[..len]);
            self.0 = u64::from_ne_bytes(word);
        }

        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    let mut number = Number(0);
    task::try_id()?.hash(&mut number);
    NonZeroU64::new(number.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::Message;
    use crate::{SpanId, TraceId};

    fn context(n: u32) -> Context {
        let mut trace = [0; 16];
        trace[..4].copy_from_slice(&(n + 1).to_be_bytes());
        Context::new(TraceId::from_bytes(trace), SpanId::from_bytes([1; 8]), 1).from_remote()
    }

    /// A message as another process sends it.
    fn message(n: u32) -> Vec<u8> {
        let _scope = context(n).attach();
        n.to_string().encode_to_vec()
    }

    async fn flow(n: u32) {
        for turn in 0..100 {
            let expected = context(n * 1000 + turn);
            String::decode(&message(n * 1000 + turn)[..]).unwrap();
            for _ in 0..turn % 4 {
                task::yield_now().await;
                assert_eq!(Context::current(), expected);
            }
            let sent = "answer".to_owned().encode_to_vec();
            assert_eq!(crate::header::read(&sent), Some(expected));
        }
    }

    fn runtime() -> ::tokio::runtime::Runtime {
        ::tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap()
    }

    #[test]
    fn flows_of_64_tasks_survive_awaits_and_stay_apart() {
        runtime().block_on(async {
            let plain: Vec<_> = (0..64).map(|n| ::tokio::spawn(flow(n))).collect();
            let scoped: Vec<_> = (64..128).map(|n| ::tokio::spawn(flow(n).with_context(Context::NONE))).collect();
            for task in plain.into_iter().chain(scoped) {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn spawned_work_belongs_to_what_was_active() {
        runtime().block_on(async {
            let (task, blocking) = {
                let _scope = context(7).attach();
                (spawn(async { Context::current() }), spawn_blocking(Context::current))
            };
            assert_eq!((task.await.unwrap(), blocking.await.unwrap()), (context(7), context(7)));
            assert_eq!(::tokio::spawn(async { Context::current() }).await.unwrap(), Context::NONE);
        });
    }

    #[test]
    fn the_number_of_a_task_is_the_one_that_it_shows() {
        runtime().block_on(async {
            let (number, text) = ::tokio::spawn(async { (task().unwrap(), task::id().to_string()) }).await.unwrap();
            assert_eq!(number.to_string(), text);
        });
    }
}

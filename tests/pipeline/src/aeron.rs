//! Publications and subscriptions that outlive the media driver: when it ends, they are opened again on the next one.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::{Context as _, Result};
use rusteron_client::{
    AERON_IPC_STREAM, Aeron, AeronCError, AeronContext, AeronPublication, AeronSubscription, Handlers,
};

use crate::Stop;

/// After so long without a sign of life the media driver is taken to be gone.
const DRIVER_TIMEOUT_MS: u64 = 2_000;
/// How long a publication or subscription may take to open.
const OPENING: Duration = Duration::from_secs(3);
/// How long a message may wait for a receiver.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a link is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// An idle poll sleeps so long at most: what a message may wait for its receiver.
const MAX_SLEEP: Duration = Duration::from_micros(100);
/// Messages taken at a time.
const FRAGMENTS: usize = 16;

/// Sends messages on a stream. Threads share it.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    link: RwLock<Option<Arc<Link>>>,
    /// The last message waited in vain: the next one does not wait.
    away: AtomicBool,
    ended: AtomicBool,
}

/// Dropped in this order.
struct Link {
    publication: AeronPublication,
    aeron: Aeron,
}

impl Publisher {
    /// Opens it in the background, and again when the driver in `dir` has been replaced.
    pub fn open(dir: &str, stream: i32) -> Self {
        let shared =
            Arc::new(Shared { link: RwLock::new(None), away: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let (kept, dir) = (Arc::clone(&shared), dir.to_owned());
        let keeper = thread::spawn(move || kept.keep(&dir, stream));
        Self { shared, keeper: Some(keeper) }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// No receiver, or no driver, for a second; the messages after that one fail at once until somebody receives again.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let link = self.shared.link.read().expect("no thread panics with it").clone();
            let offered = link.as_ref().map(|link| link.publication.offer(bytes));
            if let Some(Ok(_)) = offered {
                self.shared.away.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if self.shared.away.load(Ordering::Relaxed) || Instant::now() > until {
                self.shared.away.store(true, Ordering::Relaxed);
                return match offered {
                    Some(Err(error)) => Err(error).context("nobody receives"),
                    _ => anyhow::bail!("there is no media driver"),
                };
            }
            thread::sleep(MAX_SLEEP);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // It holds nothing that a panic could leave behind.
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn keep(&self, dir: &str, stream: i32) {
        while !self.ended.load(Ordering::Relaxed) {
            let alive =
                self.link.read().expect("no thread panics with it").as_ref().is_some_and(|link| link.is_alive());
            if !alive {
                // The old client first: it gives up its resources.
                *self.link.write().expect("no thread panics with it") = None;
                match Link::open(dir, stream) {
                    Ok(link) => *self.link.write().expect("no thread panics with it") = Some(Arc::new(link)),
                    Err(error) => eprintln!("stream {stream}: {error}"),
                }
            }
            thread::sleep(LOOK);
        }
    }
}

impl Link {
    fn open(dir: &str, stream: i32) -> Result<Self, AeronCError> {
        let aeron = connect(dir)?;
        let publication = aeron.async_add_publication(AERON_IPC_STREAM, stream)?.poll_blocking(OPENING)?;
        Ok(Self { publication, aeron })
    }

    fn is_alive(&self) -> bool {
        !self.aeron.is_closed() && !self.publication.is_closed()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("alive", &self.is_alive()).finish_non_exhaustive()
    }
}

/// Gives every message of a stream to `receive` until the service has to end. Messages are in one piece: they are shorter
/// than what Aeron splits.
pub fn receive(dir: &str, stream: i32, stop: &Stop, mut receive: impl FnMut(&[u8])) {
    while !stop.is_set() {
        match Incoming::open(dir, stream) {
            Ok(incoming) => incoming.poll(stop, &mut receive),
            Err(error) => {
                eprintln!("stream {stream}: {error}");
                thread::sleep(LOOK);
            }
        }
    }
}

/// Dropped in this order.
struct Incoming {
    subscription: AeronSubscription,
    aeron: Aeron,
}

impl Incoming {
    fn open(dir: &str, stream: i32) -> Result<Self, AeronCError> {
        let aeron = connect(dir)?;
        let subscription = aeron
            .async_add_subscription(AERON_IPC_STREAM, stream, Handlers::NONE, Handlers::NONE)?
            .poll_blocking(OPENING)?;
        Ok(Self { subscription, aeron })
    }

    /// Until the service has to end, or the driver has.
    fn poll(&self, stop: &Stop, receive: &mut impl FnMut(&[u8])) {
        let mut idle = Idle::default();
        while !stop.is_set() && !self.aeron.is_closed() && !self.subscription.is_closed() {
            match self.subscription.poll_fn(|bytes, _| receive(bytes), FRAGMENTS) {
                Ok(0) => idle.wait(),
                Ok(_) => idle = Idle::default(),
                Err(error) => {
                    eprintln!("poll: {error}");
                    return;
                }
            }
        }
    }
}

/// Looks again at once, then after ever longer sleeps.
#[derive(Default)]
struct Idle(u32);

impl Idle {
    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            ..=10 => std::hint::spin_loop(),
            11..=20 => thread::yield_now(),
            more => thread::sleep(MAX_SLEEP.min(Duration::from_micros(u64::from(more - 20) * 10))),
        }
    }
}

fn connect(dir: &str) -> Result<Aeron, AeronCError> {
    let dir = CString::new(dir).map_err(|_| AeronCError::from_code(-libc::EINVAL))?;
    let context = AeronContext::new()?;
    context.set_dir(&dir)?;
    context.set_driver_timeout_ms(DRIVER_TIMEOUT_MS)?;
    // Without a handler the client ends the process when the driver is gone.
    context.set_error_handler(Some(|code: i32, message: &str| eprintln!("aeron: {code} {message}")))?;
    let aeron = Aeron::new(&context)?;
    aeron.start()?;
    Ok(aeron)
}

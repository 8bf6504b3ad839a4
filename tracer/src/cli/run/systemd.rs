//! What systemd is told of a session: that it traces, that it is alive, and that it ends. Elsewhere nobody listens.
//!
//! The thread that says so is the one that takes the records, so a session that does not take any is one that the watchdog ends.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// What a service's manager has asked for.
#[derive(Debug)]
pub struct Systemd {
    /// How often it wants to hear that all is well.
    every: Option<Duration>,
    next: Instant,
}

impl Systemd {
    /// Says that the session has begun.
    pub fn ready(status: &str) -> Self {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        // Twice in the time that is allowed, as its manual has it.
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), next: Instant::now() }
    }

    /// Says that all is well, if it is time.
    pub fn alive(&mut self) {
        let Some(every) = self.every else { return };
        let now = Instant::now();
        if now >= self.next {
            self.next = now + every;
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Says that what follows is the end, which the watchdog has no part in.
    pub fn stopping(self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!("systemd cannot be told how the session goes: {error}");
    }
}

//! What takes longer than a second says what it is doing.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long a user waits without wondering.
const PATIENCE: Duration = Duration::from_secs(1);

/// Does the work, and says `what` it is if it is not done soon.
pub fn slow<T>(what: &str, work: impl FnOnce() -> T) -> T {
    said_after(PATIENCE, || tracing::info!("{what} ..."), work)
}

fn said_after<T>(patience: Duration, say: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (done, end) = channel::<()>();
    thread::scope(|scope| {
        // Without a thread nothing is said, and that is all.
        let _ = thread::Builder::new().name("patience".to_owned()).spawn_scoped(scope, move || {
            if end.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                say();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::said_after;

    #[test]
    fn only_what_is_slow_is_said() {
        let (said, hear) = channel();
        let say = || said.send(()).expect("the test listens");
        // The work is done when it has been said, so this would hang if it were not.
        said_after(Duration::ZERO, say, || hear.recv().expect("it is said"));
        assert_eq!(said_after(Duration::MAX, say, || 7), 7);
        assert!(hear.try_recv().is_err());
    }
}

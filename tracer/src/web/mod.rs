//! The browser view: what `tracer view FILE` and `tracer run --web` show on one page.
//!
//! ```text
//! pipeline --batches--> WebExporter --> Store (the newest spans) --> views (one file each) --JSON--> http --> page/
//! command line --balance, losses--------------> Web ---------------^
//! ```
//!
//! The [`Store`](store::Store) only keeps the batches that it is given. It finds traces in them when somebody looks, so a page that
//! nobody has open costs the memory of the spans and no time. Each file of `views` answers one question of the page as JSON and
//! knows nothing of HTTP; `http` lets in only whoever has the token. The page's script (`page/`) is built from `web/` by `cargo xtask
//! page` and embedded, with what lies in `web/static/`: nothing is fetched from anywhere else.

mod exporter;
mod http;
mod otlp_file;
mod store;
#[cfg(test)]
mod tests;
mod views;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use exporter::WebExporter;
pub use http::{Access, ListenError, Server, TokenError};
pub use otlp_file::{Damage, OtlpFile};
pub use store::{Bound, Store};

/// Who has asked within this time is still looking: the page asks every two seconds.
const LOOKING: Duration = Duration::from_secs(10);

/// What the server answers from.
#[derive(Debug)]
pub struct Web {
    /// Name of the file, or what is being traced.
    source: String,
    /// A session that goes on.
    live: bool,
    store: Arc<Store>,
    /// There is more to read.
    loading: AtomicBool,
    health: Mutex<Health>,
}

/// What the command line has posted.
#[derive(Debug, Default)]
struct Health {
    report: Value,
    /// When somebody has asked for it.
    asked: Option<Instant>,
}

impl Web {
    /// Without any spans. `source` is a name for people.
    pub fn new(source: String, live: bool, bound: Bound) -> Self {
        let store = Arc::new(Store::new(bound));
        Self { source, live, store, loading: AtomicBool::new(!live), health: Mutex::default() }
    }

    /// Gives spans to the page.
    pub fn exporter(&self) -> WebExporter {
        WebExporter::new(Arc::clone(&self.store))
    }

    /// Everything of the file has been read.
    pub fn loaded(&self) {
        self.loading.store(false, Ordering::Relaxed);
    }

    /// Whether somebody wants to see how the session is: to find out takes time.
    pub fn is_asked(&self) -> bool {
        self.health().asked.is_some_and(|asked| asked.elapsed() < LOOKING)
    }

    /// The balance, losses and targets.
    pub fn post_health(&self, report: Value) {
        self.health().report = report;
    }

    /// Somebody asks for the report.
    fn report(&self) -> Value {
        let mut health = self.health();
        health.asked = Some(Instant::now());
        health.report.clone()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // A report is replaced whole: what a thread that panicked has left is one.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

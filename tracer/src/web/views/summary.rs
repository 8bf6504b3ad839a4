//! What is shown, and how much of it.

use serde_json::{Value as Json, json};

use crate::web::Web;

/// Answers `/api/summary`.
pub fn summary(web: &Web, traces: usize) -> Json {
    let counts = web.store.counts();
    let loading = web.loading.load(std::sync::atomic::Ordering::Relaxed);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "source": web.source,
        "live": web.live,
        "loading": loading,
        "spans": counts.kept,
        "forgotten": counts.forgotten,
        "bound": web.store.bound().spans,
        "traces": traces,
    })
}

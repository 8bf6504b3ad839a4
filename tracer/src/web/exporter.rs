//! Gives the spans of a pipeline to the store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::store::Store;
use crate::export::{Exporter, Feed};

/// Keeps the newest spans for the page.
#[derive(Debug)]
pub struct WebExporter {
    store: Arc<Store>,
}

impl WebExporter {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Exporter for WebExporter {
    fn name(&self) -> String {
        "web".into()
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            while let Some(batch) = feed.next().await {
                let spans = batch.spans.len() as u64;
                self.store.push(batch);
                feed.tally().exported(spans);
            }
        })
    }
}

//! The store and the views on spans made by hand. The page itself is tested in a browser (`tests/tests/web.rs`).
#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

mod files;
mod store;
mod views;

use crate::model::HashMap;
use std::sync::Arc;

use super::store::{Bound, Store};
use crate::export::Batch;
use crate::model::{ProcessId, Resource, Span, SpanId, SpanKind, Status, TraceId, Value};

/// 2026-01-02 03:04:05, where the times of the spans begin.
const OFFSET: i64 = 1_767_323_045_000_000_000;

/// A span of trace `trace` with the number `id` (not 0), of the service `svc-1`.
fn span(trace: u8, id: u64, parent: Option<u64>, times: (u64, u64)) -> Span {
    Span {
        process: process(1),
        trace_id: TraceId([trace; 16]),
        span_id: number(id),
        parent: parent.map(number),
        parent_remote: false,
        flags: 1,
        trace_state: "".into(),
        name: format!("span {id}").into(),
        kind: SpanKind::Internal,
        start_ns: times.0,
        end_ns: times.1,
        attributes: Vec::new(),
        status: Status::Unset,
        links: Vec::new(),
        events: Vec::new(),
    }
}

fn number(id: u64) -> SpanId {
    SpanId(id.to_be_bytes())
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 1 }
}

/// The processes are of the services `svc-PID`.
fn batch(spans: Vec<Span>) -> Arc<Batch> {
    let mut resources = HashMap::default();
    for span in &spans {
        let name = Value::Str(format!("svc-{}", span.process.pid).into());
        let attributes = vec![("service.name".into(), name)];
        resources.insert(span.process, Arc::new(Resource { process: span.process, attributes }));
    }
    Arc::new(Batch { spans, resources, clock_offset_ns: OFFSET })
}

fn filled(spans: Vec<Span>) -> Store {
    let store = Store::new(Bound::default());
    store.push(batch(spans));
    store
}

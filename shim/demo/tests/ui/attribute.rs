use tracer_shim::{TraceContext, trace_context};

#[trace_context]
#[derive(Clone, PartialEq, prost::Message)]
struct NoTag {}

#[trace_context(tag = 0)]
struct Zero;

#[trace_context(field = 4)]
struct Wrong;

#[trace_context]
struct Twice {
    trace_context: TraceContext,
}

fn main() {}

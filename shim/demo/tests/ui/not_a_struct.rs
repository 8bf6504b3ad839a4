use tracer_shim::{Span, TraceContext, trace_context};

#[trace_context]
enum Event {
    New,
}

#[derive(Span)]
union Bits {
    trace_context: u64,
}

#[derive(Span)]
enum Pair {
    Both(#[trace(inner)] u32, u32),
}

#[derive(Span)]
struct Two {
    #[trace(context)]
    a: TraceContext,
    #[trace(context)]
    b: TraceContext,
}

#[derive(Span)]
struct Typo {
    #[trace(contxt)]
    a: TraceContext,
}

fn main() {}

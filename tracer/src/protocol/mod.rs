//! What the captured bytes say: RESP, TraceContext. Pure and incremental.

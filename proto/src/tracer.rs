#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct TraceContext {
    /// 32 lower-case hexadecimal digits (W3C trace-id).
    #[prost(string, tag = "1")]
    pub trace_id: ::prost::alloc::string::String,
    /// 16 lower-case hexadecimal digits (W3C parent-id): the sender's active span.
    #[prost(string, tag = "2")]
    pub span_id: ::prost::alloc::string::String,
    /// The sender records this trace.
    #[prost(bool, tag = "3")]
    pub sampled: bool,
}

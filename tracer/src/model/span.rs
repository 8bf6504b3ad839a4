//! A span, as it leaves the correlator and enters the exporters.

use std::borrow::Cow;

/// Text of a span. Short ones are in place and long ones are shared, so most spans need no memory of their own for it.
pub use smol_str::SmolStr as Text;

use super::ids::{SpanContext, SpanId, TraceId};
use super::process::ProcessId;

/// OTLP span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// Inside one process.
    Internal,
    /// Serves a request.
    Server,
    /// Makes a request.
    Client,
    /// Creates or sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// UTF-8 text.
    Str(Text),
    /// Integer.
    Int(i64),
    /// Floating point.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// List of texts (process.command_args).
    List(Vec<String>),
}

/// Name and value. Names are those of the semantic conventions, or begin with `tracer.`.
pub type Attribute = (Cow<'static, str>, Value);

/// OTLP status.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Status {
    /// Nothing said.
    #[default]
    Unset,
    /// Success, said by the instrumented code.
    Ok,
    /// Failure, with what is known of it.
    Error(Cow<'static, str>),
}

/// Relation to a span that is not the parent.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The other span.
    pub context: SpanContext,
    /// Why it is linked.
    pub attributes: Vec<Attribute>,
}

/// Something that happened at one time within a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// What happened.
    pub name: Text,
    /// Details.
    pub attributes: Vec<Attribute>,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Whose span it is; the exporters know its resource.
    pub process: ProcessId,
    /// Trace.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// Parent, `None` for the first span of a trace.
    pub parent: Option<SpanId>,
    /// True when the parent is in another process.
    pub parent_remote: bool,
    /// W3C trace flags.
    pub flags: u8,
    /// W3C `tracestate`, empty mostly.
    pub trace_state: Cow<'static, str>,
    /// Span name.
    pub name: Text,
    /// Span kind.
    pub kind: SpanKind,
    /// Start, nanoseconds of CLOCK_MONOTONIC; exporters turn it into wall-clock time.
    pub start_ns: u64,
    /// End, nanoseconds of CLOCK_MONOTONIC.
    pub end_ns: u64,
    /// Attributes.
    pub attributes: Vec<Attribute>,
    /// Status.
    pub status: Status,
    /// Links.
    pub links: Vec<Link>,
    /// Events.
    pub events: Vec<SpanEvent>,
}

impl Span {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().chain(self.links.iter().flat_map(|link| &link.attributes));
        let lists = size_of::<Attribute>() * (self.attributes.capacity() + self.links.len() * 4)
            + size_of::<Link>() * self.links.capacity()
            + size_of::<SpanEvent>() * self.events.capacity();
        size_of::<Self>() + lists + attributes.map(|(_, value)| value.bytes()).sum::<usize>()
    }
}

impl Value {
    /// About how many bytes it takes beside itself. A text that several spans share counts for each.
    fn bytes(&self) -> usize {
        match self {
            Self::Str(text) if text.is_heap_allocated() => text.len(),
            Self::List(texts) => texts.iter().map(|text| size_of::<String>() + text.len()).sum(),
            Self::Str(_) | Self::Int(_) | Self::Float(_) | Self::Bool(_) => 0,
        }
    }
}

/// What exporters must know of a process: its OTLP resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Whose resource.
    pub process: ProcessId,
    /// Resource attributes (`service.name`, `process.pid`, ...).
    pub attributes: Vec<Attribute>,
}

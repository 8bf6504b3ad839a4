//! Where in a trace a span goes, and whether it is kept.

use std::borrow::Cow;

use crate::model::{FLAG_RANDOM, FLAG_SAMPLED, ProcessId, Span, SpanContext, SpanId, SpanKind, Status, Text};
use crate::trace::ids::Ids;
use crate::trace::sampler::Sampler;

/// A span's own context and its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The span's own context.
    pub context: SpanContext,
    /// Its parent.
    pub parent: Option<SpanId>,
    /// The parent is in another process.
    pub parent_remote: bool,
}

impl Place {
    /// Below `parent`, or at the root of a new trace; the sampler decides at the root and where the parent is remote.
    pub fn below(parent: Option<&SpanContext>, ids: &mut Ids, sampler: &Sampler) -> Self {
        let span_id = ids.span();
        let Some(parent) = parent else {
            let trace_id = ids.trace();
            let decision = sampler.decide(None, trace_id);
            return Self {
                context: SpanContext {
                    trace_id,
                    span_id,
                    flags: FLAG_RANDOM | if decision.sampled { FLAG_SAMPLED } else { 0 },
                    remote: false,
                    trace_state: decision.trace_state.map_or(Cow::Borrowed(""), Cow::Owned),
                },
                parent: None,
                parent_remote: false,
            };
        };
        let mut context = SpanContext { span_id, remote: false, ..parent.clone() };
        if parent.remote {
            let decision = sampler.decide(Some(parent), parent.trace_id);
            context.flags = (parent.flags & !FLAG_SAMPLED) | if decision.sampled { FLAG_SAMPLED } else { 0 };
            if let Some(trace_state) = decision.trace_state {
                context.trace_state = Cow::Owned(trace_state);
            }
        }
        Self { context, parent: Some(parent.span_id), parent_remote: parent.remote }
    }

    /// The span of this place, from `times.0` to `times.1`, with nothing else known of it.
    pub fn span(&self, process: ProcessId, name: Text, kind: SpanKind, times: (u64, u64)) -> Span {
        Span {
            process,
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent: self.parent,
            parent_remote: self.parent_remote,
            flags: self.context.flags,
            trace_state: self.context.trace_state.clone(),
            name,
            kind,
            start_ns: times.0,
            end_ns: times.1,
            attributes: Vec::new(),
            status: Status::Unset,
            links: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether the span is kept.
    pub fn is_sampled(&self) -> bool {
        self.context.is_sampled()
    }
}

//! To and from the OpenTelemetry API (feature `opentelemetry`).
//!
//! ```
//! use opentelemetry::trace::{SpanContext, TraceContextExt};
//! use tracer_shim::Context;
//!
//! // What a message brought, as the parent of an OpenTelemetry span:
//! let parent = opentelemetry::Context::from(Context::current());
//! // The span of an SDK, as the parent of messages:
//! let _scope = Context::from(parent.span().span_context()).attach();
//! ```

use crate::context::Context;
use crate::id::{SpanId, TraceId};
use ::opentelemetry::Context as OtelContext;
use ::opentelemetry::propagation::text_map_propagator::FieldIter;
use ::opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use ::opentelemetry::trace::{self as otel, SpanContext, TraceContextExt, TraceFlags, TraceState};
use std::str::FromStr;

impl From<Context> for SpanContext {
    fn from(context: Context) -> Self {
        with_state(context, TraceState::NONE)
    }
}

fn with_state(context: Context, state: TraceState) -> SpanContext {
    SpanContext::new(
        otel::TraceId::from_bytes(context.trace_id().to_bytes()),
        otel::SpanId::from_bytes(context.span_id().to_bytes()),
        TraceFlags::new(context.trace_flags()),
        context.is_remote(),
        state,
    )
}

/// Without the trace state.
impl From<&SpanContext> for Context {
    fn from(span: &SpanContext) -> Self {
        let context = Self::new(
            TraceId::from_bytes(span.trace_id().to_bytes()),
            SpanId::from_bytes(span.span_id().to_bytes()),
            span.trace_flags().to_u8(),
        );
        if span.is_remote() { context.from_remote() } else { context }
    }
}

impl From<SpanContext> for Context {
    fn from(span: SpanContext) -> Self {
        Self::from(&span)
    }
}

impl From<SpanContext> for crate::TraceContext {
    fn from(span: SpanContext) -> Self {
        Self::from(Context::from(span))
    }
}

/// A context whose active span is this one, for use as a parent.
impl From<Context> for OtelContext {
    fn from(context: Context) -> Self {
        Self::new().with_remote_span_context(context.into())
    }
}

/// The W3C propagator, for everything that takes a [`TextMapPropagator`]. Where no OpenTelemetry span is active, what is
/// active in the shim is injected. All trace flags are passed on, the random one too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Propagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

impl TextMapPropagator for Propagator {
    fn inject_context(&self, cx: &OtelContext, injector: &mut dyn Injector) {
        let span = cx.span();
        let span = span.span_context();
        let context = if span.is_valid() { Context::from(span) } else { Context::current() };
        if context.is_valid() {
            injector.set(TRACEPARENT, context.to_string());
        }
        let state = span.trace_state().header();
        if span.is_valid() && !state.is_empty() {
            injector.set(TRACESTATE, state);
        }
    }

    fn extract_with_context(&self, cx: &OtelContext, extractor: &dyn Extractor) -> OtelContext {
        let Some(context) = extractor.get(TRACEPARENT).map(str::trim).and_then(Context::from_traceparent) else {
            return cx.clone();
        };
        let state = extractor.get(TRACESTATE).and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
        cx.with_remote_span_context(with_state(context, state))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: std::sync::LazyLock<[String; 2]> =
            std::sync::LazyLock::new(|| [TRACEPARENT, TRACESTATE].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::collections::HashMap;

    fn context() -> Context {
        Context::from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03").unwrap()
    }

    #[test]
    fn conversions_lose_nothing_but_the_state() {
        let span = SpanContext::from(context());
        assert_eq!((span.trace_id().to_string(), span.span_id().to_string()), {
            (context().trace_id().to_string(), context().span_id().to_string())
        });
        assert!(span.is_remote() && span.is_sampled());
        assert_eq!(Context::from(&span), context());
        assert_eq!(Context::from(OtelContext::from(context()).span().span_context()), context());
    }

    #[test]
    fn the_propagator_passes_everything_on_and_falls_back_to_the_shim() {
        let text = [(TRACEPARENT, context().to_string()), (TRACESTATE, "ot=th:c".to_owned())];
        let carrier: HashMap<String, String> = text.map(|(key, value)| (key.to_owned(), value)).into();
        let extracted = Propagator.extract_with_context(&OtelContext::new(), &carrier);
        let mut injected = HashMap::new();
        Propagator.inject_context(&extracted, &mut injected);
        assert_eq!(injected, carrier);

        let _scope = context().attach();
        let mut injected = HashMap::new();
        Propagator.inject_context(&OtelContext::new(), &mut injected);
        assert_eq!(injected, HashMap::from([(TRACEPARENT.to_owned(), context().to_string())]));

        let bad: HashMap<String, String> = [(TRACEPARENT.to_owned(), "nonsense".to_owned())].into();
        let nothing = Propagator.extract_with_context(&OtelContext::new(), &bad);
        assert!(!nothing.span().span_context().is_valid());
    }
}

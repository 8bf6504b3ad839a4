//! Layers for `tracing-subscriber` (feature `tracing`).
//!
//! - [`SpanLayer`]: the spans of `tracing` become spans of the tracer's agent, and parents of messages.
//! - [`ContextLayer`] (feature `tracing-opentelemetry`): where tracing-opentelemetry makes spans and exports them, they
//!   become parents of messages, and of what the agent sees.
//!
//! A span that is entered is a scope: a message decoded in it moves the context until the span is exited. An instrumented future
//! exits its span at every await; one that handles messages on both sides of an await does so in a future of its own, with
//! [`crate::FutureExt::with_context`] or [`crate::FutureExt::in_span`].
//!
//! ```
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let subscriber = tracing_subscriber::registry().with(tracer_shim::tracing::SpanLayer);
//! # drop(subscriber);
//! ```

use crate::context::Context;
use crate::span::Span;
use crate::thread::{self, Saved};
use ::tracing::field::{Field, Visit};
use ::tracing::span::{Attributes, Id, Record};
use ::tracing::{Event, Subscriber};
use std::cell::RefCell;
use std::fmt::Debug;
use tracing_subscriber::layer::{self, Layer};
use tracing_subscriber::registry::LookupSpan;

#[cfg(feature = "tracing-opentelemetry")]
pub use follow::ContextLayer;

thread_local! {
    /// Spans entered on this thread, innermost last, and what was active before each.
    static ENTERED: RefCell<Vec<(u64, Saved)>> = const { RefCell::new(Vec::new()) };
}

fn enter(id: &Id, context: Context) {
    let saved = thread::attach(context);
    // A thread that is ending keeps no list, and enters no more.
    let _ = ENTERED.try_with(|entered| entered.borrow_mut().push((id.into_u64(), saved)));
}

fn exit(id: &Id) {
    let _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        let Some(at) = entered.iter().rposition(|(entered, _)| *entered == id.into_u64()) else {
            return;
        };
        let (_, saved) = entered.remove(at);
        // Spans may be exited in any order: the one entered after this now goes back to what was before this.
        match entered.get_mut(at) {
            Some((_, later)) => *later = saved,
            None => thread::restore(saved),
        }
    });
}

/// Makes the spans of `tracing` spans of the tracer's agent: with their fields as attributes, their events as events, and
/// an error status where an event is an error. Where nobody listens, a span costs what the registry's own cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanLayer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: layer::Context<'_, S>) {
        let Some(new) = cx.span(id) else { return };
        let parent = match attributes.parent() {
            Some(parent) => cx.span(parent).and_then(|parent| parent.extensions().get::<Span>().map(Span::context)),
            None if attributes.is_root() => None,
            None => Some(Context::current()),
        };
        let mut span = Span::with_parent(parent.unwrap_or(Context::NONE), attributes.metadata().name());
        if span.is_recorded() {
            attributes.record(&mut ToAttributes(&mut span));
        }
        new.extensions_mut().insert(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: layer::Context<'_, S>) {
        let Some(changed) = cx.span(id) else { return };
        if let Some(span) = changed.extensions_mut().get_mut::<Span>() {
            values.record(&mut ToAttributes(span));
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: layer::Context<'_, S>) {
        let Some(current) = cx.event_span(event) else {
            return;
        };
        let mut extensions = current.extensions_mut();
        let Some(span) = extensions.get_mut::<Span>().filter(|span| span.is_recorded()) else {
            return;
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        let name = if message.0.is_empty() { event.metadata().name() } else { &message.0 };
        span.event(name);
        event.record(&mut ToEvent(span));
        if *event.metadata().level() == ::tracing::Level::ERROR {
            span.error(name);
        }
    }

    fn on_enter(&self, id: &Id, cx: layer::Context<'_, S>) {
        let context = cx.span(id).and_then(|span| span.extensions().get::<Span>().map(Span::context));
        enter(id, context.unwrap_or(Context::NONE));
    }

    fn on_exit(&self, id: &Id, _: layer::Context<'_, S>) {
        exit(id);
    }

    fn on_close(&self, id: Id, cx: layer::Context<'_, S>) {
        if let Some(closed) = cx.span(&id) {
            drop(closed.extensions_mut().remove::<Span>());
        }
    }
}

/// Declares a visitor that hands every field to a method of the span.
macro_rules! visitor {
    ($(#[$doc:meta])* $name:ident, $method:ident) => {
        $(#[$doc])*
        struct $name<'a>(&'a mut Span);

        impl Visit for $name<'_> {
            fn record_f64(&mut self, field: &Field, value: f64) {
                self.0.$method(field.name(), value);
            }

            fn record_i64(&mut self, field: &Field, value: i64) {
                self.0.$method(field.name(), value);
            }

            fn record_u64(&mut self, field: &Field, value: u64) {
                match i64::try_from(value) {
                    Ok(value) => self.0.$method(field.name(), value),
                    Err(_) => self.0.$method(field.name(), value.to_string().as_str()),
                };
            }

            fn record_bool(&mut self, field: &Field, value: bool) {
                self.0.$method(field.name(), value);
            }

            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.$method(field.name(), value);
            }

            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if self.0.is_recorded() && field.name() != "message" {
                    self.0.$method(field.name(), format!("{value:?}").as_str());
                }
            }
        }
    };
}

visitor! {
    /// Fields of a span.
    ToAttributes, attribute
}

visitor! {
    /// Fields of an event, its message apart.
    ToEvent, event_attribute
}

/// The text of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(feature = "tracing-opentelemetry")]
mod follow {
    use super::*;
    use ::opentelemetry::trace::TraceContextExt;
    use ::tracing::Dispatch;
    use ::tracing::dispatcher::WeakDispatch;
    use std::sync::OnceLock;

    /// Publishes the contexts of tracing-opentelemetry's spans: messages that are encoded inside them, Redis commands and
    /// whatever else the agent sees there become their children. It makes no spans of its own.
    ///
    /// ```
    /// use tracer_shim::tracing::ContextLayer;
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let opentelemetry = tracing_opentelemetry::layer();
    /// let subscriber = tracing_subscriber::registry().with(opentelemetry).with(ContextLayer::default());
    /// # drop(subscriber);
    /// ```
    #[derive(Debug, Default)]
    pub struct ContextLayer {
        dispatch: OnceLock<WeakDispatch>,
    }

    /// The context of a span, once it is known.
    struct Known(Context);

    impl ContextLayer {
        fn look_up(&self, id: &Id) -> Context {
            let dispatch = self.dispatch.get().and_then(WeakDispatch::upgrade);
            let found = dispatch.and_then(|dispatch| tracing_opentelemetry::get_otel_context(id, &dispatch));
            found.map_or(Context::NONE, |found| Context::from(found.span().span_context()))
        }
    }

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ContextLayer {
        fn on_register_dispatch(&self, dispatch: &Dispatch) {
            // A layer has one subscriber; a second registration would be of the same.
            let _ = self.dispatch.set(dispatch.downgrade());
        }

        fn on_enter(&self, id: &Id, cx: layer::Context<'_, S>) {
            let Some(span) = cx.span(id) else { return };
            let known = span.extensions().get::<Known>().map(|known| known.0);
            let context = known.unwrap_or_else(|| {
                let found = self.look_up(id);
                span.extensions_mut().insert(Known(found));
                found
            });
            // A span that tracing-opentelemetry leaves out changes nothing.
            enter(id, if context.is_valid() { context } else { Context::current() });
        }

        fn on_exit(&self, id: &Id, _: layer::Context<'_, S>) {
            exit(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Item, Status, Value};
    use crate::site::capture::spans;
    use ::tracing::{error, info, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_of_tracing_become_spans_of_the_agent() {
        let subscriber = tracing_subscriber::registry().with(SpanLayer);
        spans(
            || {
                ::tracing::subscriber::with_default(subscriber, || {
                    let outer = info_span!("outer", lots = 3, symbol = "ACME", later = ::tracing::field::Empty);
                    let _entered = outer.enter();
                    outer.record("later", true);
                    info!(answer = 42, "thinking");
                    info_span!("inner").in_scope(|| {
                        drop(crate::Message::encode_to_vec(&1_u32));
                        error!("no luck");
                    });
                    drop(info_span!(parent: None, "root"));
                });
            },
            |(), seen| {
                let [encode, inner, root, outer] = seen else { panic!("{seen:?}") };
                assert_eq!((inner.name, outer.name, root.name), ("inner", "outer", "root"));
                assert_eq!(encode.head.parent_span_id, inner.head.span_id);
                assert_eq!(inner.head.parent_span_id, outer.head.span_id);
                assert_ne!(root.head.trace_id, outer.head.trace_id);
                assert_eq!((inner.status, outer.status), (Status::Error, Status::Unset));
                let items: Vec<_> = outer.items().filter(|item| !matches!(item, Item::Event("thinking", _))).collect();
                assert_eq!(
                    items,
                    [
                        Item::Attribute("lots", Value::Int(3)),
                        Item::Attribute("symbol", Value::Str("ACME")),
                        Item::Attribute("later", Value::Bool(true)),
                        Item::EventAttribute("answer", Value::Int(42)),
                    ]
                );
            },
        );
        assert_eq!(Context::current(), Context::NONE);
    }

    #[test]
    fn spans_exited_out_of_order_leave_the_right_context() {
        let subscriber = tracing_subscriber::registry().with(SpanLayer);
        spans(
            || {
                ::tracing::subscriber::with_default(subscriber, || {
                    let (a, b) = (info_span!("a"), info_span!("b"));
                    let (in_a, in_b) = (a.clone().entered(), b.entered());
                    let inner = Context::current();
                    drop(in_a);
                    assert_eq!(Context::current(), inner);
                    drop(in_b);
                    assert_eq!(Context::current(), Context::NONE);
                });
            },
            |(), seen| assert_eq!(seen.len(), 2),
        );
    }

    #[cfg(feature = "tracing-opentelemetry")]
    #[test]
    fn spans_of_tracing_opentelemetry_become_parents() {
        use ::opentelemetry::trace::{TraceContextExt, TracerProvider};
        use tracing_opentelemetry::OpenTelemetrySpanExt;

        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let opentelemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(opentelemetry).with(ContextLayer::default());
        ::tracing::subscriber::with_default(subscriber, || {
            for _ in 0..2 {
                let span = info_span!("work");
                let _entered = span.enter();
                let expected = Context::from(span.context().span().span_context());
                assert!(expected.is_valid());
                assert_eq!(Context::current(), expected);
            }
            assert_eq!(Context::current(), Context::NONE);
        });
    }
}

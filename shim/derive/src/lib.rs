//! Macros of `tracer-shim`, which re-exports them: `#[derive(Span)]` for messages that carry a trace context, and
//! `#[trace_context]`, which gives a struct the field for it.

mod attribute;
mod carrier;
mod derive;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a message that has a trace context carry it.
///
/// The context is in the field `trace_context`, or in the field whose type is `TraceContext` or `Option<TraceContext>`, or in
/// the one marked `#[trace(context)]`. Its type is `tracer_shim::TraceContext` or any other with the fields
/// `trace_id: String`, `span_id: String` and `sampled: bool`, such as one generated from a `.proto` file.
///
/// A variant of an enum may have such a field, or hold a message that does, marked `#[trace(inner)]`, or neither.
///
/// For a type `Order` this gives:
/// - `Carrier for Order`: reads and sets the context;
/// - `From<Context> for Order`, for types with `Default`: a message with that context and nothing else;
/// - `TryFrom<&Order> for Context`: fails when the message carries no valid context;
/// - `Order::create_span(&self, name)`: a span that is a child of the sender's;
/// - with the feature `opentelemetry`, both conversions for `opentelemetry::trace::SpanContext`;
/// - when the field has a `#[prost(.., tag = "..")]`: the methods of `tracer_shim::Message` as methods of the type, with the
///   header in that field.
#[proc_macro_derive(Span, attributes(trace))]
pub fn derive_span(input: TokenStream) -> TokenStream {
    derive::expand(parse_macro_input!(input)).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Gives a struct the field `trace_context: Option<TraceContext>`. It goes above the derives, which then see the field.
///
/// A prost message needs the field's tag: `#[trace_context(tag = 15)]`. A type that derives `Serialize` or `Deserialize` has
/// it as `_trace_context`, and reads messages without it. A unit struct becomes one with this field.
#[proc_macro_attribute]
pub fn trace_context(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute::expand(arguments.into(), parse_macro_input!(item)).unwrap_or_else(syn::Error::into_compile_error).into()
}

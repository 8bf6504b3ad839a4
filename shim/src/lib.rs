//! Exact traces for services that send prost messages, for a one-line change.
//!
//! ```diff
//!  # Cargo.toml
//! +tracer-shim = "0.1"
//! ```
//! ```diff
//! -use prost::Message;
//! +use tracer_shim::Message;
//! ```
//!
//! Every message then carries a header that says which span sent it, the thread's active context follows the messages it
//! decodes, and the tracer's agent, when there is one, sees one span per encode and decode. When there is none, a message
//! costs 35 bytes and a few nanoseconds. There is no thread, no runtime, no lock and no allocation on a message's path.
//!
//! For messages that are made with prost 0.12 or 0.13: `default-features = false` and the feature `prost-0_12` or `prost-0_13`.
//!
//! [`span`] and [`process`] add spans of the program's own. [`Context`] carries the active span to other threads, tasks and
//! queues. [`init`] names the service.

#[cfg(feature = "prost-0_12")]
extern crate prost_0_12 as prost;
#[cfg(feature = "prost-0_13")]
extern crate prost_0_13 as prost;

#[cfg(not(any(feature = "prost-0_12", feature = "prost-0_13", feature = "prost-0_14")))]
compile_error!(
    "the version of prost is missing: turn on one of the features `prost-0_12`, `prost-0_13` and `prost-0_14` of tracer-shim"
);
#[cfg(any(
    all(feature = "prost-0_12", feature = "prost-0_13"),
    all(feature = "prost-0_12", feature = "prost-0_14"),
    all(feature = "prost-0_13", feature = "prost-0_14"),
))]
compile_error!(
    "two versions of prost are asked for: turn on one of the features `prost-0_12`, `prost-0_13` and `prost-0_14` of tracer-shim; \
     `prost-0_14` is on unless `default-features = false`"
);

/// Its example is compiled and run with the tests.
#[cfg(all(doctest, feature = "prost-0_14"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[doc(hidden)]
pub mod __private;
mod buffer;
mod carrier;
mod carry;
mod codec;
mod context;
#[cfg(feature = "tokio")]
mod flows;
mod fork;
mod future;
pub mod header;
mod hex;
mod id;
mod message;
#[cfg(feature = "opentelemetry")]
pub mod opentelemetry;
mod os;
mod process;
pub mod record;
pub mod sampling;
mod site;
mod slot;
mod span;
mod start;
mod tail;
mod thread;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tracing")]
pub mod tracing;

pub use carrier::{Carrier, NoContext, TraceContext};
pub use carry::{Traced, spawn};
pub use context::{Context, FLAG_RANDOM, FLAG_SAMPLED, Guard};
pub use future::{FutureExt, InSpan, WithContext};
pub use id::{SpanId, TraceId};
pub use message::Message;
pub use process::init;
pub use record::{Kind, Status};
pub use span::{Span, SpanGuard, process, span};
#[cfg(feature = "derive")]
pub use tracer_shim_derive::{Span, trace_context};

/// Conversions from and to OpenTelemetry's type, for `#[derive(Span)]`.
#[cfg(not(feature = "opentelemetry"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __opentelemetry {
    ($($tokens:tt)*) => {};
}

/// Conversions from and to OpenTelemetry's type, for `#[derive(Span)]`.
#[cfg(feature = "opentelemetry")]
#[doc(hidden)]
#[macro_export]
macro_rules! __opentelemetry {
    ([$($generics:tt)*] [$($type:tt)*] [$($predicates:tt)*]) => {
        impl $($generics)* ::core::convert::From<$crate::__private::SpanContext> for $($type)*
        where
            for<'trace> $($type)*: ::core::default::Default,
            $($predicates)*
        {
            fn from(context: $crate::__private::SpanContext) -> Self {
                ::core::convert::From::from($crate::Context::from(context))
            }
        }

        impl $($generics)* ::core::convert::TryFrom<&$($type)*> for $crate::__private::SpanContext
        where
            $($predicates)*
        {
            type Error = $crate::NoContext;

            fn try_from(message: &$($type)*) -> ::core::result::Result<Self, $crate::NoContext> {
                $crate::Carrier::trace_context(message).map(::core::convert::Into::into).ok_or($crate::NoContext)
            }
        }
    };
}

//! Layers for tonic (feature `tonic`): trace contexts in the metadata of gRPC calls, as W3C `traceparent` and `tracestate`,
//! and a span per call on either side.
//!
//! ```no_run
//! use tracer_shim::tonic::{ClientLayer, ServerLayer};
//!
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let server = tonic::transport::Server::builder().layer(ServerLayer);
//! let channel = tonic::transport::Endpoint::from_static("http://[::1]:50051").connect().await?;
//! let channel = tower::ServiceBuilder::new().layer(ClientLayer).service(channel);
//! # drop((server, channel));
//! # Ok(())
//! # }
//! ```
//!
//! A handler runs with the call's span active, at every poll: messages that it encodes, spans that it begins and calls that it
//! makes belong to the call.
//!
//! A span has the method, the status, and how many bytes the messages of either side had on the wire, without gRPC's prefixes
//! (`tracer.rpc.request.size`, `tracer.rpc.response.size`): the conventions have no attribute for sizes.

mod body;

use crate::context::Context;
use crate::future::{FutureExt, WithContext};
use crate::record::Kind;
use crate::span::Span;
use body::CallSpan;
pub use body::TracedBody;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

thread_local! {
    /// The `tracestate` of the call that is being handled, with the trace that it belongs to.
    static TRACE_STATE: RefCell<Option<TraceState>> = const { RefCell::new(None) };
}

#[derive(Clone, Debug)]
struct TraceState {
    of: Context,
    value: HeaderValue,
}

/// The context that headers carry.
fn extract(headers: &HeaderMap) -> Context {
    let text = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    text.and_then(|text| Context::from_traceparent(text.trim())).unwrap_or(Context::NONE)
}

/// Lets headers carry `context`, and the trace state that came with its trace.
fn inject(context: Context, headers: &mut HeaderMap) {
    if !context.is_valid() {
        return;
    }
    let value = HeaderValue::from_str(&context.to_string()).expect("hexadecimal digits and dashes");
    headers.insert(TRACEPARENT, value);
    let state = TRACE_STATE.with_borrow(|state| state.clone().filter(|state| state.of.same_trace(context)));
    if let Some(state) = state {
        headers.insert(TRACESTATE, state.value);
    }
}

fn call_span(request: &Request<Body>, parent: Context, kind: Kind) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    let mut span = Span::with_parent(parent, method);
    span.kind(kind).attribute("rpc.system.name", "grpc").attribute("rpc.method", method);
    span
}

/// Passes a call on: what it does belongs to `span`, which ends with the body of the response.
fn call<S>(inner: &mut S, request: Request<Body>, span: Span, state: Option<TraceState>) -> Call<S::Future>
where
    S: Service<Request<Body>>,
{
    let context = span.context();
    let (request, span) = body::measured(request, span);
    let _scope = context.attach();
    Call { future: inner.call(request).with_context(context), span: Some(span), state }
}

/// Gives every call of a client a span and the headers of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientLayer;

impl<S> Layer<S> for ClientLayer {
    type Service = Client<S>;

    fn layer(&self, inner: S) -> Client<S> {
        Client { inner }
    }
}

/// A client whose calls are traced; see [`ClientLayer`].
#[derive(Clone, Debug)]
pub struct Client<S> {
    inner: S,
}

impl<S, R> Service<Request<Body>> for Client<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Call<S::Future> {
        let span = call_span(&request, Context::current(), Kind::Client);
        inject(span.context(), request.headers_mut());
        call(&mut self.inner, request, span, None)
    }
}

/// Gives every call of a server a span that is a child of the client's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerLayer;

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server { inner }
    }
}

/// A server whose calls are traced; see [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct Server<S> {
    inner: S,
}

impl<S, R> Service<Request<Body>> for Server<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Call<S::Future> {
        let parent = extract(request.headers());
        let span = call_span(&request, parent, Kind::Server);
        let state = request.headers().get(TRACESTATE).filter(|_| parent.is_valid());
        let state = state.map(|value| TraceState { of: parent, value: value.clone() });
        call(&mut self.inner, request, span, state)
    }
}

pin_project_lite::pin_project! {
    /// A call under way.
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Call<F> {
        #[pin]
        future: WithContext<F>,
        span: Option<CallSpan>,
        state: Option<TraceState>,
    }
}

impl<F, R, E> Future for Call<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<TracedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outer = this.state.as_ref().map(|state| TRACE_STATE.replace(Some(state.clone())));
        let result = this.future.poll(cx);
        if let Some(outer) = outer {
            TRACE_STATE.set(outer);
        }
        let result = task::ready!(result);
        let mut span = this.span.take();
        Poll::Ready(match result {
            Ok(response) => Ok(body::traced(response, span)),
            Err(error) => {
                if let Some(span) = &mut span {
                    span.span.error("the call got no response");
                }
                Err(error)
            }
        })
    }
}

impl<F> fmt::Debug for Call<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("span", &self.span).finish_non_exhaustive()
    }
}

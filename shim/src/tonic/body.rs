//! The body of a response: the call's span ends with it, and its trailers say how the call went.

use crate::span::Span;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project_lite::pin_project! {
    /// The body of a traced call.
    #[derive(Debug)]
    pub struct TracedBody<B> {
        #[pin]
        body: B,
        span: Option<Span>,
    }
}

/// Keeps the span until the body of the response has ended.
pub(super) fn traced<B>(response: Response<B>, mut span: Option<Span>) -> Response<TracedBody<B>> {
    if let Some(span) = &mut span {
        status(span, response.headers());
    }
    response.map(|body| TracedBody { body, span })
}

/// Sets what `grpc-status` says, if it is there. It is in the trailers, or in the headers of a response without a body.
fn status(span: &mut Span, headers: &HeaderMap) {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<usize>().ok());
    let Some(code) = code else { return };
    let name = NAMES.get(code).copied().unwrap_or("UNKNOWN");
    span.attribute("rpc.response.status_code", name);
    if code != 0 {
        span.attribute("error.type", name).error(name);
    }
}

/// Names of gRPC's status codes.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl<B: Body> Body for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let span = this.span;
        let scope = span.as_ref().map(Span::enter);
        let frame = this.body.poll_frame(cx);
        drop(scope);
        let frame = ready!(frame);
        match (&frame, span.as_mut()) {
            (Some(Ok(frame)), Some(live)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    status(live, trailers);
                    *span = None;
                }
            }
            (Some(Err(_)), Some(live)) => {
                live.error("the body of the response broke off");
                *span = None;
            }
            _ => *span = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

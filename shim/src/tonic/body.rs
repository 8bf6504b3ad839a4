//! The bodies of a call: its span ends with that of the response, whose trailers say how the call went. Messages are measured
//! as they pass.

use crate::span::Span;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tonic::body::Body;

/// The span of a call, with what is known when it ends.
#[derive(Debug)]
pub(super) struct CallSpan {
    pub(super) span: Span,
    /// Bytes of the request's messages so far; of a call that is recorded.
    request: Option<Arc<AtomicU64>>,
    response: Messages,
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            self.span.attribute("tracer.rpc.request.size", request.load(Relaxed) as i64);
            self.span.attribute("tracer.rpc.response.size", self.response.size as i64);
        }
    }
}

/// The messages of a body: a flag and a length of four bytes before each.
#[derive(Debug, Default)]
struct Messages {
    /// Of all of them, without what is before them.
    size: u64,
    /// Bytes of the prefix that were seen.
    prefix: u8,
    /// Length in it, as far as it was seen.
    length: u32,
    /// Rest of the message under way.
    rest: u32,
}

impl Messages {
    fn add(&mut self, mut data: &[u8]) {
        while let Some((&byte, after)) = data.split_first() {
            if self.rest > 0 {
                let (message, after) = data.split_at(data.len().min(self.rest as usize));
                self.rest -= message.len() as u32;
                self.size += message.len() as u64;
                data = after;
                continue;
            }
            // The flag, which comes first, has left the number by the end of the prefix.
            self.length = self.length << 8 | u32::from(byte);
            self.prefix += 1;
            if self.prefix == 5 {
                self.rest = self.length;
                (self.prefix, self.length) = (0, 0);
            }
            data = after;
        }
    }
}

pin_project_lite::pin_project! {
    /// The body of a request whose call is recorded.
    struct RequestBody {
        #[pin]
        body: Body,
        messages: Messages,
        size: Arc<AtomicU64>,
    }
}

/// Measures the messages of a request. Its body is polled by another task than that of the call, and has to be of tonic's type
/// again: two allocations a call, however many messages it has, and none where the call is not recorded.
pub(super) fn measured(request: Request<Body>, span: Span) -> (Request<Body>, CallSpan) {
    let response = Messages::default();
    if !span.is_recorded() {
        return (request, CallSpan { span, request: None, response });
    }
    let size = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&size);
    let request = request.map(|body| Body::new(RequestBody { body, messages: Messages::default(), size: counted }));
    (request, CallSpan { span, request: Some(size), response })
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.messages.add(data);
            this.size.store(this.messages.size, Relaxed);
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

pin_project_lite::pin_project! {
    /// The body of a traced call's response.
    #[derive(Debug)]
    pub struct TracedBody<B> {
        #[pin]
        body: B,
        span: Option<CallSpan>,
    }
}

/// Keeps the span until the body of the response has ended.
pub(super) fn traced<B>(response: Response<B>, mut span: Option<CallSpan>) -> Response<TracedBody<B>> {
    if let Some(live) = &mut span {
        status(&mut live.span, response.headers());
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

impl<B: HttpBody<Data = Bytes>> HttpBody for TracedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let span = this.span;
        let scope = span.as_ref().map(|live| live.span.enter());
        let frame = this.body.poll_frame(cx);
        drop(scope);
        let frame = ready!(frame);
        match (&frame, span.as_mut()) {
            (Some(Ok(frame)), Some(live)) => {
                if let Some(data) = frame.data_ref() {
                    live.response.add(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    status(&mut live.span, trailers);
                    *span = None;
                }
            }
            (Some(Err(_)), Some(live)) => {
                live.span.error("the body of the response broke off");
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

#[cfg(test)]
mod tests {
    use super::Messages;

    #[test]
    fn messages_are_measured_without_their_prefixes_however_the_body_is_cut() {
        let mut body = Vec::new();
        for length in [0, 3, 700] {
            body.push(1);
            body.extend_from_slice(&u32::to_be_bytes(length));
            body.resize(body.len() + length as usize, 0xff);
        }
        for cut in 1..=body.len() {
            let mut messages = Messages::default();
            body.chunks(cut).for_each(|data| messages.add(data));
            assert_eq!((messages.size, messages.prefix, messages.rest), (703, 0, 0), "in pieces of {cut}");
        }
    }
}

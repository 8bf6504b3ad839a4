//! The layers of feature `tonic` between a real client and a real server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use support::Listener;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tracer_shim::record::{Item, Kind, SpanRecord, Value};
use tracer_shim::tonic::{ClientLayer, ServerLayer};
use tracer_shim::{Context, Span};

/// Says which context is active in the handler, after an await; fails for an empty name.
#[derive(Clone)]
struct WhoAmI;

impl tonic::server::NamedService for WhoAmI {
    const NAME: &'static str = "shop.Who";
}

impl tonic::server::UnaryService<String> for WhoAmI {
    type Response = String;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Status>> + Send>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if request.get_ref().is_empty() {
                return Err(Status::not_found("nobody"));
            }
            let state = request.metadata().get("tracestate").map_or("", |state| state.to_str().unwrap());
            Ok(Response::new(format!("{} {state}", Context::current())))
        })
    }
}

impl tower::Service<HttpRequest<Body>> for WhoAmI {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.unary(WhoAmI, request).await)
        })
    }
}

/// A service that asks the next one, as a service in the middle of a chain does.
#[derive(Clone)]
struct Relay(Client);

impl tonic::server::NamedService for Relay {
    const NAME: &'static str = "shop.Relay";
}

impl tower::Service<HttpRequest<Body>> for Relay {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.unary(relay, request).await)
        })
    }
}

impl tonic::server::UnaryService<String> for Relay {
    type Response = String;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Status>> + Send>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move { ask(client, "/shop.Who/Ask", request.into_inner()).await })
    }
}

type Client = tracer_shim::tonic::Client<tonic::transport::Channel>;

async fn ask(client: Client, path: &'static str, name: String) -> Result<Response<String>, Status> {
    let mut grpc = tonic::client::Grpc::new(client);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = Request::new(name);
    if path.contains("Relay") {
        request.metadata_mut().insert("tracestate", "ot=th:c".parse().unwrap());
    }
    grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<String, String>::default()).await
}

/// The process has one semaphore: tests with a listener and without take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn connect() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let client = tower::ServiceBuilder::new().layer(ClientLayer).service(channel);
    let server = Server::builder().layer(ServerLayer).add_service(WhoAmI).add_service(Relay(client.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    client
}

#[tokio::test]
async fn with_nobody_listening_the_context_passes_through_the_whole_chain() {
    let client = connect().await;
    let context = Context::from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03").unwrap();
    let answer = {
        let call = ask(client.clone(), "/shop.Relay/Ask", "me".to_owned());
        tracer_shim::FutureExt::with_context(call, context).await
    };
    assert_eq!(answer.unwrap().into_inner(), format!("{context} ot=th:c"));
    let alone = ask(client, "/shop.Who/Ask", "me".to_owned()).await.unwrap();
    assert_eq!(alone.into_inner(), format!("{} ", Context::NONE));
}

#[tokio::test]
async fn every_call_is_a_client_span_with_a_server_span_below() {
    let _turn = TURN.lock().await;
    let client = connect().await;
    let mut listener = Listener::attach(&std::env::current_exe().unwrap(), 0).unwrap();
    let root = Span::with_parent(Context::NONE, "root");
    let context = root.context();
    let call = ask(client.clone(), "/shop.Relay/Ask", "me".to_owned());
    let answer = tracer_shim::FutureExt::with_context(call, context).await.unwrap().into_inner();
    let call = ask(client, "/shop.Who/Ask", String::new());
    let refused = tracer_shim::FutureExt::with_context(call, context).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);

    let mut seen = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while seen.len() < 6 && std::time::Instant::now() < deadline {
        listener.drain(|bytes| {
            let span = SpanRecord::parse(bytes).unwrap();
            if span.head.trace_id != context.trace_id().to_bytes() {
                return;
            }
            let code = span.items().find_map(|item| match item {
                Item::Attribute("rpc.response.status_code", Value::Str(code)) => Some(code.to_owned()),
                _ => None,
            });
            let size = |key| {
                span.items().find_map(|item| match item {
                    Item::Attribute(name, Value::Int(size)) if name == key => Some(size),
                    _ => None,
                })
            };
            let sizes = ["tracer.rpc.request.size", "tracer.rpc.response.size"].map(size);
            seen.push((span.head.span_id, span.head.parent_span_id, span.kind, span.name.to_owned(), code, sizes));
        });
        tokio::task::yield_now().await;
    }
    let by_id: HashMap<_, _> = seen.iter().map(|span| (span.0, span)).collect();
    let chain = |id: [u8; 8]| {
        let mut chain = Vec::new();
        let mut at = by_id.get(&id);
        while let Some((_, parent, kind, name, code, _)) = at {
            chain.push((*kind, name.as_str(), code.as_deref()));
            at = by_id.get(parent);
        }
        chain
    };
    let handler = answer.split(['-', ' ']).nth(2).unwrap();
    let handler = tracer_shim::SpanId::from_hex(handler).unwrap().to_bytes();
    assert_eq!(
        chain(handler),
        [
            (Kind::Server, "shop.Who/Ask", Some("OK")),
            (Kind::Client, "shop.Who/Ask", Some("OK")),
            (Kind::Server, "shop.Relay/Ask", Some("OK")),
            (Kind::Client, "shop.Relay/Ask", Some("OK")),
        ]
    );
    let failed = seen.iter().find(|span| span.4.as_deref() == Some("NOT_FOUND") && span.2 == Kind::Server).unwrap();
    assert_eq!(chain(failed.0).len(), 2);
    // Both sides of a call say the same: `me` in a field, and the answer; nothing where the name is empty and there is none.
    let answered = prost::Message::encoded_len(&answer) as i64;
    for (.., name, code, sizes) in &seen {
        let expected = if code.as_deref() == Some("OK") { [Some(4), Some(answered)] } else { [Some(0), Some(0)] };
        assert_eq!(*sizes, expected, "{name}");
    }
}

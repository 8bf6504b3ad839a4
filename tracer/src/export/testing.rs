//! Spans, batches and collectors for the tests of exporters.
#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use crate::model::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Batch;
use crate::model::{Link, ProcessId, Resource, Span, SpanContext, SpanEvent, SpanId, SpanKind, Status, TraceId, Value};

/// Offset of the batches here: 2026-01-02 03:04:05.
pub(super) const OFFSET: i64 = 1_767_323_045_000_000_000;

/// A span of trace `trace` with id `id` (not 0), 1 ms long, that starts at `id` microseconds.
pub(super) fn span(trace: u8, id: u8) -> Span {
    Span {
        process: ProcessId { pid: 42, start_time: 7 },
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([id; 8]),
        parent: None,
        parent_remote: false,
        flags: 1,
        trace_state: "".into(),
        name: "GET".into(),
        kind: SpanKind::Client,
        start_ns: u64::from(id) * 1_000,
        end_ns: u64::from(id) * 1_000 + 1_000_000,
        attributes: vec![("db.system.name".into(), Value::Str("redis".into()))],
        status: Status::Unset,
        links: Vec::new(),
        events: Vec::new(),
    }
}

/// A span that has everything a span can have.
pub(super) fn full_span() -> Span {
    let context = SpanContext {
        trace_id: TraceId([3; 16]),
        span_id: SpanId([4; 8]),
        flags: 1,
        remote: true,
        trace_state: "ot=th:c".into(),
    };
    Span {
        parent: Some(SpanId([9; 8])),
        parent_remote: true,
        trace_state: "ot=th:c".into(),
        attributes: vec![
            ("text".into(), Value::Str("a \"quoted\"\nline, ü".into())),
            ("shared".into(), Value::Str("order.Order".into())),
            ("int".into(), Value::Int(-(1 << 60))),
            ("float".into(), Value::Float(0.5)),
            ("nan".into(), Value::Float(f64::NAN)),
            ("bool".into(), Value::Bool(false)),
            ("list".into(), Value::List(vec!["risk_control".into(), "--port".into()])),
        ],
        status: Status::Error("WRONGTYPE".into()),
        links: vec![Link { context, attributes: vec![("why".into(), Value::Str("waited".into()))] }],
        events: vec![SpanEvent {
            time_ns: 5_000,
            name: "decode".into(),
            attributes: vec![("size".into(), Value::Int(120))],
        }],
        ..span(1, 2)
    }
}

/// The resource of the process of [`span`].
pub(super) fn resource() -> Resource {
    Resource {
        process: ProcessId { pid: 42, start_time: 7 },
        attributes: vec![
            ("service.name".into(), Value::Str("risk_control".into())),
            ("process.pid".into(), Value::Int(42)),
        ],
    }
}

/// A batch of these spans, with [`resource`].
pub(super) fn batch(spans: Vec<Span>) -> Arc<Batch> {
    let resource = resource();
    let resources = HashMap::from_iter([(resource.process, Arc::new(resource))]);
    Arc::new(Batch { spans, resources, clock_offset_ns: OFFSET })
}

/// One request that a [`HttpCollector`] got.
#[derive(Clone, Debug)]
pub(super) struct HttpRequest {
    /// Request line and headers.
    pub(super) head: String,
    pub(super) body: Bytes,
}

/// Makes the response to a request.
type Answer = Arc<Mutex<dyn FnMut(&HttpRequest) -> Vec<u8> + Send>>;

/// An HTTP server that answers as it is told, and keeps the requests.
pub(super) struct HttpCollector {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpCollector {
    /// Gives the responses one by one, the last one again and again. They are status lines with further headers, such as
    /// `503 Busy\r\nretry-after: 1`, and a body.
    pub(super) async fn start(responses: &[(&str, &[u8])]) -> Self {
        Self::start_with("127.0.0.1:0", one_by_one(responses), None).await
    }

    /// The response is the status line that `judge` gives for the body.
    pub(super) async fn judging(address: &str, mut judge: impl FnMut(&[u8]) -> &'static str + Send + 'static) -> Self {
        let answer = move |request: &HttpRequest| response(judge(&request.body), b"");
        Self::start_with(address, Arc::new(Mutex::new(answer)), None).await
    }

    /// The same over TLS, for the clients of `tls`.
    pub(super) async fn start_tls(responses: &[(&str, &[u8])], tls: &TlsFiles) -> Self {
        Self::start_with("127.0.0.1:0", one_by_one(responses), Some(tls.acceptor())).await
    }

    async fn start_with(address: &str, answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer, tls) = (Arc::clone(&seen), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, seen, answer).await,
                        // A client that is not trusted ends here.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, seen, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().unwrap().clone()
    }
}

fn one_by_one(responses: &[(&str, &[u8])]) -> Answer {
    let mut responses: Vec<_> = responses.iter().rev().map(|(head, body)| response(head, body)).collect();
    Arc::new(Mutex::new(move |_: &HttpRequest| match responses.len() {
        1 => responses[0].clone(),
        _ => responses.pop().unwrap(),
    }))
}

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
    answer: Answer,
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
        let length: usize = length.parse().unwrap();
        while buffer.len() < length {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "the request breaks off");
        }
        let body = buffer.drain(..length).collect();
        let request = HttpRequest { head, body };
        requests.lock().unwrap().push(request.clone());
        let response = (*answer.lock().unwrap())(&request);
        stream.write_all(&response).await.unwrap();
    }
}

/// An authority, and a server and a client that it certified, all PEM.
pub(super) struct TlsFiles {
    pub(super) authority: String,
    pub(super) server: (String, String),
    pub(super) client: (String, String),
}

impl TlsFiles {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let certify = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        Self { server: certify(&["localhost", "127.0.0.1"]), client: certify(&["client"]), authority: authority.pem() }
    }

    /// Only clients with a certificate are let in.
    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::export::ExporterStats;
use crate::export::otlp::encode::Encoder;
use crate::export::otlp::{Compression, Signal};
use crate::export::testing::{HttpCollector, TlsFiles, batch, full_span, span};

const QUICK: Retry =
    Retry { initial: Duration::from_millis(1), max: Duration::from_millis(5), total: Duration::from_millis(200) };

fn settings(address: SocketAddr, protocol: &str) -> Settings {
    let url = format!("http://{address}");
    Settings::resolve(Signal::Traces, Some(&url), &|name| {
        (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| protocol.to_owned())
    })
    .unwrap()
}

fn request() -> Request {
    let spans = vec![full_span(), span(1, 3), span(1, 4)];
    Encoder::new(10, 1 << 20).encode(&[batch(spans)]).requests.remove(0)
}

/// What became of three spans.
async fn send(settings: Settings, retry: Retry) -> ExporterStats {
    let tally = Tally::new("otlp".into());
    tally.accept(3);
    OtlpClient::new(settings, retry).unwrap().send(request(), &tally).await;
    let stats = tally.stats();
    assert_eq!(stats.on_the_way, 0, "no fate: {stats:?}");
    stats
}

fn partial(rejected: i64, message: &str) -> ExportTraceServiceResponse {
    let partial_success =
        Some(ExportTracePartialSuccess { rejected_spans: rejected, error_message: message.to_owned() });
    ExportTraceServiceResponse { partial_success }
}

/// A gRPC collector that gives these answers, the last one again and again.
struct GrpcCollector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(tonic::metadata::MetadataMap, ExportTraceServiceRequest)>>>,
}

type Answer = Result<ExportTraceServiceResponse, Status>;

struct Service {
    answers: Mutex<Vec<Answer>>,
    seen: Arc<Mutex<Vec<(tonic::metadata::MetadataMap, ExportTraceServiceRequest)>>>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let metadata = request.metadata().clone();
        self.seen.lock().unwrap().push((metadata, request.into_inner()));
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        answer.map(Response::new)
    }
}

impl GrpcCollector {
    async fn start(answers: Vec<Answer>) -> Self {
        Self::start_on(tonic::transport::Server::builder(), answers).await
    }

    /// Only clients with a certificate are let in.
    async fn start_tls(answers: Vec<Answer>, tls: &TlsFiles) -> Self {
        let config = tonic::transport::ServerTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(&tls.server.0, &tls.server.1))
            .client_ca_root(tonic::transport::Certificate::from_pem(&tls.authority));
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self::start_on(tonic::transport::Server::builder().tls_config(config).unwrap(), answers).await
    }

    async fn start_on(mut server: tonic::transport::Server, answers: Vec<Answer>) -> Self {
        let seen = Arc::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let incoming =
            tonic::transport::server::TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
        let service = TraceServiceServer::new(Service { answers: Mutex::new(answers), seen: Arc::clone(&seen) })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        Self { address, seen }
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

#[tokio::test]
async fn grpc_delivers_with_headers_and_any_compression() {
    let expected = crate::export::otlp::convert::request(&[batch(vec![full_span(), span(1, 3), span(1, 4)])]);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let collector = GrpcCollector::start(vec![Ok(ExportTraceServiceResponse::default())]).await;
        let mut settings = settings(collector.address, "grpc");
        settings.compression = compression;
        settings.headers.0.insert("authorization", "Bearer x".parse().unwrap());
        assert_eq!(send(settings, QUICK).await.exported, 3);
        let seen = collector.seen.lock().unwrap();
        let (metadata, request) = &seen[0];
        assert_eq!(*request, expected, "{compression:?}");
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer x");
        assert!(metadata.get("user-agent").unwrap().to_str().unwrap().starts_with("tracer/"), "{metadata:?}");
    }
}

#[tokio::test]
async fn grpc_repeats_exactly_what_may_be_repeated() {
    let repeatable =
        [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::DataLoss, Code::Unavailable];
    for code in (1..=16).map(Code::from_i32) {
        let answers = vec![Err(Status::new(code, "no")), Ok(ExportTraceServiceResponse::default())];
        let collector = GrpcCollector::start(answers).await;
        let stats = send(settings(collector.address, "grpc"), QUICK).await;
        if repeatable.contains(&code) {
            assert_eq!((stats.exported, stats.retries, collector.requests()), (3, 1, 2), "{code:?}");
        } else {
            assert_eq!((stats.dropped(Cause::Rejected), stats.retries, collector.requests()), (3, 0, 1), "{code:?}");
        }
    }
}

#[tokio::test]
async fn exhausted_resources_are_repeated_when_the_collector_says_when() {
    let delay = Duration::from_millis(50);
    let busy = Status::with_error_details(Code::ResourceExhausted, "busy", ErrorDetails::with_retry_info(Some(delay)));
    let collector = GrpcCollector::start(vec![Err(busy), Ok(ExportTraceServiceResponse::default())]).await;
    let start = Instant::now();
    let stats = send(settings(collector.address, "grpc"), QUICK).await;
    assert_eq!((stats.exported, stats.retries), (3, 1));
    assert!(start.elapsed() >= delay, "it came back too early");
}

#[tokio::test]
async fn partial_success_is_counted() {
    for (rejected, exported, dropped) in [(2, 1, 2), (0, 3, 0), (-1, 3, 0), (99, 0, 3)] {
        let collector = GrpcCollector::start(vec![Ok(partial(rejected, "too old"))]).await;
        let stats = send(settings(collector.address, "grpc"), QUICK).await;
        assert_eq!((stats.exported, stats.dropped(Cause::Rejected)), (exported, dropped), "{rejected}");
        assert_eq!(stats.last_error.unwrap(), "the collector says: too old");

        let body = partial(rejected, "too old").encode_to_vec();
        let collector = HttpCollector::start(&[("200 OK", &body)]).await;
        let stats = send(settings(collector.address, "http/protobuf"), QUICK).await;
        assert_eq!((stats.exported, stats.dropped(Cause::Rejected)), (exported, dropped), "{rejected}");
    }
}

#[tokio::test]
async fn http_delivers_with_headers_and_compression() {
    for compression in [Compression::None, Compression::Gzip] {
        let collector = HttpCollector::start(&[("200 OK", b"")]).await;
        let mut settings = settings(collector.address, "http/protobuf");
        settings.compression = compression;
        settings.headers.0.insert("x-tenant", "a".parse().unwrap());
        assert_eq!(send(settings, QUICK).await.exported, 3);
        let seen = collector.requests().remove(0);
        assert!(seen.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", seen.head);
        assert!(seen.head.contains("content-type: application/x-protobuf\r\n"), "{}", seen.head);
        assert!(seen.head.contains("x-tenant: a\r\n"), "{}", seen.head);
        assert_eq!(seen.head.contains("content-encoding: gzip"), compression == Compression::Gzip);
        let mut body = Vec::new();
        match compression {
            Compression::Gzip => {
                io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&seen.body[..]), &mut body).unwrap();
            }
            _ => body.extend_from_slice(&seen.body),
        }
        assert_eq!(body, request().body);
    }
}

#[tokio::test]
async fn http_repeats_exactly_what_may_be_repeated() {
    for status in [301, 400, 401, 403, 404, 408, 413, 429, 500, 501, 502, 503, 504, 505] {
        let line = format!("{status} X");
        let collector = HttpCollector::start(&[(&line, b"\x12\x03bad"), ("200 OK", b"")]).await;
        let stats = send(settings(collector.address, "http/protobuf"), QUICK).await;
        assert!(stats.last_error.as_ref().unwrap().ends_with(": bad"), "{stats:?}");
        if [429, 502, 503, 504].contains(&status) {
            assert_eq!((stats.exported, stats.retries, collector.requests().len()), (3, 1, 2), "{status}");
        } else {
            assert_eq!((stats.dropped(Cause::Rejected), collector.requests().len()), (3, 1), "{status}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_honoured_and_outlives_the_request() {
    let collector = HttpCollector::start(&[("503 Busy\r\nretry-after: 1", b""), ("200 OK", b"")]).await;
    let tally = Tally::new("otlp".into());
    let mut client = OtlpClient::new(settings(collector.address, "http/protobuf"), QUICK).unwrap();
    let start = Instant::now();
    tally.accept(6);
    // A second is more than this request has, so it is given up; the next one has to wait all the same.
    client.send(request(), &tally).await;
    assert!(start.elapsed() < Duration::from_millis(900));
    client.send(request(), &tally).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "it came back too early");
    let stats = tally.stats();
    assert_eq!((stats.dropped(Cause::ExporterGaveUp), stats.exported, collector.requests().len()), (3, 3, 2));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_tried_again_until_time_is_up() {
    // Bound and dropped: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let stats = send(settings(address, protocol), QUICK).await;
        assert_eq!(stats.dropped(Cause::ExporterGaveUp), 3, "{protocol}");
        assert!(stats.retries > 2, "{stats:?}");
        assert!(stats.last_error.as_ref().unwrap().contains("Connection refused"), "{stats:?}");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_is_left_after_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let mut settings = settings(listener.local_addr().unwrap(), protocol);
        settings.timeout = Duration::from_millis(60);
        let stats = send(settings, QUICK).await;
        assert_eq!(stats.dropped(Cause::ExporterGaveUp), 3, "{protocol}");
        assert!(stats.last_error.as_ref().unwrap().contains("60ms") || protocol == "grpc", "{stats:?}");
    }
}

#[test]
fn tls_files_that_cannot_be_read_are_named() {
    for protocol in ["grpc", "http/protobuf"] {
        let mut settings = settings("127.0.0.1:1".parse().unwrap(), protocol);
        settings.endpoint.set_scheme("https").unwrap();
        settings.tls.certificate = Some("/nowhere/ca.pem".into());
        let error = OtlpClient::new(settings, QUICK).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/ca.pem");
    }
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_shows_the_client_certificate() {
    let files = TlsFiles::new();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, cert, key) =
        (write("ca.pem", &files.authority), write("cert.pem", &files.client.0), write("key.pem", &files.client.1));
    let grpc = GrpcCollector::start_tls(vec![Ok(ExportTraceServiceResponse::default())], &files).await;
    let http = HttpCollector::start_tls(&[("200 OK", b"")], &files).await;
    for (protocol, address) in [("grpc", grpc.address), ("http/protobuf", http.address)] {
        let settings = |with_client: bool, with_ca: bool| {
            let env = |name: &str| match name.strip_prefix("OTEL_EXPORTER_OTLP_")? {
                "PROTOCOL" => Some(protocol.to_owned()),
                "ENDPOINT" => Some(format!("https://localhost:{}", address.port())),
                "CERTIFICATE" if with_ca => Some(ca.clone()),
                "CLIENT_CERTIFICATE" if with_client => Some(cert.clone()),
                "CLIENT_KEY" if with_client => Some(key.clone()),
                _ => None,
            };
            Settings::resolve(Signal::Traces, None, &env).unwrap()
        };
        let stats = send(settings(true, true), QUICK).await;
        assert_eq!(stats.exported, 3, "{protocol}: {stats:?}");
        for (with_client, with_ca) in [(false, true), (true, false)] {
            let stats = send(settings(with_client, with_ca), QUICK).await;
            assert_eq!(stats.dropped(Cause::ExporterGaveUp), 3, "{protocol}: {stats:?}");
        }
    }
    assert_eq!((grpc.requests(), http.requests().len()), (1, 1));
}

//! A real third-party collector: rotel receives OTLP over gRPC and HTTP and passes it on to a [`Sink`] of the test.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::DEADLINE;

const VERSION: &str = "0.0.1a15";
/// The `rotel-agent` program, installed below `directory` unless it is there.
///
/// # Errors
/// When Python or its package index is missing.
pub fn agent(directory: &Path) -> Result<PathBuf> {
    let package = directory.join(format!("rotel-{VERSION}"));
    let program = package.join("rotel").join("rotel-agent");
    fs::create_dir_all(directory)?;
    // Several test programs may come here at once.
    let lock = File::create(directory.join("rotel.lock"))?;
    lock.lock()?;
    if !program.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade", "--target"]);
        let status =
            pip.arg(&package).arg(format!("rotel=={VERSION}")).status().context("python3 is needed for rotel")?;
        ensure!(status.success(), "cannot install rotel {VERSION} with pip: {status}");
    }
    Ok(program)
}

/// A running collector; dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    /// Where it receives gRPC.
    pub grpc: SocketAddr,
    /// Where it receives HTTP.
    pub http: SocketAddr,
}

impl Collector {
    /// Starts it, and waits until it listens. It passes spans on to `sink`, and writes its log into `directory`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, directory: &Path, sink: SocketAddr) -> Result<Self> {
        Self::start_at(program, directory, sink, free_address()?, free_address()?)
    }

    /// The same where another one was.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_at(
        program: &Path,
        directory: &Path,
        sink: SocketAddr,
        grpc: SocketAddr,
        http: SocketAddr,
    ) -> Result<Self> {
        let log = directory.join("rotel.log");
        let mut child = Command::new(program)
            .arg("start")
            .args(["--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "otlp", "--otlp-exporter-endpoint", &format!("http://{sink}")])
            .args(["--batch-timeout", "50ms"])
            // Its default is 8,192, and what it splits off a larger batch has lost its resource (seen with rotel under load).
            .args(["--batch-max-size", "100000"])
            .arg("--pid-file")
            .arg(directory.join("rotel.pid"))
            .stdout(File::create(&log)?)
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let start = Instant::now();
        while TcpStream::connect(grpc).and_then(|_| TcpStream::connect(http)).is_err() {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "rotel ended: {}", fs::read_to_string(&log)?);
            ensure!(start.elapsed() < DEADLINE, "rotel does not listen: {}", fs::read_to_string(&log)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child, grpc, http })
    }

    /// Ends it in its own way: it passes on what it has taken.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(mut self) -> io::Result<()> {
        // SAFETY: the process is our child and has not been waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().map(drop)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address where nobody listened a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Receives over gRPC what the collector passes on.
#[derive(Debug)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Received>,
}

#[derive(Debug, Default)]
struct Received {
    requests: Mutex<Vec<ExportTraceServiceRequest>>,
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
    more: Condvar,
}

impl Received {
    /// Puts a request into one of the lists.
    fn keep<T>(&self, list: &Mutex<Vec<T>>, request: Request<T>) -> Result<(), Status> {
        list.lock().map_err(|_| Status::internal("a test panicked"))?.push(request.into_inner());
        self.more.notify_all();
        Ok(())
    }
}

#[derive(Clone)]
struct Service(Arc<Received>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.keep(&self.0.requests, request)?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.keep(&self.0.metrics, request)?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Sink {
    /// Starts it on the current tokio runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::<Received>::default();
        // The collector makes larger requests than gRPC's default allows, and compresses them whatever its flag says.
        let service = Service(Arc::clone(&received));
        let traces = TraceServiceServer::new(service.clone())
            .max_decoding_message_size(64 << 20)
            .accept_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(traces).add_service(metrics);
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self { address, received })
    }

    /// Takes what came once there are at least this many spans. Blocks the thread.
    ///
    /// # Errors
    /// When they do not come.
    pub fn take(&self, spans: usize) -> Result<Vec<ExportTraceServiceRequest>> {
        let poisoned = "the service does not panic";
        let requests = self.received.requests.lock().expect(poisoned);
        let (mut requests, wait) = self
            .received
            .more
            .wait_timeout_while(requests, DEADLINE, |requests| count(requests) < spans)
            .expect(poisoned);
        ensure!(!wait.timed_out(), "{} of {spans} spans came within {DEADLINE:?}", count(&requests));
        Ok(std::mem::take(&mut requests))
    }

    /// The metrics that came, once they are `enough`. Blocks the thread.
    ///
    /// # Errors
    /// When they do not come.
    pub fn take_metrics(
        &self,
        enough: impl Fn(&[ExportMetricsServiceRequest]) -> bool,
    ) -> Result<Vec<ExportMetricsServiceRequest>> {
        let poisoned = "the service does not panic";
        let requests = self.received.metrics.lock().expect(poisoned);
        let (mut requests, wait) =
            self.received.more.wait_timeout_while(requests, DEADLINE, |requests| !enough(requests)).expect(poisoned);
        ensure!(!wait.timed_out(), "{requests:?} are not enough within {DEADLINE:?}");
        Ok(std::mem::take(&mut requests))
    }
}

fn count(requests: &[ExportTraceServiceRequest]) -> usize {
    let resources = requests.iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

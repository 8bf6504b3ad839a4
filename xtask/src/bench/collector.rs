//! A collector that somebody else wrote, which drops what it gets: rotel.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::Service;
use crate::setup;

/// How long starting it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running collector; dropping it ends it.
pub struct Collector {
    _service: Service,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP over HTTP.
    pub http: SocketAddr,
}

impl Collector {
    /// Starts it, and waits until it listens.
    pub fn start(dir: &Path) -> Result<Self> {
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (grpc, http) = (free()?, free()?);
        let mut command = Command::new(setup::rotel::agent());
        command.args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()]);
        command.args(["--exporter", "blackhole", "--pid-file"]).arg(dir.join("rotel.pid"));
        let log = File::create(dir.join("rotel.log"))?;
        let mut service = Service::start(command.stdout(log.try_clone()?).stderr(log))?;
        let ends = Instant::now() + PATIENCE;
        while TcpStream::connect(grpc).and_then(|_| TcpStream::connect(http)).is_err() {
            if let Some(status) = service.ended()? {
                bail!("the collector ended: {status}");
            }
            ensure!(Instant::now() < ends, "the collector does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _service: service, grpc, http })
    }
}

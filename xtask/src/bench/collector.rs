//! A collector that somebody else wrote, which drops what it gets: rotel.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

use super::observer::Observer;
use crate::setup;

/// A running collector; dropping it ends it.
pub struct Collector {
    _process: Observer,
    /// It may run beside the agent, whose log is not to be mixed with its own.
    _dir: TempDir,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP over HTTP.
    pub http: SocketAddr,
}

impl Collector {
    /// Starts it, and waits until it listens.
    pub fn start(dir: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(dir)?;
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (grpc, http) = (free()?, free()?);
        let mut command = Command::new(setup::rotel::agent());
        command.args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()]);
        command.args(["--exporter", "blackhole", "--pid-file"]).arg(dir.path().join("rotel.pid"));
        let mut process = Observer::start(&mut command, dir.path())?;
        let listens = |_: &str| Ok([grpc, http].into_iter().all(|address| TcpStream::connect(address).is_ok()));
        process.wait_until("the collector listens", listens)?;
        Ok(Self { _process: process, _dir: dir, grpc, http })
    }
}

//! A real redis-server on a free port.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running server; dropping it kills it.
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one without persistence and waits until it answers.
    pub fn start() -> Self {
        let port = free_port();
        let folder = TempDir::new().expect("a temporary folder");
        let server = Self { child: run(port, folder.path()), port, folder };
        server.wait_until_ready();
        server
    }

    /// Kills it as a crash would, and starts it again on the same port, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        self.child = run(self.port, self.folder.path());
        self.wait_until_ready();
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Calls per command as the server counts them, by lower-case name.
    pub fn command_calls(&self) -> BTreeMap<String, u64> {
        let answer = self.ask("INFO commandstats").expect("the server answers");
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?)))
            .collect()
    }

    /// Sends an inline command on a connection of its own and returns the raw answer.
    pub fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "{command}\r\nQUIT\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn wait_until_ready(&self) {
        crate::wait_for("redis-server", || self.ask("PING").filter(|answer| answer.starts_with("+PONG")));
    }

    fn kill(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(port: u16, folder: &Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--enable-debug-command", "local"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed; `cargo xtask test` installs it")
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback works").port()
}

//! Helpers of the end-to-end tests: targets and the agent as child processes, steered by handshakes, never by time.

pub mod agent;
pub mod capable;
pub mod certificate;
pub mod debian;
pub mod kernel_maps;
pub mod mariadb;
pub mod mounts;
pub mod network;
pub mod pipeline;
pub mod postgres;
pub mod redis;
pub mod rotel;
pub mod secrets;
pub mod service;
pub mod spans;
pub mod started;
pub mod target;
pub mod waits;

use std::path::PathBuf;

pub use agent::{Agent, Outcome};
pub use capable::Capable;
pub use certificate::Certificate;
pub use debian::Debian;
pub use mariadb::MariaDb;
pub use mounts::Mount;
pub use network::{Network, Translation};
pub use pipeline::Pipeline;
pub use postgres::Postgres;
pub use redis::RedisServer;
pub use secrets::Secrets;
pub use spans::Span;
pub use target::Target;

/// How long anything may take that normally takes milliseconds. A deadline is for hangs; no test measures with it.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// Fails the test where it would else be skipped: only `cargo xtask test` sets up what is needed.
pub fn require_root() {
    assert!(is_root(), "this test needs root: run `cargo xtask test` as root");
}

fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// A program that this workspace builds, beside the test itself or where TRACER_BIN is.
pub fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().expect("the test has a path");
    let folder = match std::env::var_os("TRACER_BIN") {
        Some(agent) => PathBuf::from(agent).parent().expect("TRACER_BIN is a file").to_owned(),
        None => beside.ancestors().nth(2).expect("target/PROFILE/deps/test").to_owned(),
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
    path
}

/// A shared library that this workspace builds along with the programs.
pub fn library(name: &str) -> PathBuf {
    let agent = program("tracer");
    let path = agent.parent().expect("a folder").join("deps").join(format!("lib{name}.so"));
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
    path
}

/// The same program with v0 symbols, which `cargo xtask test` builds beside the others.
pub fn v0_program(name: &str) -> PathBuf {
    let folder = std::env::var_os("TRACER_V0_PROGRAMS").expect("`cargo xtask test` sets it");
    PathBuf::from(folder).join(name)
}

/// The same program in fat LTO with line tables, which `cargo xtask test` builds beside the others.
pub fn lto_program(name: &str) -> PathBuf {
    let folder = std::env::var_os("TRACER_LTO_PROGRAMS").expect("`cargo xtask test` sets it");
    PathBuf::from(folder).join(name)
}

/// Waits until `done` says so, and fails the test if it does not in time.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

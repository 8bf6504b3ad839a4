//! A real PostgreSQL server with a data folder, a Unix socket and a port of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Certificate;
use crate::redis::free_port;

/// Whom the server runs as: it refuses to be root.
const SERVER_USER: &str = "postgres";
/// Who the targets are to the server.
const USER: &str = "tester";
/// Their password; no span may show it.
pub const PASSWORD: &str = "correct-horse-battery";
/// Their database.
pub const DATABASE: &str = "shop";

/// A running server; dropping it kills it.
pub struct Postgres {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Postgres {
    /// Makes a server with the empty database [`DATABASE`] and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same, and it takes encrypted connections as well.
    pub fn start_with_tls() -> Self {
        Self::start_with(|folder| {
            let Certificate { public, key } = Certificate::make(folder);
            own(&key);
            vec![
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", public.display()),
                format!("ssl_key_file={}", key.display()),
            ]
        })
    }

    fn start_with(settings: impl Fn(&Path) -> Vec<String>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        own(folder.path());
        let made = program("initdb")
            .args([
                "--username=admin",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--no-sync",
                "--encoding=UTF8",
            ])
            .args(["--locale=C", "-D"])
            .arg(folder.path().join("data"))
            .output()
            .expect("PostgreSQL is installed; `cargo xtask test` installs it");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut server = program("postgres");
        server.arg("-D").arg(folder.path().join("data"));
        let own = [
            format!("port={port}"),
            format!("unix_socket_directories={}", folder.path().display()),
            "listen_addresses=127.0.0.1".to_owned(),
            "fsync=off".to_owned(),
            "shared_preload_libraries=pg_stat_statements".to_owned(),
        ];
        for setting in own.into_iter().chain(settings(folder.path())) {
            server.args(["-c", &setting]);
        }
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it was found before");
        let server = Self { child, port, folder };
        crate::wait_for("postgres", || server.try_to_ask("postgres", "SELECT 1").ok());
        for sql in [
            format!("CREATE ROLE {USER} LOGIN CREATEROLE PASSWORD '{PASSWORD}'"),
            format!("CREATE DATABASE {DATABASE} OWNER {USER}"),
        ] {
            server.try_to_ask("postgres", &sql).expect("the administrator may do this");
        }
        server.ask("CREATE EXTENSION pg_stat_statements");
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients need to know: user, password, address and database.
    pub fn url(&self) -> String {
        format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The same over the Unix socket.
    pub fn unix_url(&self) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgresql://{USER}:{PASSWORD}@{folder}:{}/{DATABASE}", self.port)
    }

    /// Runs a statement as the administrator, over the Unix socket; the rows come back as tab-separated lines.
    pub fn ask(&self, sql: &str) -> String {
        self.try_to_ask(DATABASE, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Forgets what was counted.
    pub fn reset_statements(&self) {
        self.ask("SELECT pg_stat_statements_reset()");
    }

    /// How often the targets' statements were run, as the server counts them (`pg_stat_statements`), by their texts, in which `?`
    /// stands for each value.
    pub fn statements(&self) -> BTreeMap<String, u64> {
        let rows = self.ask(&format!(
            "SELECT calls, replace(query, E'\\n', ' ') FROM pg_stat_statements WHERE userid = '{USER}'::regrole"
        ));
        let mut calls = BTreeMap::new();
        for line in rows.lines() {
            let (count, query) = line.split_once('\t').expect("two columns");
            *calls.entry(without_values(query)).or_default() += count.parse::<u64>().expect("a number");
        }
        calls
    }

    fn try_to_ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t", "--username=admin"])
            .arg(format!("--host={}", self.folder.path().display()))
            .arg(format!("--port={}", self.port))
            .args(["--dbname", database, "--command", sql])
            .output()
            .expect("psql is installed with the server");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8(output.stdout).expect("psql writes UTF-8"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Either may fail because it has ended. Its children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A statement with `?` for its numbered placeholders: `$1`.
pub fn without_values(text: &str) -> String {
    let mut parts = text.split('$');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        plain.push_str(if rest.len() < part.len() { "?" } else { "$" });
        plain.push_str(rest);
    }
    plain
}

/// A program of the server, run as the user that it wants. Debian keeps the programs of each version apart.
fn program(name: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path: Option<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    let path = path.expect("PostgreSQL is installed; `cargo xtask test` installs it");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SERVER_USER, "--regid", SERVER_USER, "--clear-groups"]).arg(path).current_dir("/");
    command
}

/// Gives a file to the server's user.
fn own(path: &Path) {
    let given = Command::new("chown").arg(SERVER_USER).arg(path).status().expect("chown is everywhere");
    assert!(given.success(), "chown {}", path.display());
}

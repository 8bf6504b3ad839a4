//! A real MariaDB server with a data folder, a Unix socket and a port of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Certificate;
use crate::redis::free_port;

/// Who the targets are to the server.
const USER: &str = "tester";
/// Their password; no span may show it.
pub const PASSWORD: &str = "correct-horse-battery";
/// Their database.
pub const DATABASE: &str = "shop";

/// A running server; dropping it kills it.
pub struct MariaDb {
    child: Child,
    port: u16,
    /// Of this server only.
    options: Vec<String>,
    folder: TempDir,
}

impl MariaDb {
    /// Makes an empty server with the database [`DATABASE`] and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same, and it takes encrypted connections as well.
    pub fn start_with_tls() -> Self {
        Self::start_with(|folder| {
            let Certificate { public, key } = Certificate::make(folder);
            vec![format!("--ssl-cert={}", public.display()), format!("--ssl-key={}", key.display())]
        })
    }

    fn start_with(options: impl Fn(&Path) -> Vec<String>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let data = folder.path().join("data");
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display()))
            .output()
            .expect("MariaDB is installed; `cargo xtask test` installs it");
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let options = options(folder.path());
        let server = Self { child: run(folder.path(), port, &options), port, options, folder };
        server.wait_until_ready();
        server.ask(&format!(
            "CREATE DATABASE {DATABASE}; CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON *.* TO '{USER}'@'%'"
        ));
        server
    }

    /// Kills it as a crash would, and starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        self.child = run(self.folder.path(), self.port, &self.options);
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

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// What clients need to know: user, password, address and database.
    pub fn url(&self) -> String {
        format!("mysql://{USER}:{PASSWORD}@{}/{DATABASE}", self.address())
    }

    /// The command-line client, as the user of the targets over TCP.
    pub fn client(&self) -> Vec<String> {
        let arguments = ["--no-defaults", "--host=127.0.0.1", "--skip-ssl"].map(str::to_owned).into_iter();
        let own = [
            format!("--port={}", self.port),
            format!("--user={USER}"),
            format!("--password={PASSWORD}"),
            format!("--database={DATABASE}"),
        ];
        ["mariadb".to_owned()].into_iter().chain(arguments).chain(own).collect()
    }

    /// Runs statements as the administrator, over the Unix socket; the rows come back as tab-separated lines.
    pub fn ask(&self, sql: &str) -> String {
        let output = admin(self.folder.path()).args(["--execute", sql]).output().expect("the client starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the client writes UTF-8")
    }

    /// The server's own counters (`SHOW GLOBAL STATUS`), as far as they are numbers, by name.
    pub fn status(&self) -> BTreeMap<String, u64> {
        self.ask("SHOW GLOBAL STATUS")
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    fn wait_until_ready(&self) {
        crate::wait_for("mariadbd", || {
            let ping = admin(self.folder.path()).args(["--execute", "SELECT 1"]).output().ok()?;
            ping.status.success().then_some(())
        });
    }

    fn kill(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(folder: &Path, port: u16, options: &[String]) -> Child {
    Command::new("mariadbd")
        .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-networking=0", "--local-infile=1"])
        .args(["--skip-name-resolve", "--innodb-buffer-pool-size=32M", "--max-allowed-packet=128M"])
        .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"])
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", folder.join("data").display()))
        .arg(format!("--socket={}", socket(folder).display()))
        .arg(format!("--pid-file={}", folder.join("pid").display()))
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd is installed; `cargo xtask test` installs it")
}

fn admin(folder: &Path) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"]);
    command.arg(format!("--socket={}", socket(folder).display()));
    command
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

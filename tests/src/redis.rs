//! A real redis-server on a free port.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Certificate, Network};

const PROGRAM: &str = "redis-server";
/// Redis's own; a container has all ports to itself.
const USUAL_PORT: u16 = 6379;
/// Runs a program with another root, in which there is no more than it needs: the first argument is an empty folder, the second the
/// program's file, the third its name.
const CONTAINED: &str = r#"set -e
root=$1; file=$2; program=$3; shift 3
mount -t tmpfs tmpfs "$root"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
for name in usr etc; do mkdir "$root/$name"; mount --rbind "/$name" "$root/$name"; done
mkdir "$root/proc" "$root/data" "$root/programs"
ln -s "$file" "$root/programs/$program"
mount -t proc proc "$root/proc"
exec chroot "$root" "/programs/$program" "$@""#;

/// A running server; dropping it kills it.
pub struct RedisServer {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one without persistence and waits until it answers.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self::spawn(with_socket(Command::new(PROGRAM), folder.path()), free_address(), folder)
    }

    /// Starts one under another name: nobody can tell that it is one.
    pub fn start_as(name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let copy = folder.path().join(name);
        std::fs::copy(find(PROGRAM), &copy).expect("there is room for it");
        Self::spawn(with_socket(Command::new(copy), folder.path()), free_address(), folder)
    }

    /// Starts one that takes encrypted connections at an address of this host, and others on another port.
    pub fn start_with_tls(address: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let certificate = Certificate::make(folder.path());
        let mut command = with_socket(Command::new(PROGRAM), folder.path());
        command.arg("--tls-cert-file").arg(&certificate.public).arg("--tls-key-file").arg(&certificate.key);
        command.arg("--tls-ca-cert-file").arg(&certificate.public).args(["--tls-auth-clients", "no"]);
        command.args(["--tls-port", &address.port().to_string()]);
        Self::spawn(command, (address.ip(), free_port()).into(), folder)
    }

    /// Starts one in a container: a network, processes, mounts and a root of its own.
    pub fn start_in_container(network: &Network) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = network.command(Path::new("unshare"));
        command.args(["--mount", "--pid", "--fork", "--kill-child=SIGKILL", "sh", "-c", CONTAINED, "sh"]);
        // What is called redis-server can be a link to somewhere that the container has not, to a file of another name.
        let file = find(PROGRAM).canonicalize().expect("it is there");
        command.arg(folder.path()).arg(file).arg(PROGRAM).args(["--protected-mode", "no"]);
        Self::spawn(command, (network.there(), USUAL_PORT).into(), folder)
    }

    /// Starts one that nobody has asked anything yet: what it reads and writes is what the test sends. Waits until it listens.
    pub fn start_unasked() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let address = free_address();
        let child = run(Command::new(PROGRAM), address, folder.path());
        let server = Self { child, address, folder };
        crate::wait_for("redis-server", || TcpStream::connect(address).is_ok().then_some(()));
        server
    }

    fn spawn(command: Command, address: SocketAddr, folder: TempDir) -> Self {
        let child = run(command, address, folder.path());
        let server = Self { child, address, folder };
        server.wait_until_ready();
        server
    }

    /// Kills it as a crash would, and starts it again on the same port, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        self.child = run(with_socket(Command::new(PROGRAM), self.folder.path()), self.address, self.folder.path());
        self.wait_until_ready();
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
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
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "{command}\r\nQUIT\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A connection on which commands can be counted: [`ping`] is one read and one write of the server.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("it listens")
    }

    /// A figure of an `INFO` section.
    pub fn info(&self, section: &str, name: &str) -> u64 {
        let answer = self.ask(&format!("INFO {section}")).expect("the server answers");
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    /// Ends the child that saves the data, as the server itself does where its work is not needed any more.
    pub fn stop_saving(&self) {
        crate::wait_for("the end of the saving", || {
            self.signal_children(libc::SIGUSR1);
            (self.info("persistence", "rdb_bgsave_in_progress") == 0).then_some(())
        });
    }

    fn wait_until_ready(&self) {
        crate::wait_for("redis-server", || self.ask("PING").filter(|answer| answer.starts_with("+PONG")));
    }

    fn kill(&mut self) {
        // A child that saves the data outlives its server. A stopped server cannot wait for one, so their numbers stay theirs.
        signal(self.child.id(), libc::SIGSTOP);
        self.signal_children(libc::SIGKILL);
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal_children(&self, number: i32) {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(|pid| signal(pid, number));
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks and gets an answer, so often.
pub fn ping(connection: &mut TcpStream, times: u64) {
    for _ in 0..times {
        connection.write_all(b"PING\r\n").expect("the server reads");
        let mut answer = [0; b"+PONG\r\n".len()];
        connection.read_exact(&mut answer).expect("the server answers");
        assert_eq!(&answer, b"+PONG\r\n");
    }
}

fn run(mut command: Command, address: SocketAddr, folder: &Path) -> Child {
    command
        .args(["--port", &address.port().to_string(), "--bind", &address.ip().to_string()])
        .args(["--save", "", "--appendonly", "no", "--enable-debug-command", "local"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed; `cargo xtask test` installs it")
}

fn with_socket(mut command: Command, folder: &Path) -> Command {
    command.arg("--unixsocket").arg(socket(folder));
    command
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

fn signal(pid: u32, number: i32) {
    // SAFETY: a plain number goes in. The process is our child, or its child, and has not been waited for.
    unsafe { libc::kill(pid.cast_signed(), number) };
}

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is installed; `cargo xtask test` installs it"))
}

fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback works").port()
}

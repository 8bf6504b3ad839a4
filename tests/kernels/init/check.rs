//! The end-to-end check: the agent attaches to a running target, the target does a known amount of work, and the
//! file export and the balance must name exactly that amount.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const REDIS: &str = "127.0.0.1:6379";
const ORDERS: u64 = 50;

/// Emulation is slow; the host has a deadline of its own for the whole boot.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the agent says when the target's probes are in place.
const ATTACHED: &str = "tracing 2 processes";

/// Runs the check.
pub fn run() -> Result<()> {
    let _redis = Redis::start()?;
    let mut target = Talker::start(Command::new("/target").arg(REDIS))?;
    target.wait_for("ready")?;
    let mut agent =
        Talker::start(Command::new("/tracer").args(["run", "--pid", &target.child.id().to_string()]).args([
            "--name",
            "redis-server",
            "--export",
            "file:/tmp/out.json",
            "--stats-json",
            "/tmp/stats.json",
        ]))?;
    agent.wait_for(ATTACHED)?;
    target.say(&format!("orders {ORDERS}"))?;
    // The answer says what the target did, by kind.
    let wanted: BTreeMap<String, u64> = serde_json::from_str(&target.wait_for("{")?)?;
    agent.interrupt();
    let status = agent.exit()?;
    ensure!(status.success(), "the agent ended with {status}");
    let status = target.exit()?;
    ensure!(status.success(), "the target ended with {status}");
    let balance = fs::read_to_string("/tmp/stats.json")?;
    println!("TRACER-VM balance {}", balance.replace('\n', ""));
    let balance: Value = serde_json::from_str(&balance).context("the balance is not JSON")?;
    ensure!(balance["balanced"] == true, "the balance does not hold");
    let served = balance["agent"]["commands_served"].as_u64().unwrap_or_default();
    ensure!(served > 0, "no command has its server's side");
    judge(&wanted, &fs::read_to_string("/tmp/out.json")?)
}

/// Counts the exported spans by kind of work.
fn judge(wanted: &BTreeMap<String, u64>, export: &str) -> Result<()> {
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for line in export.lines() {
        let request: Value = serde_json::from_str(line).context("a line of the export is not JSON")?;
        for resource in array(&request["resourceSpans"]) {
            for scope in array(&resource["scopeSpans"]) {
                for span in array(&scope["spans"]) {
                    *found.entry(work(span)).or_default() += 1;
                }
            }
        }
    }
    for (kind, wanted) in wanted {
        let found = found.get(kind.as_str()).copied().unwrap_or_default();
        ensure!(found == *wanted, "{found} spans of {kind}, not {wanted}");
    }
    Ok(())
}

fn work(span: &Value) -> &'static str {
    let is_redis = array(&span["attributes"])
        .iter()
        .any(|attribute| attribute["key"] == "db.system.name" && attribute["value"]["stringValue"] == "redis");
    let name = span["name"].as_str().unwrap_or_default();
    match name.split_once(' ').map_or(name, |(operation, _)| operation) {
        // The server's spans are below the clients'.
        _ if is_redis && span["kind"] == 3 => "redis",
        "encode" => "encode",
        "decode" => "decode",
        _ => "other",
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A server that ends with the check.
struct Redis(Child);

impl Redis {
    fn start() -> Result<Self> {
        let server = Command::new("/redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
            .stdout(Stdio::null())
            .spawn()
            .context("/redis-server")?;
        let redis = Self(server);
        let ends = Instant::now() + PATIENCE;
        while TcpStream::connect(REDIS).is_err() {
            if Instant::now() > ends {
                bail!("redis-server does not listen");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The machine is switched off next; a server that is gone already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child process that is talked to by lines.
struct Talker {
    child: Child,
    /// None when it has been told that nothing more comes.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talker {
    fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
        let stdin = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let stderr = child.stderr.take().context("standard error is a pipe")?;
        let also = sender.clone();
        thread::spawn(move || echo(BufReader::new(stdout), &sender));
        thread::spawn(move || echo(BufReader::new(stderr), &also));
        Ok(Self { child, stdin, lines })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the child's input has ended")?;
        writeln!(stdin, "{line}").context("the child does not listen")
    }

    fn wait_for(&self, word: &str) -> Result<String> {
        let ends = Instant::now() + PATIENCE;
        loop {
            let line = self
                .lines
                .recv_timeout(ends.saturating_duration_since(Instant::now()))
                .with_context(|| format!("process {} did not say \"{word}\"", self.child.id()))?;
            if line.contains(word) {
                return Ok(line);
            }
        }
    }

    fn interrupt(&self) {
        // SAFETY: a plain system call on a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
    }

    /// Ends its input and waits for it.
    fn exit(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        let ends = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > ends {
                bail!("process {} does not end", self.child.id());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a child says is on the console too, so that the log tells the story.
fn echo(from: impl BufRead, lines: &mpsc::Sender<String>) {
    for line in from.lines() {
        let Ok(line) = line else { return };
        println!("{line}");
        // Nobody waits any more when the check is over; the console still wants the line.
        let _ = lines.send(line);
    }
}

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
use serde_json::{Value, json};
use tracer_tests::spans::{self, Span};

const REDIS: &str = "127.0.0.1:6379";
const ORDERS: u64 = 50;
const SHIM_ORDERS: u64 = 200;
/// Messages of the thread that is interrupted. Enough for dozens of interruptions inside a probe.
const STORM: u64 = 5_000;

/// Emulation is slow; the host has a deadline of its own for the whole boot.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the agent says when it has attached to what runs already.
const ATTACHED: &str = "Ctrl-C ends";

/// Runs the check.
pub fn run() -> Result<()> {
    let doctor = Command::new("/tracer").arg("doctor").output().context("/tracer")?;
    println!("{}", String::from_utf8_lossy(&doctor.stdout));
    ensure!(doctor.status.success(), "tracer doctor ended with {}", doctor.status);
    let _redis = Redis::start()?;
    // One that runs already, of which the agent knows nothing but what /proc says.
    let mut first = Talker::start(Command::new("/order_target").arg(REDIS))?;
    first.wait_for("ready")?;
    let mut agent = Talker::start(Command::new("/tracer").args(["run", "--query-text", "full"]).args([
        "-n=order_target",
        "-n=shim_target",
        "-n=storm_target",
        "-n=redis-server",
        "--export=file:/tmp/out.json",
        "--stats-json=/tmp/stats.json",
    ]))?;
    agent.wait_for(ATTACHED)?;
    let mut work = Work::default();
    work.calls(&mut first, &format!("orders {ORDERS}"))?;
    // The same program again: it is a target from its first instruction on.
    let mut second = Talker::start(Command::new("/order_target").arg(REDIS))?;
    work.calls(&mut second, &format!("orders {ORDERS}"))?;
    for target in [&mut first, &mut second] {
        let status = target.exit()?;
        ensure!(status.success(), "a target ended with {status}");
    }
    let mut shim = agent.traced("/shim_target")?;
    for command in ["sync", "flows"] {
        work.traces(&mut shim, &format!("{command} {REDIS} {SHIM_ORDERS}"))?;
    }
    let mut storm = agent.traced("/storm_target")?;
    work.calls(&mut storm, &format!("storm {STORM}"))?;
    for target in [&mut shim, &mut storm] {
        let status = target.exit()?;
        ensure!(status.success(), "a target ended with {status}");
    }
    agent.interrupt();
    let status = agent.exit()?;
    ensure!(status.success(), "the agent ended with {status}");
    let balance = fs::read_to_string("/tmp/stats.json")?;
    println!("TRACER-VM balance {}", balance.replace('\n', ""));
    let balance: Value = serde_json::from_str(&balance).context("the balance is not JSON")?;
    ensure!(balance["balanced"] == true, "the balance does not hold");
    ensure!(balance["lost"] == json!({}), "lost: {}", balance["lost"]);
    let served = balance["agent"]["commands_served"].as_u64().unwrap_or_default();
    ensure!(served > 0, "no command has its server's side");
    work.judge(&spans::parse(&fs::read_to_string("/tmp/out.json")?))
}

/// What the targets say that they did.
#[derive(Default)]
struct Work {
    /// Calls by process and kind.
    calls: BTreeMap<(u32, String), u64>,
    /// Trace and key of commands, by process.
    commands: Vec<(u32, String, String)>,
}

impl Work {
    /// Has a target do something; its answer says how much, by kind.
    fn calls(&mut self, target: &mut Talker, command: &str) -> Result<()> {
        target.say(command)?;
        let answer: BTreeMap<String, u64> = serde_json::from_str(&target.wait_for("{")?)?;
        for (kind, number) in answer {
            *self.calls.entry((target.child.id(), kind)).or_default() += number;
        }
        Ok(())
    }

    /// The same for the shim's target, which says the trace of each order.
    fn traces(&mut self, target: &mut Talker, command: &str) -> Result<()> {
        target.say(command)?;
        let answer: Vec<(u64, String, String)> = serde_json::from_str(&target.wait_for("[")?)?;
        let pid = target.child.id();
        self.commands.extend(answer.into_iter().map(|(id, trace, _)| (pid, format!("order:{id}"), trace)));
        Ok(())
    }

    /// Whether the spans are that work.
    fn judge(&self, spans: &[Span]) -> Result<()> {
        let mut calls: BTreeMap<(u32, &str), u64> = BTreeMap::new();
        let mut commands: BTreeMap<(u32, &str, &str), u64> = BTreeMap::new();
        for span in spans {
            let kind = match span.name.split(' ').next().unwrap_or_default() {
                // The server's spans are below the clients'.
                // What the library sends when it connects is seen of those that start after the agent, and is no work.
                "CLIENT" => continue,
                _ if span.attribute("db.system.name") == "redis" && span.kind == 3 => "redis",
                kind => kind,
            };
            *calls.entry((span.pid, kind)).or_default() += 1;
            if let ("redis", Some(key)) = (kind, span.attribute("db.query.text").strip_prefix("GET ")) {
                *commands.entry((span.pid, key, &span.trace)).or_default() += 1;
            }
        }
        for ((pid, kind), wanted) in &self.calls {
            let found = calls.get(&(*pid, kind.as_str())).copied().unwrap_or_default();
            ensure!(found == *wanted, "{found} spans of {kind} of process {pid}, not {wanted}");
        }
        let mut right = 0;
        for (pid, key, trace) in &self.commands {
            if let Some(number @ 1..) = commands.get_mut(&(*pid, key.as_str(), trace.as_str())) {
                *number -= 1;
                right += 1;
            }
        }
        ensure!(
            right == self.commands.len(),
            "{right} of {} commands in the trace of their order",
            self.commands.len()
        );
        Ok(())
    }
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

    /// Starts a target that the agent, which this is, has not seen before, and waits until it is traced.
    fn traced(&self, program: &str) -> Result<Self> {
        let target = Self::start(&mut Command::new(program))?;
        self.wait_for(&format!("(process {})", target.child.id()))?;
        target.wait_for("ready")?;
        Ok(target)
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
            ensure!(!line.contains("the sandbox refused"), "{line}");
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

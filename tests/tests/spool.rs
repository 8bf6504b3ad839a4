//! A collector that is away: what it misses waits on disk, whatever happens to the agent meanwhile, and comes to it once.
#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tracer_tests::rotel::{self, Collector, Sink};
use tracer_tests::{Agent, Outcome, Target, program, require_root, wait_for};

/// Where a collector may come, and what comes out of it.
struct Site {
    folder: TempDir,
    sink: Sink,
    program: PathBuf,
    grpc: SocketAddr,
    http: SocketAddr,
    /// Spans that came, by id, and how often.
    came: BTreeMap<Vec<u8>, u32>,
}

impl Site {
    async fn new() -> Self {
        require_root();
        Self {
            folder: TempDir::new().unwrap(),
            sink: Sink::start().await.unwrap(),
            program: rotel::agent(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap(),
            grpc: rotel::free_address().unwrap(),
            http: rotel::free_address().unwrap(),
            came: BTreeMap::new(),
        }
    }

    fn collector(&self) -> Collector {
        Collector::start_at(&self.program, self.folder.path(), self.sink.address, self.grpc, self.http).unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Spans on disk, by the names of the files.
    fn on_disk(&self) -> u64 {
        self.files().values().sum()
    }

    /// Spans in each file on disk: of one collector's, the newest is the last.
    fn files(&self) -> BTreeMap<PathBuf, u64> {
        let folders = self.spool().read_dir().into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| folder.path().read_dir().unwrap()).flatten();
        let spans = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            name.strip_suffix(".otlp1")?.split_once('-')?.1.parse::<u64>().ok()
        };
        files.map(|file| file.path()).filter_map(|path| spans(&path).map(|spans| (path, spans))).collect()
    }

    fn arguments(&self, pid: u32, protocol: &str) -> Vec<String> {
        let address = if protocol == "grpc" { self.grpc } else { self.http };
        let (spool, url) = (self.spool().display().to_string(), format!("otlp:http://{address}"));
        ["-p", &pid.to_string(), "--export", &url, "--spool", &spool].map(str::to_owned).to_vec()
    }

    /// An agent that exports here and into a file.
    fn agent(&self, target: &Target, protocol: &str, more: &[&str]) -> Agent {
        let mut command = Command::new(program("tracer"));
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        // Nobody waits for the end of it but a test whose collector never answers.
        command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000");
        self.agent_by(command, target, protocol, more)
    }

    fn agent_by(&self, command: Command, target: &Target, protocol: &str, more: &[&str]) -> Agent {
        let arguments = self.arguments(target.pid(), protocol);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Agent::run_by(command, &arguments)
    }

    /// Takes what has come, until there are at least so many different spans.
    fn receive(&mut self, spans: usize) {
        while self.came.len() < spans {
            self.take(1);
        }
    }

    fn take(&mut self, spans: usize) {
        for request in self.sink.take(spans).unwrap() {
            let resources = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            for span in resources.flat_map(|scope| scope.spans) {
                *self.came.entry(span.span_id).or_default() += 1;
            }
        }
    }

    /// Spans that came more than once.
    fn twice(&self) -> usize {
        self.came.values().filter(|times| **times > 1).count()
    }

    /// Fails unless all spans of the file came.
    fn assert_all_of(&self, outcome: &Outcome) {
        let hex = |id: &Vec<u8>| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut came: Vec<String> = self.came.keys().map(hex).collect();
        let mut exported: Vec<String> = outcome.spans.iter().map(|span| span.id.clone()).collect();
        came.sort();
        exported.sort();
        assert!(came == exported, "{} of {} came", came.len(), exported.len());
    }
}

/// The fates of the exporter to the collector.
fn fate(outcome: &Outcome, name: &str) -> u64 {
    outcome.stats["exporters"][1][name].as_u64().unwrap_or_else(|| panic!("{name}: {:#}", outcome.stats))
}

fn dropped(outcome: &Outcome, cause: &str) -> u64 {
    outcome.stats["exporters"][1]["dropped"][cause].as_u64().unwrap_or(0)
}

fn assert_balanced(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_late_and_goes_again_gets_every_span() {
    for protocol in ["grpc", "http/protobuf"] {
        let mut site = Site::new().await;
        let mut target = Target::start("prost_target");
        let mut agent = site.agent(&target, protocol, &[]);
        target.ask("messages 1000");
        agent.wait_until("they wait for it in");
        wait_for("the spool", || (site.on_disk() > 5_000).then_some(()));
        let collector = site.collector();
        agent.wait_until("is empty again");
        // It goes under load. What it took and has not said so comes again.
        for round in 0..20 {
            target.ask("messages 100");
            if round == 10 {
                break;
            }
        }
        collector.stop().unwrap();
        target.ask("messages 1000");
        wait_for("the spool", || (site.on_disk() > 5_000).then_some(()));
        let _collector = site.collector();
        target.ask("messages 100");
        wait_for("the end of the spool", || (site.on_disk() == 0).then_some(()));
        let outcome = agent.stop();
        outcome.assert_complete();
        assert_eq!((fate(&outcome, "spooled"), fate(&outcome, "recovered")), (0, 0), "{:#}", outcome.stats);
        assert!(fate(&outcome, "exported_from_spool") > 10_000, "{:#}", outcome.stats);
        site.receive(outcome.spans.len());
        site.assert_all_of(&outcome);
        eprintln!("{protocol}: {} of {} spans came twice", site.twice(), site.came.len());
        assert!(site.twice() <= 2_048, "{protocol}: more than the request on its way came twice: {}", site.twice());
        assert!(outcome.said.matches("they wait for it in").count() <= 2, "{}", outcome.said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_on_disk_survive_kills_of_the_agent() {
    let mut site = Site::new().await;
    let mut target = Target::start("prost_target");
    let agent = site.agent(&target, "grpc", &[]);
    target.ask("messages 4000");
    wait_for("the spool", || (site.on_disk() > 30_000).then_some(()));
    agent.kill();
    let left = site.on_disk();
    let newest = site.files().pop_last().expect("there are some");
    let _collector = site.collector();
    // Killed again when it has begun to send.
    let agent = site.agent(&target, "grpc", &[]);
    site.receive(1);
    agent.kill();
    let still_left = site.on_disk();
    // The one that the first kill may have torn: if so, this life has counted it as damaged, and nobody knows.
    let unknown = if site.files().contains_key(&newest.0) { 0 } else { newest.1 };

    let agent = site.agent(&target, "grpc", &[]);
    target.ask("messages 100");
    wait_for("the end of the spool", || (site.on_disk() == 0).then_some(()));
    let outcome = agent.stop();
    assert_balanced(&outcome);
    let damaged = dropped(&outcome, "spool_damaged");
    assert_eq!(fate(&outcome, "recovered"), still_left);
    assert_eq!(fate(&outcome, "exported"), fate(&outcome, "accepted") + still_left - damaged, "{:#}", outcome.stats);
    wait_for("the rest", || {
        site.take(0);
        (site.came.len() as u64 >= left + fate(&outcome, "accepted") - damaged - unknown).then_some(())
    });
    eprintln!("left {left}, then {still_left}; damaged {damaged}; {} came twice", site.twice());
    assert!(site.twice() <= 2_048, "more than the request on its way came twice: {}", site.twice());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_a_full_spool_are_counted_to_the_span() {
    for (cause, size) in [("spool_write_failed", "1073741824"), ("spool_full", "131072")] {
        let mut site = Site::new().await;
        let mut target = Target::start("prost_target");
        let disk = site.spool();
        std::fs::create_dir(&disk).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=256k,mode=0700 none \"$1\" && shift && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&disk).arg(program("tracer"));
        let mut agent = site.agent_by(command, &target, "http/protobuf", &["--spool-size", size]);
        target.ask("messages 8000");
        agent.wait_until(if cause == "spool_full" { "they wait for it in" } else { "No space left on device" });
        target.ask("messages 1000");
        let _collector = site.collector();
        target.ask("messages 10");
        agent.wait_until("is empty again");
        let outcome = agent.stop();
        assert_balanced(&outcome);
        let (exported, lost) = (fate(&outcome, "exported"), dropped(&outcome, cause));
        assert!(lost > 0 && exported > 0, "{cause}: {:#}", outcome.stats);
        assert_eq!(exported + lost, outcome.spans.len() as u64, "{cause}: {:#}", outcome.stats);
        site.receive(exported as usize);
        assert_eq!(site.came.len() as u64, exported, "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_nothing_and_the_next_one_gets_it() {
    for protocol in ["grpc", "http/protobuf"] {
        let mut site = Site::new().await;
        let mut target = Target::start("prost_target");
        let address = if protocol == "grpc" { site.grpc } else { site.http };
        let listener = std::net::TcpListener::bind(address).unwrap();
        let agent = site.agent(&target, protocol, &[]);
        target.ask("messages 3000");
        let outcome = agent.stop();
        assert_balanced(&outcome);
        assert_eq!(fate(&outcome, "spooled"), fate(&outcome, "accepted"), "{protocol}: {:#}", outcome.stats);
        assert_eq!(site.on_disk(), fate(&outcome, "spooled"));
        drop(listener);
        let _collector = site.collector();
        let agent = site.agent(&target, protocol, &[]);
        wait_for("the end of the spool", || (site.on_disk() == 0).then_some(()));
        let next = agent.stop();
        next.assert_complete();
        assert_eq!(fate(&next, "exported_from_spool"), fate(&outcome, "spooled"));
        site.receive(outcome.spans.len());
        assert_eq!(site.twice(), 0, "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_is_told_that_the_spool_is_in_use() {
    let site = Site::new().await;
    let target = Target::start("prost_target");
    let _agent = site.agent(&target, "grpc", &[]);
    let arguments = site.arguments(target.pid(), "grpc");
    let mut second = Command::new(program("tracer"));
    second.arg("run").args(&arguments).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another agent uses the spool") && said.contains("--spool"), "{said}");
}

/// Spans each second.
const RATE: f64 = 5_000.0;

/// For so long, with the collector away for four fifths of it.
async fn endure(time: Duration) {
    let mut site = Site::new().await;
    // Under a name of its own: agents of other tests look for names, and this takes long.
    let load = site.folder.path().join("spool_load");
    std::fs::copy(program("prost_target"), &load).unwrap();
    let mut target = Target::spawn(&mut Command::new(&load));
    let arguments = site.arguments(target.pid(), "http/protobuf");
    let mut agent = Agent::run_without_file(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let calls = |answer: &serde_json::Value| -> u64 {
        answer.as_object().unwrap().values().map(|calls| calls["count"].as_u64().unwrap()).sum()
    };
    let mut collector = Some(site.collector());
    let (mut sent, mut per_round, mut fullest) = (0, 10.0, 0);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let start = Instant::now();
    while start.elapsed() < time {
        tick.tick().await;
        site.take(0);
        let share = start.elapsed().as_secs_f64() / time.as_secs_f64();
        let away = (0.05..0.85).contains(&share);
        if away && let Some(collector) = collector.take() {
            collector.stop().unwrap();
        } else if !away && collector.is_none() {
            fullest = disk_usage(&site.spool());
            collector = Some(site.collector());
        }
        let due = start.elapsed().as_secs_f64() * RATE - sent as f64;
        if due >= per_round {
            let rounds = (due / per_round) as u64;
            let done = calls(&target.ask(&format!("messages {rounds}")));
            sent += done;
            per_round = done as f64 / rounds as f64;
        }
    }
    agent.wait_until("is empty again");
    let memory = agent.memory_kb("VmHWM") << 10;
    let outcome = agent.stop();
    outcome.assert_complete();
    let exporter = |name: &str| outcome.count(&format!("/exporters/0/{name}"));
    let produced = outcome.count("/produced");
    let rate = produced as f64 / time.as_secs_f64();
    site.receive(produced as usize);
    eprintln!(
        "{produced} spans in {time:?} ({rate:.0}/s), {} by way of the disk ({} MiB at most), {} came twice; the agent's memory \
         {} MiB at most",
        exporter("exported_from_spool"),
        fullest >> 20,
        site.twice(),
        memory >> 20,
    );
    assert_eq!((exporter("exported"), site.came.len() as u64), (produced, produced));
    assert!(rate > 0.95 * RATE, "{rate} spans a second");
    assert!(exporter("exported_from_spool") as f64 > 0.7 * produced as f64, "{:#}", outcome.stats);
    assert!(site.twice() <= 2_048, "{} came twice", site.twice());
}

fn disk_usage(spool: &Path) -> u64 {
    let folders = spool.read_dir().unwrap().flatten();
    let files = folders.flat_map(|folder| folder.path().read_dir().unwrap()).flatten();
    files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_spans_a_second_lose_nothing() {
    endure(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "ten minutes of load: `cargo xtask test --full`"]
async fn five_thousand_spans_a_second_for_ten_minutes_lose_nothing() {
    endure(Duration::from_secs(600)).await;
}

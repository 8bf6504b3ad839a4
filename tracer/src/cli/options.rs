//! Flags that several subcommands share, as a layer of [`Config`].

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::NoTarget;
use super::config::{Config, ExportTarget, QueryText, RedisServer, SocketProbe, process_env};
use crate::agent;
use crate::output_file;
use crate::protocol::redis;
use crate::target::{HostFacts, Selector};
use crate::trace::sampler::Sampler;
use crate::trace::{Correlator, Options as TraceOptions};
use crate::web::{ListenError, Server};

/// The agent's memory shows it twice, because it is mapped twice in a row.
const DEFAULT_RING_BYTES: u32 = 32 << 20;
/// Where the page is unless another address is given.
pub const WEB_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7070));
/// For tests: other sizes of the eBPF maps ([`crate::probe::MapSizes`]).
const MAP_SIZES: &str = "TRACER_MAP_SIZES";

/// Which processes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Targets")]
pub struct Targets {
    /// Name of the process: exact, or a glob such as 'risk_*'. Later starters and restarts count too.
    #[arg(short, long, value_name = "NAME", num_args = 1..)]
    pub name: Vec<String>,
    /// Process number.
    #[arg(short, long, value_name = "PID", num_args = 1.., value_parser = process_number)]
    pub pid: Vec<u32>,
    /// Glob of the executable's path, such as '/opt/trading/**'.
    #[arg(short, long, value_name = "GLOB", num_args = 1..)]
    pub exe: Vec<String>,
    /// Container: the beginning of its id or name. Everything in it is traced, also what is started later.
    #[arg(short, long, value_name = "ID|NAME", num_args = 1..)]
    pub container: Vec<String>,
    /// Seconds to run; without it until Ctrl-C.
    #[arg(long, value_name = "SECS", value_parser = whole_number::<u64>)]
    pub duration: Option<u64>,
    /// Bytes of the kernel's ring buffer [default: 33554432].
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<u32>)]
    pub ring_size: Option<u32>,
    /// How socket calls are seen: auto, sockets (tracepoints of the socket layer, Linux 6.3), syscalls (tracepoints of all
    /// system calls) or off (no spans of Redis and databases) [default: auto].
    #[arg(long, value_name = "HOW")]
    pub socket_probe: Option<SocketProbe>,
    /// Attach to the Redis servers of this host that targets talk to, to tell who waits for whom: auto (default) or off.
    #[arg(long, value_name = "HOW")]
    pub redis_server: Option<RedisServer>,
    /// Name the arguments of targets (`process.command_args`): options, but no values that may be credentials.
    #[arg(long)]
    pub command_args: bool,
    /// How the session starts.
    #[command(flatten)]
    pub start: Start,
    /// A command to start and trace, with everything that it starts: `-- make run`, `-- sh -c './a & ./b'`. The session ends with the
    /// command, or later with the last process that it has left behind and of which there are spans.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// With which rights the agent and its command run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rights")]
pub struct Start {
    /// The user, with all groups, whom the command runs as: NAME, UID or UID:GID [default: the agent's own].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Keep all capabilities, and filter no system calls: to find out whether the sandbox is in the way.
    #[arg(long)]
    pub no_sandbox: bool,
}

/// The browser view.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Browser view")]
pub struct WebArgs {
    /// Show the newest spans in a browser, at this address [default: 127.0.0.1:7070]. Addresses that other hosts reach need --web-token.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:7070", value_parser = web_address)]
    pub web: Option<SocketAddr>,
    /// What the browser must know: at least 16 letters and digits [default: a random one].
    #[arg(long, value_name = "TOKEN", env = "TRACER_WEB_TOKEN", hide_env = true)]
    pub web_token: Option<String>,
}

impl WebArgs {
    /// Listens where it was asked to.
    ///
    /// # Errors
    /// When the address cannot be had, or needs a token.
    pub fn listen(self) -> Result<Option<Server>, ListenError> {
        self.web.map(|address| Server::listen(address, self.web_token)).transpose()
    }
}

/// Says what a page means that other hosts reach.
pub fn warn_if_exposed(server: &Server) {
    if server.is_exposed() {
        tracing::warn!("other hosts can reach the page, and everything on it goes over the network unencrypted");
    }
}

/// What becomes of the spans.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Spans")]
pub struct Spans {
    /// Where spans go: terminal, file:PATH, otlp, otlp:URL or none; repeatable. Without it to the collector that the
    /// OTEL_EXPORTER_OTLP_* variables name, else to the terminal.
    #[arg(long, value_name = "WHERE")]
    pub export: Vec<ExportTarget>,
    /// Which traces are kept: always_on, always_off, traceidratio=0.1, parentbased_always_on (default),
    /// parentbased_always_off or parentbased_traceidratio=0.1.
    #[arg(long, value_name = "SAMPLER")]
    pub sampler: Option<Sampler>,
    /// How much of a Redis command or of SQL is shown: off, sanitized (default) or full. Credentials never are.
    #[arg(long, value_name = "HOW")]
    pub query_text: Option<QueryText>,
    /// Mark spans of Redis and databases that took this long or longer with `tracer.slow`.
    #[arg(long, value_name = "MILLIS", value_parser = whole_number::<u64>)]
    pub slow_query: Option<u64>,
    /// `service.name` of every target.
    #[arg(long, value_name = "NAME")]
    pub service_name: Option<String>,
    /// Resource attribute of every target; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub resource_attribute: Vec<(String, String)>,
    /// Spans that an exporter may be behind before it loses some [default: 65536].
    #[arg(long, value_name = "SPANS", value_parser = whole_number::<NonZeroUsize>)]
    pub max_queue_size: Option<NonZeroUsize>,
    /// Bytes of memory, about, for what is being followed and for spans that wait for exporters, which may take half. Then the
    /// oldest goes, and is counted [default: 268435456].
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<NonZeroUsize>)]
    pub memory_budget: Option<NonZeroUsize>,
    /// Folder for spans that a collector does not take; they are sent when it does, also by a later run.
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Bytes on disk for each collector; then the oldest spans go [default: 1073741824].
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<NonZeroU64>)]
    pub spool_size: Option<NonZeroU64>,
    /// Write the balance to this file at the end, as JSON.
    #[arg(long, value_name = "PATH")]
    pub stats_json: Option<PathBuf>,
    /// Configuration file (YAML, keys as the flags); flags and environment win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The parser of the standard library tells what is wrong with the digits, not what to write.
pub(super) fn process_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "use the number of a process; `-n` is for names".to_owned())
}

/// The flag's help says of what.
fn whole_number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "use a whole number above 0".to_owned())
}

fn web_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("use an IP address with a port, such as {WEB_ADDRESS}"))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "use KEY=VALUE".to_owned())
}

/// The flags over the environment over the file.
pub fn config(targets: Targets, spans: Spans) -> Result<Config> {
    let flags = Config {
        name: targets.name,
        pid: targets.pid,
        exe: targets.exe,
        container: targets.container,
        duration: targets.duration,
        ring_size: targets.ring_size,
        socket_probe: targets.socket_probe,
        redis_server: targets.redis_server,
        command_args: targets.command_args.then_some(true),
        export: spans.export,
        sampler: spans.sampler,
        query_text: spans.query_text,
        slow_query: spans.slow_query,
        service_name: spans.service_name,
        resource_attributes: spans.resource_attribute.into_iter().collect(),
        max_queue_size: spans.max_queue_size,
        memory_budget: spans.memory_budget,
        spool: spans.spool,
        spool_size: spans.spool_size,
        stats_json: spans.stats_json,
        ..Config::default()
    };
    let file = match &spans.config {
        Some(path) => Config::from_file(path)?,
        None => Config::default(),
    };
    let (environment, warnings) = Config::from_environment(&process_env);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(flags.over(environment).over(file))
}

/// Says what became of everything: in one line if nothing was lost, unless details were asked for.
pub fn say_balance(balance: &agent::Balance) {
    let in_full = tracing::enabled!(tracing::Level::DEBUG);
    let text = if in_full { balance.text() } else { balance.brief() };
    text.lines().for_each(|line| tracing::info!("{line}"));
    if !balance.holds() {
        tracing::error!("the balance does not hold: spans were lost without a cause; please report this");
    }
}

/// Writes the balance where it was asked for.
pub fn write_stats(file: Option<File>, balance: &agent::Balance) -> Result<()> {
    let Some(mut file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(&balance.json())?;
    writeln!(file, "{text}").context("cannot write the balance")
}

impl Config {
    /// Which processes are meant.
    pub(super) fn selector(&self, has_command: bool) -> Result<Selector> {
        if self.name.is_empty()
            && self.pid.is_empty()
            && self.exe.is_empty()
            && self.container.is_empty()
            && !has_command
        {
            return Err(NoTarget(
                "nothing to trace: give -n NAME, -p PID, -e GLOB, -c CONTAINER or -- COMMAND; `tracer ps` lists what could be traced"
                    .to_owned(),
            )
            .into());
        }
        Ok(Selector::new(&self.name, &self.exe, &self.pid, &self.container)?)
    }

    /// What the session needs to know.
    pub(super) fn agent_options(&self, has_command: bool) -> Result<agent::Options> {
        let extra = self.resource_attributes.clone().into_iter().collect();
        Ok(agent::Options {
            selector: self.selector(has_command)?,
            host: HostFacts::read(self.service_name.clone(), extra)
                .with_command_args(self.command_args.unwrap_or_default()),
            ring_bytes: self.ring_size.unwrap_or(DEFAULT_RING_BYTES),
            map_sizes: process_env(MAP_SIZES).unwrap_or_default().parse().context(MAP_SIZES)?,
            sockets: self.socket_probe.unwrap_or_default(),
            redis_servers: self.redis_server.unwrap_or_default() == RedisServer::Auto,
            filter_calls: false,
            command: has_command,
        })
    }

    /// A correlator whose ids come from `seed`.
    pub(super) fn correlator(&self, seed: u64) -> Correlator {
        let query_text = match self.query_text.unwrap_or_default() {
            QueryText::Off => redis::QueryText::Off,
            QueryText::Sanitized => redis::QueryText::Sanitized,
            QueryText::Full => redis::QueryText::Full,
        };
        let slow_query_ns = self.slow_query.map(|millis| millis.saturating_mul(1_000_000));
        Correlator::new(TraceOptions {
            seed,
            sampler: self.sampler.unwrap_or_default(),
            query_text,
            slow_query_ns,
            memory_budget: self.memory_budget(),
        })
    }

    /// Opens the file for the balance, if there is to be one. At the end there may be no right to.
    pub(super) fn stats_file(&self) -> Result<Option<File>> {
        self.stats_json.as_deref().map(output_file::create).transpose().context("the balance")
    }

    /// How long exporters may take at the end.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }
}

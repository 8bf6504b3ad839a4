//! What to trace and where to send it: a YAML file, the `OTEL_*` environment and the flags, the later over the earlier.

pub mod check;
mod forms;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use forms::{OneOrMany, one_or_many, text};

use crate::export::file::FileExporter;
use crate::export::otlp::{OtlpClient, OtlpExporter, Retry, Settings, Signal};
use crate::export::spool::{self, Spool};
use crate::export::terminal::TerminalExporter;
use crate::export::{Exporter, Options};
pub use crate::probe::SocketProbe;
use crate::trace::sampler::Sampler;

/// Where packages put it. The agent reads it only if it is told to.
pub const DEFAULT_FILE: &str = "/etc/tracer/tracer.yaml";
/// At 5,000 spans a second, about an hour and a half.
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;
const DEFAULT_MEMORY_BYTES: usize = 256 << 20;

/// Looks up an environment variable; tests give their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process. A variable that is not UTF-8 counts as unset.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One layer of configuration: what is not said is empty. Field names are those of the flags and of the file's keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[schemars(title = "Configuration of tracer run")]
pub struct Config {
    /// Process names, exact or globs.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub name: Vec<String>,
    /// Process numbers.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<u32>")]
    pub pid: Vec<u32>,
    /// Globs of executable paths.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub exe: Vec<String>,
    /// Beginnings of container ids or names.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub container: Vec<String>,
    /// Where spans go.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub export: Vec<ExportTarget>,
    /// Which traces are kept.
    #[serde(deserialize_with = "text")]
    #[schemars(with = "String")]
    pub sampler: Option<Sampler>,
    /// How socket calls are seen.
    #[serde(deserialize_with = "text")]
    #[schemars(with = "String", extend("enum" = ["auto", "sockets", "syscalls", "off"]))]
    pub socket_probe: Option<SocketProbe>,
    /// Whether Redis servers are attached to.
    #[serde(deserialize_with = "text")]
    #[schemars(with = "String", extend("enum" = ["auto", "off"]))]
    pub redis_server: Option<RedisServer>,
    /// How much of a query is shown.
    #[serde(deserialize_with = "text")]
    #[schemars(with = "String", extend("enum" = ["off", "sanitized", "full"]))]
    pub query_text: Option<QueryText>,
    /// Milliseconds from which on a command of Redis or a database is marked as slow.
    pub slow_query: Option<u64>,
    /// `service.name` of every target.
    pub service_name: Option<String>,
    /// Whether `process.command_args` goes out, without values that may be credentials.
    pub command_args: Option<bool>,
    /// Resource attributes of every target.
    pub resource_attributes: BTreeMap<String, String>,
    /// Seconds to run.
    pub duration: Option<u64>,
    /// Bytes of the kernel's ring buffer.
    pub ring_size: Option<u32>,
    /// Spans that an exporter may be behind.
    pub max_queue_size: Option<NonZeroUsize>,
    /// Bytes that all state and the spans that wait for exporters may take.
    pub memory_budget: Option<NonZeroUsize>,
    /// Spans in a request.
    pub max_batch_size: Option<NonZeroUsize>,
    /// Milliseconds that a span waits for others of its request.
    pub schedule_delay: Option<u64>,
    /// Milliseconds after which a request is given up, with its repetitions.
    pub export_timeout: Option<u64>,
    /// Folder for spans that a collector does not take.
    pub spool: Option<PathBuf>,
    /// Bytes on disk for each collector.
    pub spool_size: Option<NonZeroU64>,
    /// Where the balance is written at the end.
    pub stats_json: Option<PathBuf>,
}

/// A value that is none of the possible ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not possible here; use {possible}")]
pub struct UnknownValue {
    value: String,
    possible: &'static str,
}

/// Where spans go: `terminal`, `file:PATH`, `otlp`, `otlp:URL` or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTarget {
    /// Trees on the standard output.
    Terminal,
    /// OTLP-JSON lines.
    File(PathBuf),
    /// A collector, by the `OTEL_EXPORTER_OTLP_*` variables; an URL here wins over theirs.
    Otlp(Option<String>),
    /// Nowhere; the spans are still counted.
    None,
}

impl FromStr for ExportTarget {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("terminal", "") => Ok(Self::Terminal),
            ("none", "") => Ok(Self::None),
            ("otlp", "") => Ok(Self::Otlp(None)),
            ("otlp", url) => Ok(Self::Otlp(Some(url.to_owned()))),
            ("file", path) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(UnknownValue { value: text.to_owned(), possible: "terminal, file:PATH, otlp, otlp:URL or none" }),
        }
    }
}

impl FromStr for SocketProbe {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        Ok(match text {
            "auto" => Self::Auto,
            "sockets" => Self::Sockets,
            // What it was called before there was a choice.
            "syscalls" | "tracepoint" => Self::SystemCalls,
            "off" => Self::Off,
            _ => {
                return Err(UnknownValue { value: text.to_owned(), possible: "auto, sockets, syscalls or off" });
            }
        })
    }
}

/// Whether the Redis servers that targets talk to are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RedisServer {
    /// Those on this host.
    #[default]
    Auto,
    /// Only those that are targets by name.
    Off,
}

impl FromStr for RedisServer {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err(UnknownValue { value: text.to_owned(), possible: "auto or off" }),
        }
    }
}

/// How much of a query is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QueryText {
    /// Nothing but the name of the command.
    Off,
    /// Literals and arguments are replaced by `?`.
    #[default]
    Sanitized,
    /// As it was sent, without credentials.
    Full,
}

impl FromStr for QueryText {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text {
            "off" => Ok(Self::Off),
            "sanitized" => Ok(Self::Sanitized),
            "full" => Ok(Self::Full),
            _ => Err(UnknownValue { value: text.to_owned(), possible: "off, sanitized or full" }),
        }
    }
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what is expected; the source names line and column.
    #[error("the configuration file {} is not valid", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml_ng::Error,
    },
}

impl Config {
    /// From a YAML file.
    ///
    /// # Errors
    /// When it cannot be read, or is not a configuration.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        // A file of comments only is a document without a value.
        serde_yaml_ng::from_str::<Option<Self>>(&text)
            .map(Option::unwrap_or_default)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// From the `OTEL_*` variables, with a warning for each that is ignored because it makes no sense, as their
    /// specification wants it.
    pub fn from_environment(env: Env<'_>) -> (Self, Vec<String>) {
        let mut variables = Variables { env, warnings: Vec::new() };
        let config = Self {
            sampler: variables.sampler(),
            export: variables.exporters(),
            max_queue_size: variables.number("OTEL_BSP_MAX_QUEUE_SIZE"),
            max_batch_size: variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            schedule_delay: variables.number("OTEL_BSP_SCHEDULE_DELAY"),
            export_timeout: variables.number("OTEL_BSP_EXPORT_TIMEOUT"),
            ..Self::default()
        };
        (config, variables.warnings)
    }

    /// This layer over another: what is said here wins, and a list that is not empty replaces the other whole.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        fn list<T>(above: Vec<T>, below: Vec<T>) -> Vec<T> {
            if above.is_empty() { below } else { above }
        }
        let mut resource_attributes = below.resource_attributes;
        resource_attributes.extend(self.resource_attributes);
        Self {
            name: list(self.name, below.name),
            pid: list(self.pid, below.pid),
            exe: list(self.exe, below.exe),
            container: list(self.container, below.container),
            export: list(self.export, below.export),
            sampler: self.sampler.or(below.sampler),
            socket_probe: self.socket_probe.or(below.socket_probe),
            redis_server: self.redis_server.or(below.redis_server),
            query_text: self.query_text.or(below.query_text),
            slow_query: self.slow_query.or(below.slow_query),
            service_name: self.service_name.or(below.service_name),
            command_args: self.command_args.or(below.command_args),
            resource_attributes,
            duration: self.duration.or(below.duration),
            ring_size: self.ring_size.or(below.ring_size),
            max_queue_size: self.max_queue_size.or(below.max_queue_size),
            memory_budget: self.memory_budget.or(below.memory_budget),
            max_batch_size: self.max_batch_size.or(below.max_batch_size),
            schedule_delay: self.schedule_delay.or(below.schedule_delay),
            export_timeout: self.export_timeout.or(below.export_timeout),
            spool: self.spool.or(below.spool),
            spool_size: self.spool_size.or(below.spool_size),
            stats_json: self.stats_json.or(below.stats_json),
        }
    }

    /// Where spans go: as configured, else to the collector that the environment names, else to the terminal.
    pub fn export_targets(&self, env: Env<'_>) -> Vec<ExportTarget> {
        if !self.export.is_empty() {
            return self.export.clone();
        }
        vec![if Settings::in_environment(env) { ExportTarget::Otlp(None) } else { ExportTarget::Terminal }]
    }

    /// Opens everything that spans go to.
    ///
    /// # Errors
    /// When a file cannot be created or the settings of a collector cannot be used.
    pub fn exporters(&self, env: Env<'_>) -> anyhow::Result<Vec<Box<dyn Exporter>>> {
        let mut exporters: Vec<Box<dyn Exporter>> = Vec::new();
        let mut spools = Vec::new();
        for target in self.export_targets(env) {
            match target {
                ExportTarget::Terminal => exporters.push(Box::new(TerminalExporter::stdout())),
                ExportTarget::File(path) => exporters.push(Box::new(FileExporter::create(&path)?)),
                ExportTarget::Otlp(url) => {
                    let settings = Settings::resolve(Signal::Traces, url.as_deref(), env)?;
                    let client = OtlpClient::new(settings, self.retry())?;
                    let spool = self.spool.as_ref().map(|directory| {
                        let size = self.spool_size.map_or(DEFAULT_SPOOL_BYTES, NonZeroU64::get);
                        Spool::open(directory, &client.endpoint(), size)
                    });
                    let mut exporter =
                        OtlpExporter::new(client, self.pipeline_options().max_batch_size, self.schedule_delay());
                    if let Some(spool) = spool.transpose()? {
                        spools.push(spool.folder().to_owned());
                        exporter = exporter.with_spool(spool);
                    }
                    exporters.push(Box::new(exporter));
                }
                ExportTarget::None => {}
            }
        }
        if let Some(directory) = &self.spool {
            if spools.is_empty() {
                tracing::warn!("--spool has no use: spans do not go to a collector; add --export otlp:URL");
            }
            for folder in spool::left_for_others(directory, &spools) {
                tracing::warn!(
                    "{} holds spans for another collector; they wait for a run that exports to it",
                    folder.display()
                );
            }
        }
        Ok(exporters)
    }

    /// The collector for the agent's own counters: where spans go to one, at the same URL or that of
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.
    ///
    /// # Errors
    /// When its settings cannot be used.
    pub fn metrics_client(&self, env: Env<'_>) -> anyhow::Result<Option<OtlpClient>> {
        for target in self.export_targets(env) {
            if let ExportTarget::Otlp(url) = target {
                let settings = Settings::resolve(Signal::Metrics, url.as_deref(), env)?;
                return Ok(Some(OtlpClient::new(settings, self.retry())?));
            }
        }
        Ok(None)
    }

    /// Bytes that all state and the spans that wait for exporters may take.
    pub fn memory_budget(&self) -> usize {
        self.memory_budget.map_or(DEFAULT_MEMORY_BYTES, NonZeroUsize::get)
    }

    /// Queue and batch sizes.
    pub fn pipeline_options(&self) -> Options {
        let default = Options::default();
        Options {
            max_queue_size: self.max_queue_size.unwrap_or(default.max_queue_size),
            // What is being traced has the other half.
            max_queue_bytes: self.memory_budget() / 2,
            max_batch_size: self.max_batch_size.unwrap_or(default.max_batch_size),
            ..default
        }
    }

    /// How long and how often a request is repeated.
    pub fn retry(&self) -> Retry {
        let default = Retry::default();
        Retry { total: self.export_timeout.map_or(default.total, Duration::from_millis), ..default }
    }

    /// A second by default: the standard's 5 s make a live view lag.
    fn schedule_delay(&self) -> Duration {
        Duration::from_millis(self.schedule_delay.unwrap_or(1_000))
    }
}

struct Variables<'a> {
    env: Env<'a>,
    warnings: Vec<String>,
}

impl Variables<'_> {
    /// The specification takes an empty variable for an unset one.
    fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn parse<T>(&mut self, name: &str, value: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(value).map_err(|error| self.warnings.push(format!("{name}={value} is ignored: {error}"))).ok()
    }

    fn number<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let value = self.get(name)?;
        self.parse(name, &value, |value| value.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn sampler(&mut self) -> Option<Sampler> {
        let name = self.get("OTEL_TRACES_SAMPLER")?;
        // An argument that the sampler does not take is no error here, and a wrong one counts as unset.
        let argument = name.ends_with("traceidratio").then(|| self.get("OTEL_TRACES_SAMPLER_ARG")).flatten();
        Sampler::new(&name, argument.as_deref())
            .or_else(|error| {
                self.warnings.push(format!("OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG is ignored: {error}"));
                Sampler::new(&name, None)
            })
            .ok()
    }

    fn exporters(&mut self) -> Vec<ExportTarget> {
        let name = "OTEL_TRACES_EXPORTER";
        let Some(list) = self.get(name) else {
            return Vec::new();
        };
        list.split(',')
            .filter_map(|exporter| match exporter.trim() {
                "otlp" => Some(ExportTarget::Otlp(None)),
                "console" => Some(ExportTarget::Terminal),
                "none" => Some(ExportTarget::None),
                other => self.parse(name, other, |_| Err("use otlp, console or none".to_owned())),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

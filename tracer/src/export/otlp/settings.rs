//! Where OTLP goes and how: the `OTEL_EXPORTER_OTLP_*` variables, read as the specification says.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The kind of data; each can have its own collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Counters.
    Metrics,
}

impl Signal {
    fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
        }
    }

    pub(super) fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf in HTTP POST requests.
    HttpProtobuf,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// gzip, which every collector knows.
    Gzip,
    /// zstd, over gRPC only; a sixth of gzip's CPU.
    Zstd,
}

/// Files for TLS, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trusted instead of the system's certificates.
    pub certificate: Option<PathBuf>,
    /// The client's own certificate chain.
    pub client_certificate: Option<PathBuf>,
    /// The key of it.
    pub client_key: Option<PathBuf>,
}

/// Headers of every request. They hold credentials, so `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub HeaderMap);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is sent there.
    pub signal: Signal,
    /// How.
    pub protocol: Protocol,
    /// Full URL for HTTP; scheme, host and port for gRPC.
    pub endpoint: Url,
    /// Headers of every request.
    pub headers: Headers,
    /// Compression of requests.
    pub compression: Compression,
    /// For one attempt of a request.
    pub timeout: Duration,
    /// TLS files, used with `https`.
    pub tls: Tls,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not an URL that OTLP can use.
    #[error("{name}: {value:?} is not an http:// or https:// URL, such as http://localhost:4318")]
    Endpoint {
        /// The variable or flag.
        name: String,
        /// Its value.
        value: String,
    },
    /// Headers are not `name=value,...`. The value may hold a credential and is not shown.
    #[error("{name}: member {position} is not a header of the form name=value, with percent-encoded value")]
    Header {
        /// The variable.
        name: String,
        /// Which of the comma-separated members, from 1.
        position: usize,
    },
    /// A client certificate needs its key, and a key its certificate.
    #[error("{present} is set but {absent} is not: a client certificate and its key go together")]
    HalfIdentity {
        /// The variable that is set.
        present: &'static str,
        /// The variable that is missing.
        absent: &'static str,
    },
}

/// Looks up an environment variable; tests give their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// True when the environment names a collector for spans.
    pub fn in_environment(env: Env<'_>) -> bool {
        Variables { env, signal: Signal::Traces }.get("ENDPOINT").is_some()
    }

    /// From the environment, and the endpoint of `--export otlp:URL`, which wins and is a base URL as
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` is. Values that are not understood are warned about and ignored, as the specification
    /// wants it, except where ignoring them would send data elsewhere or without its credentials.
    ///
    /// # Errors
    /// When the endpoint, the headers or the TLS files cannot be used as given.
    pub fn resolve(signal: Signal, flag: Option<&str>, env: Env<'_>) -> Result<Self, SettingsError> {
        let variables = Variables { env, signal };
        let protocol = variables.protocol();
        let (name, value, own) = match flag {
            Some(url) => ("--export otlp".to_owned(), url.to_owned(), false),
            None => variables.get_own("ENDPOINT").unwrap_or_else(|| {
                let port = if protocol == Some(Protocol::Grpc) { 4317 } else { 4318 };
                ("default endpoint".to_owned(), format!("http://localhost:{port}"), false)
            }),
        };
        let protocol = protocol.unwrap_or_else(|| usual_protocol(&value));
        let insecure = || variables.get("INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        let insecure = flag.is_none().then(insecure);
        let endpoint = endpoint(&name, &value, protocol, (!own).then_some(signal), insecure)?;
        Ok(Self {
            signal,
            protocol,
            endpoint,
            headers: variables.headers()?,
            compression: variables.compression(protocol),
            timeout: variables.timeout(),
            tls: variables.tls()?,
        })
    }

    /// The endpoint without what may be a credential: user, password, query.
    pub fn name(&self) -> String {
        let mut url = self.endpoint.clone();
        // Both fail only for URLs without a host, and these were refused.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_query(None);
        url.to_string()
    }
}

/// Without a protocol, port 4317 means gRPC: nobody serves HTTP/protobuf there, and the standard's default would only fail.
fn usual_protocol(endpoint: &str) -> Protocol {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = host.split('/').next().unwrap_or(host);
    if authority.ends_with(":4317") { Protocol::Grpc } else { Protocol::HttpProtobuf }
}

/// Parses an endpoint. `base` is the signal whose path is appended for HTTP, `None` when the URL is to be used verbatim.
/// `insecure` tells the scheme where gRPC may go without one.
fn endpoint(
    name: &str,
    value: &str,
    protocol: Protocol,
    base: Option<Signal>,
    insecure: Option<bool>,
) -> Result<Url, SettingsError> {
    // User and password are before the `@`.
    let shown = || value.rsplit_once('@').map_or_else(|| value.to_owned(), |(_, host)| format!("...@{host}"));
    let error = || SettingsError::Endpoint { name: name.to_owned(), value: shown() };
    let with_scheme = match (value.contains("://"), protocol, insecure) {
        (true, ..) => value.to_owned(),
        (false, Protocol::Grpc, Some(false)) => format!("https://{value}"),
        (false, Protocol::Grpc, Some(true)) => format!("http://{value}"),
        (false, ..) => return Err(error()),
    };
    let mut url = Url::parse(&with_scheme).map_err(|_| error())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(error());
    }
    if protocol == Protocol::HttpProtobuf
        && let Some(signal) = base
    {
        let path = format!("{}/{}", url.path().trim_end_matches('/'), signal.http_path());
        url.set_path(&path);
    }
    Ok(url)
}

struct Variables<'a> {
    env: Env<'a>,
    signal: Signal,
}

impl Variables<'_> {
    /// The variable of the signal, else the general one: its name, value, and whether it is the signal's own. The
    /// specification takes an empty variable for an unset one.
    fn get_own(&self, suffix: &str) -> Option<(String, String, bool)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{suffix}", self.signal.infix());
        let general = format!("OTEL_EXPORTER_OTLP_{suffix}");
        [(own, true), (general, false)].into_iter().find_map(|(name, own)| {
            let value = (self.env)(&name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value, own))
        })
    }

    fn get(&self, suffix: &str) -> Option<(String, String)> {
        self.get_own(suffix).map(|(name, value, _)| (name, value))
    }

    fn protocol(&self) -> Option<Protocol> {
        let (name, value) = self.get("PROTOCOL")?;
        match value.as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => {
                tracing::warn!("{name}={value} is ignored: this exporter knows grpc and http/protobuf");
                None
            }
        }
    }

    fn compression(&self, protocol: Protocol) -> Compression {
        let Some((name, value)) = self.get("COMPRESSION") else {
            return Compression::None;
        };
        match (value.as_str(), protocol) {
            ("none", _) => Compression::None,
            ("gzip", _) => Compression::Gzip,
            ("zstd", Protocol::Grpc) => Compression::Zstd,
            _ => {
                tracing::warn!("{name}={value} is ignored: this exporter knows none, gzip, and with grpc zstd");
                Compression::None
            }
        }
    }

    fn timeout(&self) -> Duration {
        let default = Duration::from_secs(10);
        let Some((name, value)) = self.get("TIMEOUT") else {
            return default;
        };
        match value.parse() {
            Ok(ms) if ms > 0 => Duration::from_millis(ms),
            _ => {
                tracing::warn!("{name}={value} is ignored: it is not a positive number of milliseconds");
                default
            }
        }
    }

    fn headers(&self) -> Result<Headers, SettingsError> {
        let mut headers = HeaderMap::new();
        let Some((name, value)) = self.get("HEADERS") else {
            return Ok(Headers(headers));
        };
        for (index, member) in value.split(',').enumerate().filter(|(_, member)| !member.trim().is_empty()) {
            let (key, value) = parse_header(member)
                .ok_or_else(|| SettingsError::Header { name: name.clone(), position: index + 1 })?;
            headers.insert(key, value);
        }
        Ok(Headers(headers))
    }

    fn tls(&self) -> Result<Tls, SettingsError> {
        let path = |suffix| self.get(suffix).map(|(_, value)| PathBuf::from(value));
        let tls = Tls {
            certificate: path("CERTIFICATE"),
            client_certificate: path("CLIENT_CERTIFICATE"),
            client_key: path("CLIENT_KEY"),
        };
        let (certificate, key) = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY");
        match (&tls.client_certificate, &tls.client_key) {
            (Some(_), None) => Err(SettingsError::HalfIdentity { present: certificate, absent: key }),
            (None, Some(_)) => Err(SettingsError::HalfIdentity { present: key, absent: certificate }),
            _ => Ok(tls),
        }
    }
}

/// One member of W3C baggage syntax, without properties.
fn parse_header(member: &str) -> Option<(HeaderName, HeaderValue)> {
    let (key, value) = member.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let key = HeaderName::from_bytes(key.trim().as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some((key, value))
}

#[cfg(test)]
mod tests;

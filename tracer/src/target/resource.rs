//! The OTLP resource of a process, by the semantic conventions (1.44) for `service`, `process`, `host` and `container`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::container::{container_id, host_root};
use super::kubernetes::pod_attributes;
use super::language::language;
use super::{Process, is_redis_server, published_attributes, shown_arguments};
use crate::model::ProcessId;
use crate::model::ProcessInfo;
use crate::model::ResourceValue;

/// What is the same for all processes of this host.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    name: Option<String>,
    id: Option<String>,
    /// Attributes given on the command line, for every process.
    extra: Vec<(String, String)>,
    service_name: Option<String>,
    command_args: bool,
}

impl HostFacts {
    /// Reads the host's name and machine id; `service_name` and `extra` override what processes say of themselves.
    pub fn read(service_name: Option<String>, extra: Vec<(String, String)>) -> Self {
        let line =
            |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let (name, id) = (line("/proc/sys/kernel/hostname"), line("/etc/machine-id"));
        Self { name, id, extra, service_name, command_args: false }
    }

    /// Whether `process.command_args` is part of a process's description, as [`shown_arguments`] has it.
    #[must_use]
    pub fn with_command_args(self, command_args: bool) -> Self {
        Self { command_args, ..self }
    }
}

/// Describes a process. Its own OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count, as they would for an SDK inside: the two
/// are meant to be published. Nothing else of its environment leaves this function, and nothing of its arguments unless asked for.
pub fn process_info(process: &Process, host: &HostFacts) -> ProcessInfo {
    // Its program can be a link to one of another name.
    let is_server = is_redis_server(process);
    let environment = process.environment();
    let variable = |name: &str| environment.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned());
    let mut named: Vec<(String, String)> =
        variable("OTEL_RESOURCE_ATTRIBUTES").map(|text| resource_attributes(&text)).unwrap_or_default();
    // What the process says of itself at run time wins over how it was started.
    let published = published_attributes(process);
    let published_service = published
        .iter()
        .find(|(name, value)| name == "service.name" && !value.starts_with("unknown_service"))
        .map(|(_, value)| value.clone());
    named.extend(published.into_iter().filter(|(name, _)| name != "service.name" && !name.starts_with("process.")));
    named.extend(host.extra.iter().cloned());
    let mut take = |name: &str| {
        let found = named.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        named.retain(|(key, _)| key != name);
        found
    };
    let from_attributes = take("service.name");
    let service = host
        .service_name
        .clone()
        .or(published_service)
        .or_else(|| variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()))
        .or(from_attributes)
        .unwrap_or_else(|| if is_server { process.comm.clone() } else { process.name() });
    let instance =
        take("service.instance.id").unwrap_or_else(|| format!("{}-{}", process.id.pid, process.id.start_time));

    let text = |name: &str, value: String| (name.to_owned(), ResourceValue::Str(value));
    let mut attributes = vec![
        text("service.instance.id", instance),
        ("process.pid".to_owned(), ResourceValue::Int(i64::from(process.id.pid))),
        text("process.executable.name", process.name()),
        text("process.executable.path", process.exe.to_string_lossy().into_owned()),
        text("host.arch", "amd64".to_owned()),
        text("os.type", "linux".to_owned()),
        text("telemetry.sdk.name", "tracer".to_owned()),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let opened = format!("/proc/{}/exe", process.id.pid);
    if let Some(language) = language(&process.exe, Path::new(&opened)).filter(|_| !is_server) {
        if language == "rust" {
            attributes.push(text("process.runtime.name", language.to_owned()));
        }
        attributes.push(text("telemetry.sdk.language", language.to_owned()));
    }
    if host.command_args {
        let shown = shown_arguments(&process.name(), &process.arguments);
        attributes.push(("process.command_args".to_owned(), ResourceValue::List(shown)));
    }
    attributes.extend(host.name.clone().map(|name| text("host.name", name)));
    attributes.extend(host.id.clone().map(|id| text("host.id", id)));
    if let Some(group) = process.control_group() {
        attributes.extend(container_id(&group).map(|id| text("container.id", id)));
        attributes.extend(pod_attributes(&group, host_root()).into_iter().map(|(name, value)| text(&name, value)));
    }
    for (name, value) in named {
        attributes.retain(|(key, _)| *key != name);
        attributes.push((name, ResourceValue::Str(value)));
    }
    ProcessInfo { id: process.id, service, attributes }
}

/// Describes a process that ran this executable and ended before it could be looked at.
pub fn ended_process_info(pid: u32, started_ns: u64, executable: &Path, host: &HostFacts) -> ProcessInfo {
    // Clock ticks are 10 ms on x86-64; the time of the exec is close enough to tell processes apart.
    let id = ProcessId { pid, start_time: started_ns / 10_000_000 };
    let name = executable.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let text = |name: &str, value: String| (name.to_owned(), ResourceValue::Str(value));
    let mut attributes = vec![
        text("service.instance.id", format!("{pid}-{}", id.start_time)),
        ("process.pid".to_owned(), ResourceValue::Int(i64::from(pid))),
        text("process.executable.name", name.clone()),
        text("process.executable.path", executable.to_string_lossy().into_owned()),
    ];
    attributes.extend(host.name.clone().map(|name| text("host.name", name)));
    attributes.extend(host.extra.iter().map(|(name, value)| text(name, value.clone())));
    ProcessInfo { id, service: host.service_name.clone().unwrap_or(name), attributes }
}

/// `key=value,key=value`, values percent-encoded (OpenTelemetry specification, resource SDK). Broken pairs are passed over.
fn resource_attributes(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), percent_decoded(value.trim())))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let mut decoded = [0];
        if *first == b'%' && tail.len() >= 2 && hex::decode_to_slice(&tail[..2], &mut decoded).is_ok() {
            bytes.push(decoded[0]);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{process_info, resource_attributes};
    use crate::target::{HostFacts, Process};

    #[test]
    fn attributes_are_decoded_and_broken_ones_passed_over() {
        assert_eq!(
            resource_attributes("a=1,b=x%20y,=z,c, d = 5%zz"),
            [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x y".to_owned()), ("d".to_owned(), "5%zz".to_owned())]
        );
    }

    #[test]
    fn the_command_line_wins_over_the_process() {
        let me = Process::read(std::process::id()).expect("myself");
        let host = HostFacts::read(Some("svc".to_owned()), vec![("host.name".to_owned(), "h".to_owned())]);
        let info = process_info(&me, &host);
        assert_eq!(info.service, "svc");
        let named: Vec<_> = info.attributes.iter().filter(|(name, _)| name == "host.name").collect();
        assert_eq!(named.len(), 1);
    }

    #[test]
    fn arguments_are_part_of_it_only_when_asked_for() {
        let me = Process::read(std::process::id()).expect("myself");
        let arguments = |host: &HostFacts| {
            process_info(&me, host).attributes.into_iter().find(|(name, _)| name == "process.command_args")
        };
        let host = HostFacts::read(None, Vec::new());
        assert_eq!(arguments(&host), None);
        assert!(arguments(&host.with_command_args(true)).is_some());
    }
}

//! The configuration and the environment as they may be shown: which settings are there, and the values that are figures or words of a
//! known list.

use std::ffi::OsString;
use std::path::Path;

use serde_yaml_ng::Value;

use crate::cli::config::{Config, ConfigError};

/// Settings whose values are numbers, or one of a few words; [`Config`] has checked that they are.
const PLAIN: [&str; 15] = [
    "pid",
    "sampler",
    "socket-probe",
    "redis-server",
    "query-text",
    "slow-query",
    "command-args",
    "duration",
    "ring-size",
    "max-queue-size",
    "memory-budget",
    "max-batch-size",
    "schedule-delay",
    "export-timeout",
    "spool-size",
];
const HIDDEN: &str = "?";

/// The configuration file.
pub fn config(path: &Path) -> String {
    let file = path.display();
    match Config::from_file(path) {
        Ok(_) => {}
        // The error itself quotes the file.
        Err(ConfigError::Parse { source, .. }) => {
            let place = source
                .location()
                .map_or_else(String::new, |place| format!(", line {} column {}", place.line(), place.column()));
            return format!("{file}: not valid{place}\n");
        }
        Err(ConfigError::Read { source, .. }) => return format!("{file}: cannot be read: {source}\n"),
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let settings = match serde_yaml_ng::from_str(&text) {
        Ok(Value::Mapping(settings)) => settings,
        _ => return format!("{file}: empty\n"),
    };
    let lines = settings.iter().map(|(key, value)| {
        let key = key.as_str().unwrap_or(HIDDEN);
        format!("{key}: {}\n", shown(key, value))
    });
    format!("{file}:\n{}", lines.collect::<String>())
}

fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Sequence(list) => {
            let list: Vec<String> = list.iter().map(|value| shown(key, value)).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Bool(_) | Value::Number(_) if PLAIN.contains(&key) => scalar(value),
        Value::String(text) if PLAIN.contains(&key) => text.clone(),
        // What stands behind the colon is a path, or an URL with who knows what in it.
        Value::String(text) if key == "export" => match text.split_once(':') {
            Some((kind, _)) => format!("{kind}:{HIDDEN}"),
            None => text.clone(),
        },
        Value::Mapping(pairs) => format!("{} pairs", pairs.len()),
        _ => HIDDEN.to_owned(),
    }
}

fn scalar(value: &Value) -> String {
    serde_yaml_ng::to_string(value).map_or_else(|_| HIDDEN.to_owned(), |text| text.trim().to_owned())
}

/// Which variables that the agent looks at are set.
pub fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let mut names: Vec<String> = variables
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("OTEL_") || name.starts_with("TRACER_"))
        .collect();
    names.sort();
    names.iter().map(|name| format!("{name}={HIDDEN}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{config, environment};

    #[test]
    fn names_urls_and_attributes_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tracer.yaml");
        let text = "name: [secret1]\nexport: ['otlp:http://u:secret2@host', terminal]\nslow-query: 20\nsampler: always_on\n\
                    resource-attributes: {secret3: secret4}\nservice-name: secret5\nspool: /secret6\n";
        std::fs::write(&path, text).expect("written");
        let shown = config(&path);
        assert!(!shown.contains("secret"), "{shown}");
        for line in ["export: [otlp:?, terminal]", "slow-query: 20", "sampler: always_on", "name: [?]", "spool: ?"] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
        }
    }

    #[test]
    fn of_a_file_that_is_not_valid_only_the_place_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tracer.yaml");
        std::fs::write(&path, "name: a\nsampler: secret\n").expect("written");
        let shown = config(&path);
        assert!(shown.contains("not valid, line 2") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn variables_are_named_without_values() {
        let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "secret"), ("PASSWORD", "secret"), ("TRACER_LOG", "debug")];
        let shown = environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(shown, "OTEL_EXPORTER_OTLP_HEADERS=?\nTRACER_LOG=?\n");
    }
}

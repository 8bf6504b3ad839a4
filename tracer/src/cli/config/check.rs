//! `tracer config`: whether a configuration file can be used, and the schema of such files for editors.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Config, DEFAULT_FILE, Env, ExportTarget, process_env};
use crate::export::otlp::{Settings, Signal};

/// Arguments of `tracer config`.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Say whether a configuration file can be used, and what it asks for.
    Check {
        /// The file.
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Print the JSON schema of configuration files, for editors.
    Schema,
}

/// Checks or prints.
pub fn main(args: &Args) -> Result<()> {
    match args {
        Args::Check { file } => println!("{}: {}", file.display(), check(file, &process_env)?),
        Args::Schema => println!("{}", serde_json::to_string_pretty(&schemars::schema_for!(Config))?),
    }
    Ok(())
}

/// What a session with this file would do; nothing is opened or made.
fn check(file: &Path, env: Env<'_>) -> Result<String> {
    let config = Config::from_file(file)?;
    config.selector(true).with_context(|| format!("in {}", file.display()))?;
    let (environment, warnings) = Config::from_environment(env);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let config = environment.over(config);
    let mut destinations = Vec::new();
    for target in config.export_targets(env) {
        destinations.push(match target {
            ExportTarget::Terminal => "the terminal".to_owned(),
            ExportTarget::File(path) => path.display().to_string(),
            ExportTarget::None => "nowhere".to_owned(),
            ExportTarget::Otlp(url) => {
                // An URL can have a password in it, so only that it is a good one is said.
                Settings::resolve(Signal::Traces, url.as_deref(), env).context("the collector")?;
                "a collector".to_owned()
            }
        });
    }
    let wanted = [
        ("name", config.name.len()),
        ("pid", config.pid.len()),
        ("exe", config.exe.len()),
        ("container", config.container.len()),
    ];
    let wanted: Vec<String> =
        wanted.iter().filter(|(_, count)| *count > 0).map(|(key, count)| format!("{count} by {key}")).collect();
    let wanted = if wanted.is_empty() { "nothing, so it needs flags beside it".to_owned() } else { wanted.join(", ") };
    Ok(format!("valid; traces {wanted}; spans go to {}", destinations.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{Config, check};

    fn said(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tracer.yaml");
        std::fs::write(&path, text).expect("written");
        check(&path, &|_| None).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_a_file_asks_for_is_said_and_what_is_wrong_with_it() {
        let good = said("name: [a, b*]\nexport: [otlp:http://u:secret@h:4317, terminal]\n").expect("valid");
        assert_eq!(good, "valid; traces 2 by name; spans go to a collector, the terminal");
        assert!(said("# nothing\n").expect("valid").contains("traces nothing"));
        for (text, words) in [
            ("nmae: a\n", "nmae"),
            ("name: [a]\nsampler: sometimes\n", "line 2"),
            ("name: ['a[']\n", "pattern"),
            ("name: a\nexport: otlp:nowhere\n", "collector"),
        ] {
            let error = said(text).expect_err(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_schema_has_every_key_and_no_other() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("JSON");
        assert_eq!(schema["additionalProperties"], false);
        let keys = schema["properties"].as_object().expect("an object");
        for key in keys.keys() {
            // A key that is none would be called unknown; a value that is none is another error.
            let error =
                serde_yaml_ng::from_str::<Config>(&format!("{key}: [[]]\n")).expect_err("no key has such a value");
            assert!(!error.to_string().contains("unknown field"), "{error}");
            assert!(keys[key]["description"].is_string(), "{key} says what it is");
        }
        let unknown = serde_yaml_ng::from_str::<Config>("none: 1\n").expect_err("there is no such key").to_string();
        assert!(keys.keys().all(|key| unknown.contains(&format!("`{key}`"))), "{unknown}");
        assert_eq!(unknown.matches('`').count() / 2, keys.len() + 1, "{unknown}");
    }
}

//! The generated types of the `.proto` files are committed, and are what the generator makes of them today.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Regenerates the types beside the committed ones and compares; with `fix` it replaces them.
pub fn check(fix: bool) -> Result<()> {
    let dir = workspace::root().join("proto");
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    // The order of a folder is the file system's.
    files.sort();
    let scratch = tempfile::tempdir()?;
    // protox reads .proto files in this process, so no protoc has to be installed.
    let descriptors = protox::compile(&files, [&dir])?;
    config().out_dir(scratch.path()).compile_fds(descriptors)?;
    let mut stale = Vec::new();
    for entry in fs::read_dir(scratch.path())? {
        let generated = entry?.path();
        let committed = dir.join("src").join(generated.file_name().context("a generated file has a name")?);
        if !same(&generated, &committed)? {
            if fix {
                fs::copy(&generated, &committed)?;
            } else {
                stale.push(committed.display().to_string());
            }
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("not what the .proto files say; `cargo xtask lint --fix` writes them anew: {}", stale.join(", "))
}

/// Services are for those who ask for gRPC; messages with a field for the trace header fill it where the shim is.
fn config() -> prost_build::Config {
    const GRPC: &str = "#[cfg(feature = \"grpc\")]";
    let services = tonic_prost_build::configure().client_mod_attribute(".", GRPC).server_mod_attribute(".", GRPC);
    let mut config = prost_build::Config::new();
    config.service_generator(services.service_generator());
    for message in ["RiskRequest", "CounterRequest", "ExecutionReport"] {
        config.message_attribute(
            format!("order.{message}"),
            "#[cfg_attr(feature = \"shim\", derive(::tracer_shim::Span))]",
        );
    }
    config
}

/// Equal but for the first comment, which names the generator.
fn same(generated: &Path, committed: &Path) -> Result<bool> {
    let code = |path: &Path| -> Result<String> {
        let text = fs::read_to_string(path)?;
        Ok(text.lines().skip_while(|line| line.starts_with("//") || line.is_empty()).collect::<Vec<_>>().join("\n"))
    };
    Ok(committed.exists() && code(generated)? == code(committed)?)
}

//! Which module of the agent may use which: the arrows of ARCHITECTURE.md point one way.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::source::Source;
use super::tidy::listed;
use crate::workspace;

const ROOT: &str = "tracer/src/";

/// A module, and those that it may use beside itself. Each may only use what stands above it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("files", &[]),
    ("output_file", &[]),
    ("model", &[]),
    ("privilege", &[]),
    ("protocol", &["model"]),
    ("capture", &["model", "output_file"]),
    ("target", &["files", "model"]),
    ("inspect", &["files", "model"]),
    ("trace", &["capture", "model", "protocol"]),
    ("probe", &[]),
    ("export", &["model", "output_file", "trace"]),
    ("web", &["export", "model"]),
    ("agent", &["capture", "export", "files", "inspect", "model", "privilege", "probe", "target", "trace"]),
    (
        "cli",
        &[
            "agent",
            "capture",
            "export",
            "inspect",
            "model",
            "output_file",
            "privilege",
            "probe",
            "protocol",
            "target",
            "trace",
            "web",
        ],
    ),
    ("lib", &[]),
    ("main", &[]),
];

/// Reads every source file of the agent.
pub fn check() -> Result<()> {
    let mut found = Vec::new();
    for path in listed()?.iter().filter(|path| path.starts_with(ROOT)) {
        // Deleted and not yet committed.
        let Ok(text) = fs::read_to_string(workspace::root().join(path)) else { continue };
        found.extend(findings(path, &text).with_context(|| format!("cannot read {path}"))?);
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} arrows that may not be\n  {}", found.len(), found.join("\n  "))
}

fn findings(path: &str, text: &str) -> Result<Vec<String>> {
    let Some(inside) = path.strip_prefix(ROOT) else { return Ok(Vec::new()) };
    let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    if inside.ends_with("/tests.rs") || inside.contains("/tests/") {
        return Ok(Vec::new());
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return Ok(vec![format!("{path}: the module `{module}` has no line in {}", file!())]);
    };
    let used = Source::parse(text)?.modules_used();
    let modules = used.into_iter().filter(|(_, name)| MAY_USE.iter().any(|(module, _)| module == name));
    let bad = modules.filter(|(_, name)| name != module && !allowed.contains(&name.as_str()));
    Ok(bad.map(|(line, name)| format!("{path}:{line}: `{module}` may not use `{name}`")).collect())
}

#[cfg(test)]
mod tests {
    use super::{MAY_USE, findings};

    #[test]
    fn an_arrow_back_is_found_wherever_it_stands() {
        let planted =
            "use crate::model::Span;\n#[cfg(test)]\nuse crate::agent::Agent;\nfn f() {\n    crate::trace::g();\n}\n";
        let found = findings("tracer/src/protocol/redis/text.rs", planted).expect("Rust");
        assert_eq!(found, ["tracer/src/protocol/redis/text.rs:5: `protocol` may not use `trace`"]);
        assert!(findings("tracer/src/agent/adopt.rs", planted).expect("Rust").is_empty());
        assert_eq!(findings("tracer/src/elsewhere/mod.rs", "").expect("Rust").len(), 1);
    }

    #[test]
    fn no_module_may_use_one_that_stands_below_it() {
        for (index, (module, allowed)) in MAY_USE.iter().enumerate() {
            for used in *allowed {
                let place = MAY_USE.iter().position(|(name, _)| name == used).expect("a module of the table");
                assert!(place < index, "{module} uses {used}");
            }
        }
    }
}

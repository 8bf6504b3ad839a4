//! Rules that no compiler knows: the layers of ARCHITECTURE.md, the size of files, no leftovers.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use super::source::Source;
use crate::{run, workspace};

/// A file that is longer holds more than one idea.
const MAX_LINES: usize = 600;

/// Words that code below `dir`, except in the folders `but`, must not use.
struct Rule {
    dir: &'static str,
    but: &'static [&'static str],
    words: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        dir: "tracer/src/trace/",
        but: &[],
        words: &["std::fs", "SystemTime", "Instant::now", "procfs", "tokio", "/proc/"],
        reason: "events to spans is pure: it reads no clock and does no I/O",
    },
    Rule {
        dir: "tracer/src/protocol/",
        but: &[],
        words: &["std::fs", "SystemTime", "Instant::now", "procfs", "tokio"],
        reason: "parsers are pure",
    },
    Rule {
        dir: "tracer/src/",
        but: &["tracer/src/probe/"],
        words: &["aya::"],
        reason: "probe/ is the only owner of kernel objects",
    },
    Rule {
        dir: "tracer/src/",
        but: &["tracer/src/cli/", "tracer/src/main.rs"],
        words: &["clap::", "println!", "eprintln!"],
        reason: "only the outermost layer knows the command line",
    },
    Rule {
        dir: "tracer/src/",
        but: &["tracer/src/output_file.rs"],
        words: &["File::create(", "fs::write("],
        reason: "output_file makes the files: for their owner alone, through no link",
    },
    Rule { dir: "", but: &["xtask/src/lint/"], words: &["TODO", "FIXME", "XXX"], reason: "a leftover is not done" },
];

/// Every source file that git knows.
pub fn listed() -> Result<Vec<String>> {
    let listed = run::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
            .current_dir(workspace::root()),
    )?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Reads every source file.
pub fn check() -> Result<()> {
    let mut found = Vec::new();
    for path in listed()? {
        // Deleted and not yet committed.
        let Ok(text) = fs::read_to_string(workspace::root().join(&path)) else {
            continue;
        };
        found.extend(findings(&path, &text).with_context(|| format!("cannot read {path}"))?);
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} findings\n  {}", found.len(), found.join("\n  "))
}

fn findings(path: &str, text: &str) -> Result<Vec<String>> {
    let source = Source::parse(text)?;
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines; at most {MAX_LINES}, so that a file is one idea"));
    }
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    for rule in RULES
        .iter()
        .filter(|rule| path.starts_with(rule.dir) && !rule.but.iter().any(|but| path.starts_with(but)))
        .filter(|rule| rule.dir.is_empty() || !is_test)
    {
        // Tests may use anything.
        let lines = text.lines().enumerate();
        for (number, line) in lines.filter(|(index, _)| rule.dir.is_empty() || !source.is_test(index + 1)) {
            let code = if rule.dir.is_empty() { line } else { line.split("//").next().unwrap_or_default() };
            if let Some(word) = rule.words.iter().find(|word| code.contains(**word)) {
                found.push(format!("{path}:{}: `{word}`: {}", number + 1, rule.reason));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    fn findings(path: &str, text: &str) -> Vec<String> {
        super::findings(path, text).expect("Rust")
    }

    #[test]
    fn the_pure_layer_reads_no_clock() {
        let text =
            "//! std::fs in a comment\nuse std::time::SystemTime;\n#[cfg(test)]\nuse std::fs;\nuse std::fs::File;\n";
        let found = findings("tracer/src/trace/flow.rs", text);
        assert_eq!(found.len(), 2);
        assert!(
            found[1].starts_with("tracer/src/trace/flow.rs:5: `std::fs`"),
            "what stands behind a test is read as well: {found:?}"
        );
        assert!(found[0].starts_with("tracer/src/trace/flow.rs:2: `SystemTime`"), "{found:?}");
        assert!(findings("tracer/src/target/name.rs", text).is_empty());
    }

    #[test]
    fn only_tests_make_files_on_their_own() {
        let text = "fn f() { std::fs::write(path, text); }\n";
        assert_eq!(findings("tracer/src/cli/blame.rs", text).len(), 1);
        assert!(findings("tracer/src/output_file.rs", text).is_empty());
        assert!(findings("tracer/src/export/file/tests.rs", text).is_empty());
    }

    #[test]
    fn one_owner_of_kernel_objects() {
        assert!(findings("tracer/src/probe/load.rs", "use aya::Ebpf;").is_empty());
        assert_eq!(findings("tracer/src/capture/mod.rs", "use aya::Ebpf;").len(), 1);
    }

    #[test]
    fn long_files() {
        assert_eq!(findings("tests/src/lib.rs", &"\n".repeat(601)).len(), 1);
        assert!(findings("tests/src/lib.rs", &"\n".repeat(600)).is_empty());
    }
}

//! Which processes the user asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::Process;
use super::container::Containers;

/// A pattern that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("{what} {pattern:?} is not a valid pattern; * matches any text, ? one character, [ab] one of these")]
pub struct SelectorError {
    what: &'static str,
    pattern: String,
    #[source]
    source: globset::Error,
}

/// Names (exact or glob), executables (path globs), process numbers and containers; a process needs to fit one of them.
#[derive(Debug, Default)]
pub struct Selector {
    names: GlobSet,
    executables: GlobSet,
    pids: BTreeSet<u32>,
    containers: Containers,
    /// Names and paths without wildcards.
    exact: Vec<String>,
}

impl Selector {
    /// Compiles the patterns.
    pub fn new(
        names: &[String],
        executables: &[String],
        pids: &[u32],
        containers: &[String],
    ) -> Result<Self, SelectorError> {
        Ok(Self {
            names: compile("name", names)?,
            executables: compile("executable", executables)?,
            pids: pids.iter().copied().collect(),
            containers: Containers::new(containers),
            exact: names
                .iter()
                .chain(executables)
                .filter(|name| !name.contains(['*', '?', '[', '{']))
                .cloned()
                .collect(),
        })
    }

    /// Files that a process asked for by name will probably run, so that it can be traced from its first instruction on.
    pub fn executables_to_come(&self) -> Vec<PathBuf> {
        let folders: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        self.exact
            .iter()
            .filter_map(|name| {
                if name.starts_with('/') {
                    return Some(PathBuf::from(name)).filter(|path| path.is_file());
                }
                folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
            })
            .collect()
    }

    /// The processes asked for by number.
    pub fn pids(&self) -> &BTreeSet<u32> {
        &self.pids
    }

    /// Whether only numbers were given: then no other process can come later.
    pub fn only_pids(&self) -> bool {
        self.names.is_empty() && self.executables.is_empty() && self.containers.is_empty()
    }

    /// Whether the process was asked for. The agent itself never is, except by number.
    pub fn matches(&self, process: &Process) -> bool {
        self.names_it(process) || (process.id.pid != std::process::id() && self.containers.have(process))
    }

    /// Whether it itself was asked for, not only all of its container.
    pub fn names_it(&self, process: &Process) -> bool {
        if self.pids.contains(&process.id.pid) {
            return true;
        }
        if process.id.pid == std::process::id() {
            return false;
        }
        process.names().iter().any(|name| self.names.is_match(name))
            || self.executables.is_match(process.program())
            || self.executables.is_match(&process.exe)
    }

    /// Whether it was asked for by what it runs: then everybody else who runs the same file is meant too. A script says nothing
    /// about its interpreter, nor a program about the dynamic loader that was asked to run it.
    pub fn matches_executable(&self, process: &Process) -> bool {
        process.is_executable_of_its_own()
            && (self.names.is_match(process.name()) || self.executables.is_match(&process.exe))
    }
}

fn compile(what: &'static str, patterns: &[String]) -> Result<GlobSet, SelectorError> {
    let failed = |pattern: &str, source| SelectorError { what, pattern: pattern.to_owned(), source };
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).map_err(|error| failed(pattern, error))?);
    }
    builder.build().map_err(|error| failed(&patterns.join(", "), error))
}

#[cfg(test)]
mod tests {
    use super::Selector;
    use crate::target::Process;

    fn selects(names: &[&str], executables: &[&str]) -> bool {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let me = Process::read(std::process::id()).expect("myself");
        Selector::new(&own(names), &own(executables), &[], &[]).expect("patterns").matches_executable(&me)
    }

    #[test]
    fn names_and_paths_match_as_globs() {
        assert!(selects(&["tracer-*"], &[]));
        assert!(selects(&[], &["/**/deps/tracer-*"]));
        assert!(!selects(&["tracer"], &[]), "a name without a wildcard is exact");
        assert!(!selects(&[], &[]));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Selector::new(&["a[".to_owned()], &[], &[], &[]).expect_err("unclosed");
        assert!(error.to_string().contains("\"a[\""), "{error}");
    }
}

//! `tracer doctor`: kernel, privileges and tools, each lack with its remedy.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use super::sandbox::require_trace;
use super::slow::slow;
use super::{NoPrivilege, namespace};
use crate::privilege::{self, EXTRA, RulesetStatus, TRACE};
use crate::probe::features::{Feature, Features, Support};
use crate::probe::{KernelTypes, Options, Programs, SocketProbe};

/// Arguments of `tracer doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {}

enum Outcome {
    Good(String),
    /// Works without it, with a drawback.
    Lacking(String),
    /// Does not work without it.
    Bad(String),
}

/// One thing that tracing needs.
pub struct Check {
    what: &'static str,
    outcome: Outcome,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, text) = match &self.outcome {
            Outcome::Good(text) => ("ok     ", text),
            Outcome::Lacking(text) => ("lacking", text),
            Outcome::Bad(text) => ("BAD    ", text),
        };
        write!(f, "{sign}  {:<16} {text}", self.what)
    }
}

/// Prints the checks; fails if one of them is bad.
pub fn main(_args: &Args) -> Result<()> {
    let checks = checks();
    for check in &checks {
        println!("{check}");
    }
    if checks.iter().any(|check| matches!(check.outcome, Outcome::Bad(_))) {
        return Err(NoPrivilege(
            "this machine cannot be traced as it is; the lines above say what is needed".to_owned(),
        )
        .into());
    }
    Ok(())
}

/// All of them.
pub fn checks() -> Vec<Check> {
    let checks = || {
        vec![
            Check { what: "architecture", outcome: architecture() },
            Check { what: "kernel", outcome: kernel() },
            Check { what: "privilege", outcome: privilege() },
            Check { what: "sandbox", outcome: sandbox() },
            Check { what: "pid namespace", outcome: pid_namespace() },
            Check { what: "BTF", outcome: btf() },
            Check { what: "uprobes", outcome: uprobes() },
            Check { what: "eBPF programs", outcome: programs() },
        ]
    };
    slow("asking the kernel", checks)
}

fn architecture() -> Outcome {
    match std::env::consts::ARCH {
        "x86_64" => Outcome::Good("x86-64".to_owned()),
        other => Outcome::Bad(format!("{other}: only x86-64 is supported")),
    }
}

/// Asks for features, not for the release: kernels of distributions have new ones under old numbers.
fn kernel() -> Outcome {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let features = Features::ask();
    let lacking = |feature: &&Feature| feature.support == Support::No && feature.without.is_none();
    if let Some(feature) = features.iter().find(lacking) {
        return Outcome::Bad(format!("{release}: it has no {}", feature));
    }
    if let Some(limits) = features.limits() {
        return Outcome::Lacking(format!("{release}: {limits}"));
    }
    let unknown = features.iter().find_map(|feature| match &feature.support {
        Support::Unknown(why) => Some(format!("cannot tell whether it has {} ({why})", feature)),
        Support::Yes | Support::No => None,
    });
    unknown.map_or(Outcome::Good(release.clone()), |unknown| Outcome::Lacking(format!("{release}: {unknown}")))
}

fn privilege() -> Outcome {
    if let Err(error) = require_trace() {
        return Outcome::Bad(error.to_string());
    }
    let lacking =
        privilege::missing(&EXTRA).into_iter().map(|demand| format!("without {} to {}", demand.name, demand.purpose));
    let lacking: Vec<String> = lacking.collect();
    let names: Vec<&str> = TRACE.iter().map(|demand| demand.name).collect();
    if lacking.is_empty() {
        Outcome::Good(names.join(" "))
    } else {
        Outcome::Lacking(format!("{}; {}", names.join(" "), lacking.join(", and ")))
    }
}

/// What a session gives up, as far as this kernel can.
fn sandbox() -> Outcome {
    let filters = privilege::has_filters();
    match (privilege::landlock_status(), filters) {
        (Some(RulesetStatus::FullyEnforced), true) => {
            Outcome::Good("no_new_privs and a seccomp filter; exporters have no capabilities, and Landlock".to_owned())
        }
        (landlock, _) => {
            let seccomp = if filters { "a seccomp filter" } else { "no seccomp filter (CONFIG_SECCOMP_FILTER)" };
            let landlock = match landlock {
                Some(RulesetStatus::FullyEnforced) => "Landlock",
                Some(RulesetStatus::PartiallyEnforced) => "Landlock older than Linux 6.12",
                _ => "no Landlock (CONFIG_SECURITY_LANDLOCK, and `landlock` in the list of `lsm=`)",
            };
            Outcome::Lacking(format!("no_new_privs; {seccomp}; exporters have no capabilities; {landlock}"))
        }
    }
}

fn pid_namespace() -> Outcome {
    namespace::foreign().map_or_else(|| Outcome::Good("the host's".to_owned()), Outcome::Bad)
}

fn btf() -> Outcome {
    match KernelTypes::read().and_then(|types| types.offsets()) {
        Ok(_) => Outcome::Good("/sys/kernel/btf/vmlinux has every field that is needed".to_owned()),
        Err(error) => Outcome::Bad(error.to_string()),
    }
}

fn uprobes() -> Outcome {
    if Path::new("/sys/bus/event_source/devices/uprobe/type").exists() {
        Outcome::Good("perf events".to_owned())
    } else {
        Outcome::Bad("none: a kernel with CONFIG_UPROBE_EVENTS=y is needed".to_owned())
    }
}

fn programs() -> Outcome {
    match Programs::load(&Options { ring_bytes: 1 << 16, map_sizes: <_>::default(), sockets: SocketProbe::Auto }) {
        Ok(programs) => {
            Outcome::Good(format!("loaded and verified; socket calls by tracepoints of {}", programs.watching()))
        }
        Err(error) => Outcome::Bad(crate::agent::chain(&error).lines().next().unwrap_or_default().to_owned()),
    }
}

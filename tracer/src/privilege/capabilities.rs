//! Which capabilities attaching needs, and what becomes of all others.

use std::fmt;

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A capability that is needed.
#[derive(Debug)]
pub struct Demand {
    capability: CapabilitySet,
    /// Its name, as `setcap` and systemd know it.
    pub name: &'static str,
    /// What for.
    pub purpose: &'static str,
    /// A wider one with which the kernel is content as well.
    or: CapabilitySet,
}

/// What attaching to processes needs.
pub static TRACE: [Demand; 4] = [
    Demand {
        capability: CapabilitySet::BPF,
        name: "CAP_BPF",
        purpose: "load eBPF programs",
        or: CapabilitySet::SYS_ADMIN,
    },
    Demand {
        capability: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "attach them to functions and system calls",
        or: CapabilitySet::SYS_ADMIN,
    },
    Demand {
        capability: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        purpose: "look at processes of other users",
        or: CapabilitySet::empty(),
    },
    Demand {
        capability: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "read their programs wherever they are",
        or: CapabilitySet::DAC_OVERRIDE,
    },
];

/// Without these tracing works with a drawback.
pub static EXTRA: [Demand; 2] = [
    Demand {
        capability: CapabilitySet::CHECKPOINT_RESTORE,
        name: "CAP_CHECKPOINT_RESTORE",
        purpose: "open what a process has mapped and what has no path (/proc/PID/map_files); `tracer sample` works by it alone",
        or: CapabilitySet::SYS_ADMIN,
    },
    Demand {
        capability: CapabilitySet::LEASE,
        name: "CAP_LEASE",
        purpose: "make who overwrites a probed file of another user wait until the probes are gone",
        or: CapabilitySet::empty(),
    },
];

/// What some kernels demand for uprobes as well.
pub static ADMIN: Demand = Demand {
    capability: CapabilitySet::SYS_ADMIN,
    name: "CAP_SYS_ADMIN",
    purpose: "attach to functions, as this kernel has no uprobe_multi",
    or: CapabilitySet::empty(),
};

/// What running a command as another user needs.
pub static CHANGE_USER: [Demand; 2] = [
    Demand {
        capability: CapabilitySet::SETUID,
        name: "CAP_SETUID",
        purpose: "run a command as another user",
        or: CapabilitySet::empty(),
    },
    Demand {
        capability: CapabilitySet::SETGID,
        name: "CAP_SETGID",
        purpose: "with that user's groups",
        or: CapabilitySet::empty(),
    },
];

impl Demand {
    /// The narrowest of `held` that fulfils it.
    fn choose(&self, held: CapabilitySet) -> Option<CapabilitySet> {
        [self.capability, self.or & held].into_iter().find(|&choice| !choice.is_empty() && held.contains(choice))
    }
}

/// Capabilities are missing; the message names them and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{names} {} missing (to {purposes}); {remedy}", if *.many { "are" } else { "is" })]
pub struct MissingCapabilities {
    names: String,
    purposes: String,
    many: bool,
    remedy: String,
}

/// Which of `demands` this process does not fulfil. What it is permitted counts: it is free to use that.
pub fn missing<'a>(demands: impl IntoIterator<Item = &'a Demand>) -> Vec<&'a Demand> {
    // The call cannot fail for the calling thread; if it did, nothing would be held.
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    demands.into_iter().filter(|demand| demand.choose(held).is_none()).collect()
}

/// Makes what is permitted effective, and fails unless that fulfils all `demands`.
///
/// # Errors
/// Names the capabilities that are missing.
pub fn require<'a>(demands: impl IntoIterator<Item = &'a Demand>) -> Result<(), MissingCapabilities> {
    let missing = missing(demands);
    if missing.is_empty() {
        if let Ok(sets) = capabilities(None) {
            // What is permitted may always be made effective.
            let _ = set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets });
        }
        return Ok(());
    }
    let list = |text: fn(&Demand) -> &'static str| missing.iter().map(|demand| text(demand)).collect::<Vec<_>>();
    Err(MissingCapabilities {
        names: list(|demand| demand.name).join(", "),
        purposes: list(|demand| demand.purpose).join(", "),
        many: missing.len() > 1,
        remedy: remedy(&missing),
    })
}

/// How to get them.
pub fn remedy(missing: &[&Demand]) -> String {
    if rustix::process::geteuid().is_root() {
        let flags: Vec<String> =
            missing.iter().map(|demand| format!("--cap-add {}", demand.name.trim_start_matches("CAP_"))).collect();
        return format!(
            "this root user was started without: give the container `{}`, or the systemd unit a CapabilityBoundingSet with them",
            flags.join(" ")
        );
    }
    let mut names: Vec<&str> = TRACE.iter().map(|demand| demand.name).collect();
    names.extend(
        missing.iter().map(|demand| demand.name).filter(|name| TRACE.iter().all(|demand| demand.name != *name)),
    );
    let program = std::env::current_exe().map_or_else(|_| "tracer".to_owned(), |path| path.display().to_string());
    format!(
        "try `sudo tracer ...`, once `sudo setcap {}=ep {program}`, or `AmbientCapabilities={}` in a systemd unit",
        names.join(",").to_lowercase(),
        names.join(" "),
    )
}

/// Keeps what `demands` ask for, as far as it is there, and gives up all other capabilities of this thread and of the
/// threads that it starts from now on, for good. `keep_admin` tells whether the kernel demands CAP_SYS_ADMIN as well; it
/// is asked when the rest is not effective any more.
///
/// # Errors
/// When the kernel refuses, which it does for no process.
pub fn give_up<'a>(
    demands: impl IntoIterator<Item = &'a Demand>,
    keep_admin: impl FnOnce() -> bool,
) -> io::Result<Kept> {
    let held = capabilities(None)?;
    let chosen = demands.into_iter().filter_map(|demand| demand.choose(held.permitted));
    let mut kept = chosen.fold(CapabilitySet::empty(), |kept, one| kept | one);
    // No program that this process starts gets any either. Only CAP_SETPCAP may say so of the bounding set; without it
    // `no_new_privs` has the same effect.
    if held.permitted.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if !kept.contains(one) && capability_is_in_bounding_set(one).unwrap_or(false) {
                remove_capability_from_bounding_set(one)?;
            }
        }
    }
    set_no_new_privs(true)?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: held.permitted, inheritable })?;
    if held.permitted.contains(CapabilitySet::SYS_ADMIN) && !kept.contains(CapabilitySet::SYS_ADMIN) && keep_admin() {
        kept |= CapabilitySet::SYS_ADMIN;
    }
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    // Kernels before 4.3 have no ambient set. Nothing is left in it: it is part of the inheritable one.
    let _ = clear_ambient_capability_set();
    Ok(Kept(kept))
}

/// Before this process becomes the command of a user: it passes on none of the capabilities that were given to the agent by
/// its unit or file. A command of root's has what root has.
pub fn clean_for_command() -> io::Result<()> {
    let _ = clear_ambient_capability_set();
    let held = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..held })
}

/// The capabilities that were kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept(CapabilitySet);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::{EXTRA, TRACE};

    #[test]
    fn the_narrowest_capability_is_chosen() {
        let [bpf, _, ptrace, search] = &TRACE;
        assert_eq!(bpf.choose(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN), Some(CapabilitySet::BPF));
        assert_eq!(bpf.choose(CapabilitySet::SYS_ADMIN), Some(CapabilitySet::SYS_ADMIN));
        assert_eq!(bpf.choose(CapabilitySet::PERFMON), None);
        assert_eq!(ptrace.choose(CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE), None);
        assert_eq!(search.choose(CapabilitySet::DAC_OVERRIDE), Some(CapabilitySet::DAC_OVERRIDE));
        assert_eq!(EXTRA[0].choose(CapabilitySet::empty()), None);
    }
}

//! What the running kernel can do. Asked of the kernel itself: distributions put new features into kernels with old numbers.

use std::fmt;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

/// Whether the kernel has a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The kernel did not let itself be asked.
    Unknown(String),
}

/// A feature of the kernel.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The release of Linux that has it first.
    pub since: &'static str,
    /// What is missing without it; none if nothing works then.
    pub without: Option<&'static str>,
    /// Whether the running kernel has it.
    pub support: Support,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Linux {})", self.name, self.since)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Features {
    /// The way to the agent.
    pub ring_buffer: Feature,
    /// The long loop that copies the bytes of sockets.
    pub long_loop: Feature,
    /// What tells a program at which of its sites it runs.
    pub cookies: Feature,
}

impl Features {
    /// Asks the kernel.
    pub fn ask() -> Self {
        let helper = |helper| known(is_helper_supported(ProgramType::KProbe, helper));
        Self {
            ring_buffer: Feature {
                name: "the BPF ring buffer",
                since: "5.8",
                without: None,
                support: known(is_map_supported(MapType::RingBuf)),
            },
            long_loop: Feature {
                name: "bpf_loop",
                since: "5.17",
                without: Some("of a vectored socket call only the first 96 buffers are read"),
                support: helper(BpfHelper::BPF_FUNC_loop),
            },
            cookies: Feature {
                name: "attach cookies",
                since: "5.15",
                without: Some("prost calls in shared libraries are not seen"),
                support: helper(BpfHelper::BPF_FUNC_get_attach_cookie),
            },
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        [&self.ring_buffer, &self.long_loop, &self.cookies].into_iter()
    }

    /// Whether the programs must do without what old kernels lack. In doubt they are loaded as for a new one, and the kernel says
    /// what it thinks of them.
    pub fn old_kernel(&self) -> bool {
        self.long_loop.support == Support::No || self.cookies.support == Support::No
    }

    /// What is not seen on this kernel, in one line; none if nothing is missing.
    pub fn limits(&self) -> Option<String> {
        // Without one of the two, the programs do without the other as well.
        let old = self.old_kernel();
        let missing: Vec<String> =
            self.iter().filter(|feature| feature.support == Support::No).map(ToString::to_string).collect();
        let limits: Vec<&str> = self.iter().filter_map(|feature| feature.without).collect();
        old.then(|| format!("the kernel has no {}: {}", missing.join(" and no "), limits.join(", and ")))
    }
}

fn known<E: std::error::Error>(answer: Result<bool, E>) -> Support {
    match answer {
        Ok(true) => Support::Yes,
        Ok(false) => Support::No,
        Err(error) => Support::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, Features, Support};

    fn features(long_loop: Support, cookies: Support) -> Features {
        let feature = |name, since, without, support| Feature { name, since, without, support };
        Features {
            ring_buffer: feature("the ring", "5.8", None, Support::Yes),
            long_loop: feature("loops", "5.17", Some("short"), long_loop),
            cookies: feature("cookies", "5.15", Some("few"), cookies),
        }
    }

    #[test]
    fn a_kernel_that_does_not_say_is_taken_for_a_new_one() {
        let unknown = features(Support::Unknown("EPERM".to_owned()), Support::Yes);
        assert!(!unknown.old_kernel());
        assert_eq!(unknown.limits(), None);
        let old = features(Support::No, Support::No);
        assert!(old.old_kernel());
        assert_eq!(
            old.limits().as_deref(),
            Some("the kernel has no loops (Linux 5.17) and no cookies (Linux 5.15): short, and few")
        );
        // Linux 5.15 and 5.16.
        assert_eq!(
            features(Support::No, Support::Yes).limits().as_deref(),
            Some("the kernel has no loops (Linux 5.17): short, and few")
        );
    }
}

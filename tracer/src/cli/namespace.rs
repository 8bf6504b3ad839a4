//! Process numbers: the kernel's records have those of the first PID namespace, and /proc must show the same ones. Anywhere else
//! the agent would take one process for another.

use std::path::Path;

/// The first PID namespace; the kernel fixes its number (PROC_PID_INIT_INO).
const FIRST: &str = "pid:[4026531836]";

/// Why process numbers cannot be told here, with the remedy; none if they can.
pub fn foreign() -> Option<String> {
    reason(
        std::fs::read_link("/proc/self/ns/pid").ok().as_deref(),
        std::fs::read_link("/proc/self").ok().as_deref(),
        std::process::id(),
    )
}

fn reason(namespace: Option<&Path>, in_proc: Option<&Path>, pid: u32) -> Option<String> {
    let Some(in_proc) = in_proc else {
        return Some("/proc is not that of this process: mount one (`mount -t proc proc /proc`)".to_owned());
    };
    match namespace {
        Some(namespace) if namespace != Path::new(FIRST) => {
            Some("a nested one: run tracer on the host, or its container with --pid=host".to_owned())
        }
        // /proc names this process by its number in the namespace that /proc was mounted for.
        _ if in_proc != Path::new(&pid.to_string()) => Some(
            "/proc is that of another PID namespace: mount the host's (`nsenter --target 1 --mount --pid tracer ...`)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_namespace_with_its_own_proc_will_do() {
        let (first, nested) = (Some(Path::new(FIRST)), Some(Path::new("pid:[4026532201]")));
        assert_eq!(reason(first, Some(Path::new("17")), 17), None);
        assert!(reason(nested, Some(Path::new("17")), 17).is_some_and(|text| text.contains("--pid=host")));
        assert!(reason(first, Some(Path::new("4711")), 17).is_some_and(|text| text.contains("another PID namespace")));
        assert!(reason(None, None, 17).is_some_and(|text| text.contains("mount")));
    }
}

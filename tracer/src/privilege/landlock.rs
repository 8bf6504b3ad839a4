//! Threads that talk to the network or write spans have no capabilities and reach hardly any files.
//!
//! Only these threads: Landlock forbids a thread to look at any process outside of its own domain (`/proc/PID/exe`, `maps`,
//! `mem`), whatever capabilities it has, and that is what the other threads are for. Files that spans are written to were
//! opened before.

use std::path::PathBuf;
use std::sync::Once;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// The newest version that is asked for (Linux 6.12); older kernels do what they can of it.
const VERSION: ABI = ABI::V6;

/// What looking up names, certificates, time zones and processors reads, and libraries that are loaded for it.
const READ: [&str; 10] =
    ["/etc", "/usr", "/lib", "/lib64", "/run", "/proc", "/sys", "/dev", "/nix/store", "/gnu/store"];
/// Variables that name other certificates.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How the threads of exporters are confined.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// Folders, which are there already, in which they may make, change and remove files.
    pub writable: Vec<PathBuf>,
}

impl Confinement {
    /// Confines the calling thread and those that it will start. Twice is as good as once.
    pub fn enter(&self) {
        let none = CapabilitySet::empty();
        // Giving up is always allowed.
        let _ = set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none });
        let status = self.restrict_files();
        static ONCE: Once = Once::new();
        ONCE.call_once(|| match status {
            Ok(RulesetStatus::FullyEnforced) => {}
            Ok(RulesetStatus::PartiallyEnforced) => {
                tracing::debug!("the kernel's Landlock is older than 6.12: exporters are not confined in all ways");
            }
            Ok(RulesetStatus::NotEnforced) => {
                tracing::debug!("the kernel has no Landlock: exporters reach all files of their user");
            }
            Err(error) => tracing::debug!("exporters reach all files of their user: {error}"),
        });
    }

    fn restrict_files(&self) -> Result<RulesetStatus, RulesetError> {
        let certificates = CERTIFICATES.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let readable = READ.iter().map(PathBuf::from).chain(certificates);
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(VERSION))?
            // Without a rule: nothing listens.
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::from_all(VERSION))?
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::from_read(VERSION)))?
            .add_rules(path_beneath_rules(["/dev/null", "/dev/tty"], AccessFs::from_file(VERSION)))?
            .add_rules(path_beneath_rules(&self.writable, AccessFs::from_all(VERSION) & !AccessFs::Execute))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

/// How far the kernel goes: tried in a thread of its own.
pub fn status() -> Option<RulesetStatus> {
    std::thread::spawn(|| Confinement::default().restrict_files().ok()).join().ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, ToSocketAddrs as _};

    use super::*;

    /// In one thread, which ends with its domain. The kernel must have Landlock, as every one of the test list has.
    #[test]
    fn a_confined_thread_reaches_what_it_is_for_and_no_more() {
        let (own, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let secret = other.path().join("secret");
        fs::write(&secret, "x").expect("written");
        std::thread::spawn(move || {
            Confinement { writable: vec![own.path().to_owned()] }.enter();
            let denied = |result: std::io::Result<()>| result.map_err(|error| error.kind()) == Err(PermissionDenied);
            assert!(denied(fs::read(&secret).map(drop)));
            assert!(denied(fs::write(other.path().join("new"), "x")));
            assert!(denied(fs::remove_file(&secret)));
            assert!(denied(fs::write("/etc/tracer-was-here", "x")));
            assert!(denied(fs::read_link("/proc/1/exe").map(drop)), "another process");
            assert!(denied(TcpListener::bind("127.0.0.1:0").map(drop)));
            let own = own.path();
            fs::write(own.join("a"), "x").and_then(|()| fs::rename(own.join("a"), own.join("b"))).expect("its own");
            fs::remove_file(own.join("b")).expect("its own");
            assert!(("localhost", 1).to_socket_addrs().expect("names are looked up").next().is_some());
            assert!(fs::read_dir("/etc/ssl").is_ok() || !fs::exists("/etc/ssl").expect("it can be asked"));
            let held = rustix::thread::capabilities(None).expect("its own");
            assert!(held.permitted.is_empty() && held.effective.is_empty());
        })
        .join()
        .expect("the thread did all that");
    }
}

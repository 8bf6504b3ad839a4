//! A certificate that a server has signed itself.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where it is.
#[derive(Debug)]
pub struct Certificate {
    /// What the server shows.
    pub public: PathBuf,
    /// What it keeps.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in a folder.
    pub fn make(folder: &Path) -> Self {
        let certificate = Self { public: folder.join("certificate.pem"), key: folder.join("key.pem") };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .arg("-keyout")
            .arg(&certificate.key)
            .arg("-out")
            .arg(&certificate.public)
            .output()
            .expect("openssl is installed; `cargo xtask test` installs it");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        certificate
    }
}

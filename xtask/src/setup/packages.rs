//! Programs from the machine's own Debian release.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::Tool;
use crate::{run, workspace};

/// A program that a Debian package holds.
pub struct Program {
    /// Its file name.
    pub program: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
    /// What the project does with it.
    pub purpose: &'static str,
}

/// `redis-tools` holds the server's binary too, under another name, and starts no service when it is installed.
pub const REDIS: Program = Program {
    program: "redis-server",
    package: "redis-tools",
    purpose: "the server that the tests and the demo talk to",
};

/// The core package starts no service when it is installed.
pub const MARIADB: Program =
    Program { program: "mariadbd", package: "mariadb-server-core", purpose: "the MySQL server that the tests talk to" };

/// Its command-line client, without which the server's data folder cannot be made either.
pub const MARIADB_CLIENT: Program =
    Program { program: "mariadb", package: "mariadb-client-core", purpose: "steers the MySQL server of the tests" };

/// PostgreSQL, of whatever version the release has, with `pg_stat_statements`.
pub struct Postgres;

/// For the test of `tracer top`.
pub const TMUX: Program =
    Program { program: "tmux", package: "tmux", purpose: "the terminal in which `tracer top` is tested" };

/// For the tests of files that change under probes.
pub const RSYNC: Program =
    Program { program: "rsync", package: "rsync", purpose: "one of the ways in which tests deploy a service" };

/// For the tests of mini debug info.
pub const XZ: Program = Program { program: "xz", package: "xz-utils", purpose: "packs symbols as Fedora does" };

/// Networks for a test with two hosts.
pub const IPROUTE: Program =
    Program { program: "ip", package: "iproute2", purpose: "the second host of a test is a network namespace" };

/// For the tests of an agent without root.
pub const SETCAP: Program =
    Program { program: "setcap", package: "libcap2-bin", purpose: "gives capabilities to the agent of a test" };

/// For the tests of encrypted connections.
pub const OPENSSL: Program =
    Program { program: "openssl", package: "openssl", purpose: "makes the certificates of servers of the tests" };

/// For a test with a server behind another address.
pub const IPTABLES: Program =
    Program { program: "iptables", package: "iptables", purpose: "address translation before a server of a test" };

/// For the tests of programs on file systems of several kinds.
pub const BTRFS: Program = Program {
    program: "mkfs.btrfs",
    package: "btrfs-progs",
    purpose: "makes the file system of a test: a program in a subvolume",
};

/// The same.
pub const BINDFS: Program = Program {
    program: "bindfs",
    package: "bindfs",
    purpose: "the FUSE file system of a test, which root may not enter",
};

/// For the tests of the browser view.
pub const CHROMIUM: Program =
    Program { program: "chromium", package: "chromium", purpose: "the browser in which the browser view is tested" };

/// The same.
pub const CHROMEDRIVER: Program =
    Program { program: "chromedriver", package: "chromium-driver", purpose: "steers the browser of a test" };

/// For the tests of the shim.
pub const PROTOC: Program = Program { program: "protoc", package: "protobuf-compiler", purpose: PEER };

const PEER: &str = "another implementation of protobuf, which has to read the shim's messages";

/// A module of the distribution's Python.
pub struct PythonModule {
    /// Its name in Python.
    module: &'static str,
    /// The Debian package that holds it.
    package: &'static str,
    purpose: &'static str,
}

/// For the tests of the shim.
pub const PYTHON_PROTOBUF: PythonModule =
    PythonModule { module: "google.protobuf", package: "python3-protobuf", purpose: PEER };

/// For the tests of PostgreSQL.
pub const PSYCOPG: PythonModule = PythonModule {
    module: "psycopg",
    package: "python3-psycopg",
    purpose: "one of the clients of PostgreSQL in the tests",
};

/// For `cargo xtask bench`.
pub const BPFTRACE: Program = Program {
    program: "bpftrace",
    package: "bpftrace",
    purpose: "the benchmark compares with an equal bpftrace script",
};

/// For `cargo xtask vm`.
pub const QEMU: Program =
    Program { program: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "runs the checks on other kernels" };

impl Tool for Program {
    fn name(&self) -> String {
        self.program.to_owned()
    }

    fn purpose(&self) -> &'static str {
        self.purpose
    }

    fn find(&self) -> Option<PathBuf> {
        workspace::find_program(self.program)
    }

    fn remedy(&self) -> String {
        format!("`apt-get install {}` as root, or your distribution's package of {}", self.package, self.program)
    }

    fn install(&self) -> Result<()> {
        install(&[self.package])?;
        if self.program == REDIS.program && self.find().is_none() {
            link_redis()?;
        }
        Ok(())
    }
}

impl Tool for PythonModule {
    fn name(&self) -> String {
        self.package.to_owned()
    }

    fn purpose(&self) -> &'static str {
        self.purpose
    }

    fn find(&self) -> Option<PathBuf> {
        let script = format!("import {0}; print({0}.__file__)", self.module);
        let file = run::output(Command::new("/usr/bin/python3").args(["-c", &script])).ok()?;
        Some(PathBuf::from(file.trim()))
    }

    fn remedy(&self) -> String {
        format!("`apt-get install {}` as root, or your distribution's package of it", self.package)
    }

    fn install(&self) -> Result<()> {
        install(&[self.package])
    }
}

impl Tool for Postgres {
    fn name(&self) -> String {
        "postgresql".to_owned()
    }

    fn purpose(&self) -> &'static str {
        "the PostgreSQL server that the tests talk to"
    }

    /// The server itself: Debian keeps the programs of each version in a folder of their own.
    fn find(&self) -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        versions.map(|version| version.path().join("bin/postgres")).find(|server| server.is_file())
    }

    fn remedy(&self) -> String {
        format!("`apt-get install {}` as root, or your distribution's package of it", self.name())
    }

    fn install(&self) -> Result<()> {
        install(&["postgresql"])
    }
}

/// Installs packages without their recommendations; fetches the lists if they are missing or too old.
pub fn install(packages: &[&str]) -> Result<()> {
    if workspace::find_program("apt-get").is_none() {
        bail!("there is no apt-get on this machine");
    }
    if !workspace::is_root() {
        bail!("installing a package needs root");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run::output(&mut command)
    };
    let arguments = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if apt(&arguments).is_err() {
        apt(&["update"])?;
        apt(&arguments)?;
    }
    Ok(())
}

/// The binary behaves by the name it is called with.
fn link_redis() -> Result<()> {
    let bin = workspace::tools().join("bin");
    std::fs::create_dir_all(&bin)?;
    symlink(Path::new("/usr/bin/redis-check-rdb"), bin.join(REDIS.program))?;
    Ok(())
}

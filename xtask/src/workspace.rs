//! Where things are. Everything that the tasks fetch or build stays below `target/`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of the root `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where fetched tools are kept; `CARGO_TARGET_DIR` does not move them, so that every build finds them.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The object that the agent embeds.
pub fn ebpf_object() -> PathBuf {
    root().join("target/ebpf/tracer-ebpf")
}

/// Where cargo puts the workspace's own build.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs this task, in the root of the workspace.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(root());
    command
}

/// The path of an executable file: a fetched tool, else one on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    [tools().join("bin")]
        .into_iter()
        .chain(env::split_paths(&path))
        // Debian keeps administrators' programs where an ordinary user's PATH does not look.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// PATH with the fetched tools in front.
pub fn path_with_tools() -> anyhow::Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [tools().join("bin")].into_iter().chain(env::split_paths(&path));
    Ok(env::join_paths(dirs)?)
}

/// Whether this process may install packages and load eBPF programs.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

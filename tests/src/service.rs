//! A service whose file the test replaces while an agent traces what runs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Target;

/// A service under a name that no other test has.
pub struct Service {
    path: PathBuf,
    /// Its folder, if that is its own.
    _folder: Option<TempDir>,
}

impl Service {
    /// A copy of a program in a folder of its own.
    pub fn new(program: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let name = Self::name_in(folder.path());
        Self::copy(program, folder, &name)
    }

    /// A copy of `process_target` under this name, in a folder of its own: other tests run the program at the same time.
    pub fn process_target(name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self::copy(&crate::program("process_target"), folder, name)
    }

    fn copy(program: &Path, folder: TempDir, name: &str) -> Self {
        let path = folder.path().join(name);
        fs::copy(program, &path).expect("the program is copied");
        Self { path, _folder: Some(folder) }
    }

    /// A program that is there.
    pub fn at(path: PathBuf) -> Self {
        Self { path, _folder: None }
    }

    /// A name for a service in a temporary folder.
    pub fn name_in(folder: &Path) -> String {
        let random = folder.file_name().expect("a name").to_string_lossy();
        format!("svc-{}", random.trim_start_matches(".tmp"))
    }

    /// Its name, by which the agent finds it.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it.
    pub fn start(&self) -> Target {
        Target::spawn(&mut Command::new(self.path()))
    }

    /// Runs a shell script with `$NEW` and `$SERVICE`; the test fails with it.
    pub fn replace(&self, script: &str, new: &Path) {
        let mut shell = Command::new("bash");
        shell
            .args(["-euc", script])
            .env("NEW", new)
            .env("SERVICE", self.path())
            .current_dir(self.path.parent().expect("a folder"));
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Has a `prost_target` encode and decode; returns how often it did what, and for how many bytes.
pub fn messages(target: &mut Target, rounds: u32) -> BTreeMap<String, (u64, u64)> {
    let calls = target.ask(&format!("messages {rounds}"));
    let number = |call: &serde_json::Value, name: &str| call[name].as_u64().expect("a number");
    let calls = calls.as_object().expect("calls by name").iter();
    calls.map(|(name, call)| (name.clone(), (number(call, "count"), number(call, "bytes")))).collect()
}

/// Copies a program, with the units of its debug info as often as it takes to have `size` bytes of them.
pub fn enlarge(program: &Path, large: &Path, size: usize) {
    let folder = TempDir::new().expect("a temporary folder");
    let section = folder.path().join("section");
    objcopy(
        &["--dump-section", &format!(".debug_info={}", section.display())],
        &[program, &folder.path().join("copy")],
    );
    let units = fs::read(&section).expect("debug info");
    let mut file = File::create(&section).expect("a file");
    for _ in 0..size.div_ceil(units.len()) {
        file.write_all(&units).expect("room");
    }
    objcopy(&["--update-section", &format!(".debug_info={}", section.display())], &[program, large]);
    assert!(large.metadata().expect("a file").len() > size as u64);
}

fn objcopy(arguments: &[&str], files: &[&Path]) {
    let status = Command::new("objcopy").args(arguments).args(files).status().expect("binutils");
    assert!(status.success(), "{arguments:?}");
}

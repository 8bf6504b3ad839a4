//! Builds `tests/programs/inspect-sample`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tracer::inspect::{ProbePlan, inspect_file};

/// A way to build the sample.
#[derive(Clone, Copy)]
pub struct Build {
    name: &'static str,
    flags: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

/// As `cargo build --release` does it.
pub const LEGACY: Build = Build { name: "legacy", flags: "", environment: &[] };
/// With types in the symbols.
pub const V0: Build = Build { name: "v0", flags: "-C symbol-mangling-version=v0", environment: &[] };
/// Everything inlined.
pub const FAT_LTO: Build = Build {
    name: "lto",
    flags: "",
    environment: &[("CARGO_PROFILE_RELEASE_LTO", "fat"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")],
};
/// Everything inlined, and the debug info says where.
pub const FAT_LTO_LINES: Build = Build {
    name: "lto-lines",
    flags: "",
    environment: &[
        ("CARGO_PROFILE_RELEASE_LTO", "fat"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
        ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    ],
};
/// The same, with the debug info of each unit in a file of its own, in both versions of the format.
pub const UNPACKED: [Build; 2] = [
    Build { name: "unpacked-4", flags: "-C split-debuginfo=unpacked -C dwarf-version=4", ..FAT_LTO_LINES },
    Build { name: "unpacked-5", flags: "-C split-debuginfo=unpacked -C dwarf-version=5", ..FAT_LTO_LINES },
];
/// The same, with all of these in one file.
pub const PACKED: [Build; 2] = [
    Build { name: "packed-4", flags: "-C split-debuginfo=packed -C dwarf-version=4", ..FAT_LTO_LINES },
    Build { name: "packed-5", flags: "-C split-debuginfo=packed -C dwarf-version=5", ..FAT_LTO_LINES },
];
/// Several units, each with full debug info of its own.
pub const UNPACKED_UNITS: Build = Build {
    name: "unpacked-units",
    flags: "-C split-debuginfo=unpacked",
    environment: &[("CARGO_PROFILE_RELEASE_DEBUG", "full")],
};
/// As [`UNPACKED_UNITS`], in a package.
pub const PACKED_UNITS: Build = Build { name: "packed-units", flags: "-C split-debuginfo=packed", ..UNPACKED_UNITS };
/// As [`UNPACKED_UNITS`], in the program itself.
pub const UNITS: Build = Build { name: "units", flags: "", ..UNPACKED_UNITS };
const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Build {
    /// The built program.
    pub fn path(self) -> PathBuf {
        // Tests run at once, and each build replaces the program of the one before.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inspect");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/inspect-sample/Cargo.toml");
        // With a target, procedural macros are built without the flags, so once for all builds.
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--offline", "--target", TARGET, "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&directory)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", self.flags)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .envs(self.environment.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let built = directory.join(TARGET).join("release/inspect-sample");
        let path = directory.join(format!("sample-{}", self.name));
        if self.flags.contains("split-debuginfo=packed") {
            update(&built.with_extension("dwp"), &path.with_extension("dwp"));
        }
        update(&built, &path);
        path
    }

    /// Its plan.
    pub fn plan(self) -> ProbePlan {
        inspect_file(&self.path()).unwrap()
    }
}

/// Another test may be running the copy of the last build: replaced as a whole, or not at all.
fn update(from: &Path, to: &Path) {
    if fs::read(to).ok() != fs::read(from).ok() {
        let mut fresh = to.to_owned().into_os_string();
        fresh.push(".new");
        fs::copy(from, &fresh).unwrap();
        fs::rename(&fresh, to).unwrap();
    }
}

/// A copy of a program without its symbols.
pub fn stripped(program: &Path) -> PathBuf {
    let copy = program.with_extension("stripped");
    let status = Command::new("strip").arg("-o").arg(&copy).arg(program).status().unwrap();
    assert!(status.success());
    copy
}

//! What Aeron's C client and media driver need to be built: cmake 3.30 or later, a C++ compiler, libclang and two libraries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    Tool,
    packages::{self, Program},
};
use crate::{run, workspace};

/// The oldest version that Aeron takes.
const OLDEST: (u32, u32) = (3, 30);
/// The version from PyPI: what the pipeline has been built with.
const WHEEL: &str = "cmake==4.4.4";

/// All of it.
pub fn tools() -> Vec<Box<dyn Tool>> {
    vec![
        Box::new(Cmake),
        Box::new(Program { program: "c++", package: "g++", purpose: PURPOSE }),
        Box::new(Program { program: "make", package: "make", purpose: PURPOSE }),
        Box::new(Library { name: "libclang", file: libclang, package: "libclang-dev" }),
        Box::new(Library { name: "libuuid", file: || header("uuid/uuid.h"), package: "uuid-dev" }),
        Box::new(Library { name: "libbsd", file: || header("bsd/stdlib.h"), package: "libbsd-dev" }),
    ]
}

const PURPOSE: &str = "builds Aeron, which the order services talk over";

/// The cmake to build with; cargo's build scripts take it from the variable `CMAKE`.
pub fn cmake() -> Option<PathBuf> {
    [dir().join("cmake/data/bin/cmake")].into_iter().chain(workspace::find_program("cmake")).find(|program| {
        let said = run::output(Command::new(program).arg("--version")).unwrap_or_default();
        version(&said).is_some_and(|version| version >= OLDEST)
    })
}

/// `cmake version 4.4.4` is (4, 4).
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.lines().next()?.strip_prefix("cmake version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

struct Cmake;

impl Tool for Cmake {
    fn name(&self) -> String {
        format!("cmake {}.{}", OLDEST.0, OLDEST.1)
    }

    fn purpose(&self) -> &'static str {
        PURPOSE
    }

    fn find(&self) -> Option<PathBuf> {
        cmake()
    }

    fn remedy(&self) -> String {
        format!("`python3 -m pip install --target {} {WHEEL}`, or your distribution's if it is as new", dir().display())
    }

    fn install(&self) -> Result<()> {
        let python = || Command::new("/usr/bin/python3");
        if run::output(python().args(["-m", "pip", "--version"])).is_err() {
            packages::install(&["python3-pip"])?;
        }
        let mut pip = python();
        pip.args(["-m", "pip", "install", "--no-deps", "--upgrade", "--only-binary", ":all:", "--target"]);
        run::output(pip.arg(dir()).arg(WHEEL))?;
        Ok(())
    }
}

/// A library with what compilers need of it.
struct Library {
    name: &'static str,
    file: fn() -> Option<PathBuf>,
    package: &'static str,
}

impl Tool for Library {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn purpose(&self) -> &'static str {
        PURPOSE
    }

    fn find(&self) -> Option<PathBuf> {
        (self.file)()
    }

    fn remedy(&self) -> String {
        format!("`apt-get install {}` as root, or your distribution's package of it", self.package)
    }

    fn install(&self) -> Result<()> {
        packages::install(&[self.package])
    }
}

fn header(name: &str) -> Option<PathBuf> {
    [Path::new("/usr/include").join(name)].into_iter().find(|file| file.is_file())
}

/// bindgen reads headers with it. It is of no use without the compiler's own headers, which are a package of their own.
fn libclang() -> Option<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries("/usr/lib".as_ref()).filter(|path| path.to_string_lossy().contains("/llvm-")).find_map(|llvm| {
        // `libclang.so` or `libclang-14.so.1`; the others that begin so are parts of it to be linked statically.
        let is_library = |name: &str| name.starts_with("libclang") && !name.ends_with(".a") && name.contains(".so");
        let named = |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_library);
        let library = entries(&llvm.join("lib")).find(|path| named(path))?;
        entries(&llvm.join("lib/clang")).any(|clang| clang.join("include/stddef.h").is_file()).then_some(library)
    })
}

fn dir() -> PathBuf {
    workspace::tools().join("cmake")
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_cmake() {
        assert_eq!(version("cmake version 3.25.1\n\nCMake suite"), Some((3, 25)));
        assert_eq!(version("cmake version 4.4.4"), Some((4, 4)));
        assert_eq!(version("no such thing"), None);
    }
}

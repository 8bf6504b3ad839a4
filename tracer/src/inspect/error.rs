//! Why a file has no plan at all.

use std::io;
use std::path::{Path, PathBuf};

/// The file cannot be inspected.
///
/// What is merely missing or broken in a readable x86-64 ELF file is a remark of the plan, not an error.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file could not be opened or read.
    #[error("cannot read {}: check that the file exists and that this user may read it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file does not begin as an ELF file does.
    #[error("{} is not an ELF file: give the executable or shared object itself, not a script or an archive", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before what its header announces.
    #[error("{} is truncated or damaged ({what}): build or copy it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that could not be read.
        what: &'static str,
    },
    /// The file is for another kind of machine.
    #[error("{} is for another machine ({machine}): only 64-bit x86 can be traced", path.display())]
    WrongMachine {
        /// The file.
        path: PathBuf,
        /// The machine it is for.
        machine: String,
    },
    /// The file is neither an executable nor a shared object.
    #[error("{} is neither an executable nor a shared object: link it first", path.display())]
    NotLinked {
        /// The file.
        path: PathBuf,
    },
}

/// An [`InspectError`] before the path is known.
#[derive(Debug)]
pub(super) enum Fault {
    NotElf,
    Truncated(&'static str),
    WrongMachine(String),
    NotLinked,
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> InspectError {
        let path = path.to_owned();
        match self {
            Self::NotElf => InspectError::NotElf { path },
            Self::Truncated(what) => InspectError::Truncated { path, what },
            Self::WrongMachine(machine) => InspectError::WrongMachine { path, machine },
            Self::NotLinked => InspectError::NotLinked { path },
        }
    }
}

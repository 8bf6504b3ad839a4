//! The files that the agent writes: recordings, exports, balances, pictures. All of them are made here.
//!
//! The agent is root and its files hold what others may not see, so a file is for its owner alone (mode 0600), and what is at
//! the path already is used only if it is a plain file of the agent's own user. A symbolic link, a second hard link or a FIFO
//! that somebody has put into a shared folder such as /tmp would send the content elsewhere, or have another file overwritten.
//! `/dev/stdout` and `/dev/stderr` are not opened: they mean the agent's own descriptors.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path is a symbolic link.
    #[error("{} is a symbolic link, which is not followed: give the path of the file itself", .0.display())]
    Link(PathBuf),
    /// A folder, a device, a FIFO or a socket.
    #[error("{} is not a regular file: choose a path where there is none, or /dev/stdout and a pipe", .0.display())]
    NotAFile(PathBuf),
    /// Somebody else's file.
    #[error("{} belongs to user {owner}, who could read what is written to it: remove it or choose another path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The file has a second name.
    #[error("{} is a hard link to a file that has another name as well: remove it or choose another path", .0.display())]
    HardLink(PathBuf),
    /// The file system said no.
    #[error("cannot write {}: choose a path in a directory that exists and can be written", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Makes a file that only its owner can read, or empties it.
///
/// # Errors
/// When what is at the path is not a plain file of this user, or cannot be written.
pub fn create(path: &Path) -> Result<File, OutputError> {
    let failed = |source: io::Error| OutputError::Io { path: path.to_owned(), source };
    let inherited = match path.to_str() {
        Some("/dev/stdout") => Some(io::stdout().as_fd().try_clone_to_owned()),
        Some("/dev/stderr") => Some(io::stderr().as_fd().try_clone_to_owned()),
        _ => None,
    };
    if let Some(descriptor) = inherited {
        return descriptor.map(File::from).map_err(failed);
    }
    // It is emptied only once it is known to be ours. A FIFO without a reader must not block.
    let opened = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if path.is_symlink() => OutputError::Link(path.to_owned()),
        // A folder; a FIFO that nobody reads, or a socket.
        Some(libc::EISDIR | libc::ENXIO) => OutputError::NotAFile(path.to_owned()),
        _ => failed(error),
    })?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(OutputError::NotAFile(path.to_owned()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(OutputError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    if metadata.nlink() != 1 {
        return Err(OutputError::HardLink(path.to_owned()));
    }
    file.set_permissions(Permissions::from_mode(0o600)).and_then(|()| file.set_len(0)).map_err(failed)?;
    Ok(file)
}

/// Makes a file with this content.
///
/// # Errors
/// As [`create`], and when the content does not fit.
pub fn write(path: &Path, content: &str) -> Result<(), OutputError> {
    let written = io::Write::write_all(&mut create(path)?, content.as_bytes());
    written.map_err(|source| OutputError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::{OutputError, create, write};

    #[test]
    fn a_file_is_for_its_owner_alone_also_if_it_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        write(&path, "first, and longer").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn links_are_refused_and_what_they_lead_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let path = folder.path().join("link");
        symlink(&precious, &path).unwrap();
        assert!(matches!(create(&path), Err(OutputError::Link(_))));
        symlink(folder.path().join("nothing"), folder.path().join("dangling")).unwrap();
        assert!(matches!(create(&folder.path().join("dangling")), Err(OutputError::Link(_))));
        assert!(!folder.path().join("nothing").exists());
        fs::hard_link(&precious, folder.path().join("hard")).unwrap();
        assert!(matches!(create(&folder.path().join("hard")), Err(OutputError::HardLink(_))));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(create(folder.path()), Err(OutputError::NotAFile(_))));
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(matches!(create(&fifo), Err(OutputError::NotAFile(_))), "nobody reads it");
        let reader = fs::File::options().read(true).write(true).open(&fifo).unwrap();
        assert!(matches!(create(&fifo), Err(OutputError::NotAFile(_))), "somebody reads it");
        drop(reader);
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(create(&socket), Err(OutputError::NotAFile(_))));
        assert!(matches!(create("/dev/null".as_ref()), Err(OutputError::NotAFile(_))));
        assert!(matches!(create(&folder.path().join("no/folder")), Err(OutputError::Io { .. })));
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs");
        fs::write(&path, "theirs").unwrap();
        if !rustix::process::geteuid().is_root() {
            // Without root no file can be given away, but there are files of root.
            assert!(create("/etc/hostname".as_ref()).is_err());
            return;
        }
        chown(&path, Some(65_534), None).unwrap();
        let error = create(&path).unwrap_err();
        assert!(matches!(error, OutputError::Foreign { owner: 65_534, .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn the_standard_streams_are_the_own_ones() {
        use std::io::IsTerminal as _;
        let ours = std::io::stderr().is_terminal();
        assert_eq!(create("/dev/stderr".as_ref()).unwrap().is_terminal(), ours);
        create("/dev/stdout".as_ref()).unwrap();
    }
}

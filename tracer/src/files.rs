//! Opening files that belong to others: without following a name twice, and only regular files.
//!
//! A path such as `/proc/PID/root/lib/x.so` is resolved inside the file system of that process: an absolute symbolic link of
//! a container stays in the container. A file is first located (`O_PATH`: nothing is opened, nothing can wait), then
//! looked at, and then opened through its descriptor, so a pipe or device that takes its place is never opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, fstatfs, open as open_at, openat2, statx,
};

/// `f_type` of FUSE file systems.
const FUSE: i64 = 0x6573_5546;
/// `f_type` of overlayfs.
const OVERLAYFS: i64 = 0x794c_7630;

/// Opens a regular file for reading.
///
/// # Errors
/// When it is not there, may not be read, or is a pipe, a device or a folder.
pub fn open(path: &Path) -> io::Result<File> {
    readable(&locate(path)?)
}

/// Finds a file without opening it.
///
/// # Errors
/// When it is not there.
pub fn locate(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Some((root, inside)) = root_of(path) else { return Ok(open_at(path, flags, Mode::empty())?) };
    let root = open_at(&root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, inside, flags, Mode::empty(), resolve)?)
}

/// Opens the regular file that a descriptor stands for.
///
/// # Errors
/// When it may not be read, or is not a regular file.
pub fn readable(located: &OwnedFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(located)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let again = format!("/proc/self/fd/{}", located.as_raw_fd());
    Ok(open_at(again, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// What tells a file from others: device and inode as `stat` has them.
///
/// Containers of one image show the same file on a device each, and a probe in it must be there once: on overlayfs the time
/// at which the file below was made stands for the device. A file that is copied up is another one from then on.
///
/// # Errors
/// When the file system does not say.
pub fn identity(located: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(located)?;
    if is_on_overlayfs(located) {
        let extended = statx(located, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
        if extended.stx_mask & StatxFlags::BTIME.bits() != 0 {
            let made = &extended.stx_btime;
            let seconds = made.tv_sec.cast_unsigned();
            // Far from the numbers of devices.
            return Ok((!seconds.wrapping_mul(1_000_000_000).wrapping_add(made.tv_nsec.into()), stat.st_ino));
        }
    }
    Ok((stat.st_dev, stat.st_ino))
}

/// Size of a regular file; none if there is no such file.
pub fn size(path: &Path) -> Option<u64> {
    let stat = fstat(locate(path).ok()?).ok()?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    u64::try_from(stat.st_size).ok().filter(|_| is_regular)
}

/// Whether a file is on a FUSE file system, which may keep even root out.
pub fn is_on_fuse(located: impl AsFd) -> bool {
    fstatfs(located).is_ok_and(|system| system.f_type == FUSE)
}

/// Whether a file is on overlayfs, as those of containers are.
pub fn is_on_overlayfs(located: impl AsFd) -> bool {
    fstatfs(located).is_ok_and(|system| system.f_type == OVERLAYFS)
}

/// The root of the file system of a process, and a path in it, of a path such as `/proc/PID/root/lib/x.so` or
/// `/proc/PID/task/TID/root/lib/x.so`.
fn root_of(path: &Path) -> Option<(PathBuf, &Path)> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let Component::Normal(process) = parts.next()? else { return None };
    let mut owner = Path::new("/proc").join(process);
    let mut part = parts.next()?;
    if part == Component::Normal("task".as_ref()) {
        owner = owner.join(part).join(parts.next()?);
        part = parts.next()?;
    }
    let is_root = part == Component::Normal("root".as_ref());
    is_root.then(|| (owner.join("root"), parts.as_path()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_process_stay_in_its_file_system() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("file"), "inside").expect("written");
        symlink("/../../../../etc/passwd", folder.path().join("outside")).expect("a link");
        symlink(folder.path().join("file"), folder.path().join("absolute")).expect("a link");
        let root = PathBuf::from(format!("/proc/{}/root", std::process::id()));
        let inside = |name: &str| root.join(folder.path().join(name).strip_prefix("/").expect("absolute"));
        assert_eq!(io::read_to_string(open(&inside("absolute")).expect("opened")).expect("read"), "inside");
        assert_eq!(root_of(&root.join("a/b")), Some((root.clone(), Path::new("a/b"))));
        assert_eq!(root_of(Path::new("/proc/1/exe")), None);
        let root_of_thread = Path::new("/proc/1/task/2/root");
        assert_eq!(root_of(&root_of_thread.join("a")), Some((root_of_thread.to_owned(), Path::new("a"))));
        // With another root the same link ends there.
        let folder_fd = open_at(folder.path(), OFlags::PATH, Mode::empty()).expect("located");
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        assert!(openat2(folder_fd, "outside", OFlags::PATH, Mode::empty(), resolve).is_err());
    }

    #[test]
    fn pipes_and_folders_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            assert_eq!(open(path).expect_err("no regular file").kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
    }
}

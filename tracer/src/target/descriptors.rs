//! What a process has open: its sockets, and whether it uses io_uring.

use std::collections::HashSet;

/// Descriptors of a process at one time.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Inode numbers of its sockets.
    pub sockets: HashSet<u32>,
    /// It has an io_uring, by which sockets are used without system calls.
    pub uring: bool,
}

impl Descriptors {
    /// Of a process that runs; nothing if it has ended.
    pub fn read(pid: u32) -> Self {
        let mut descriptors = Self::default();
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return descriptors };
        for link in entries.filter_map(Result::ok).filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
            let link = link.to_string_lossy();
            if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
                descriptors.sockets.extend(inode.parse::<u32>());
            }
            descriptors.uring |= link == "anon_inode:[io_uring]";
        }
        descriptors
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::Descriptors;

    #[test]
    fn sockets_are_known_by_their_inodes() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let link = std::fs::read_link(format!("/proc/self/fd/{}", one.as_raw_fd())).expect("it is open");
        let inode: u32 = link.to_string_lossy().trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        assert!(Descriptors::read(std::process::id()).sockets.contains(&inode));
    }
}

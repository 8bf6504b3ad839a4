//! How many entries the eBPF maps of a process have: what the agent forgets to give back shows here.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

// Commands of bpf(2) and a map type, from include/uapi/linux/bpf.h.
const MAP_GET_NEXT_KEY: i32 = 4;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const MAP_TYPE_HASH: u32 = 1;

/// Longest key of a map of the agent.
const MAX_KEY: usize = 64;

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// Entries of each hash map that the process has open, by the map's name (of which the kernel keeps 15 bytes).
pub fn entries(pid: u32) -> BTreeMap<String, usize> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process runs");
    let ids = folder.filter_map(Result::ok).filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse::<u32>().ok()
    });
    ids.filter_map(|id| {
        let map = by_id(id)?;
        let info = info(&map)?;
        let name = String::from_utf8_lossy(&info.name).trim_end_matches('\0').to_owned();
        (info.kind == MAP_TYPE_HASH).then(|| (name, count(&map, info.key_size as usize)))
    })
    .collect()
}

fn by_id(id: u32) -> Option<OwnedFd> {
    let attribute: [u32; 3] = [id, 0, 0];
    let fd = bpf(MAP_GET_FD_BY_ID, attribute.as_ptr().cast(), size_of_val(&attribute))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info(map: &OwnedFd) -> Option<MapInfo> {
    #[repr(C)]
    struct Attribute {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = MapInfo::default();
    let (fd, len) = (map.as_raw_fd().cast_unsigned(), size_of::<MapInfo>() as u32);
    let attribute = Attribute { fd, len, info: (&raw mut info) as u64 };
    bpf(OBJ_GET_INFO_BY_FD, (&raw const attribute).cast(), size_of::<Attribute>())?;
    Some(info)
}

fn count(map: &OwnedFd, key_size: usize) -> usize {
    #[repr(C)]
    struct Attribute {
        fd: u64,
        key: u64,
        next: u64,
    }
    assert!(key_size <= MAX_KEY);
    let mut keys = [[0_u8; MAX_KEY]; 2];
    let mut count = 0;
    loop {
        let [key, next] = &mut keys;
        let key = if count == 0 { 0 } else { key.as_ptr() as u64 };
        let attribute = Attribute { fd: map.as_raw_fd() as u64, key, next: next.as_mut_ptr() as u64 };
        if bpf(MAP_GET_NEXT_KEY, (&raw const attribute).cast(), size_of::<Attribute>()).is_none() {
            return count;
        }
        count += 1;
        keys.swap(0, 1);
    }
}

fn bpf(command: i32, attribute: *const libc::c_void, len: usize) -> Option<i32> {
    // SAFETY: callers pass a live attribute of this length, whose pointers are to live buffers of the lengths that the command
    // writes: a `MapInfo`, or a key of at most `MAX_KEY` bytes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, len) };
    i32::try_from(result).ok().filter(|result| *result >= 0)
}

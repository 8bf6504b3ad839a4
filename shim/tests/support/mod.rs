//! A listener of the shim's site, as small as can be: one eBPF program that copies records into a ring buffer.
#![allow(dead_code, clippy::unwrap_used, reason = "every test program uses its own part, and a test may panic")]

use object::{Object, ObjectSection, ObjectSegment};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of an entry of the ring: its own header, the record's length, then what is kept of the record.
const fn entry_len(kept: usize) -> usize {
    16 + kept
}
const PAGE: usize = 4096;

/// Where the site is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    pub offset: u64,
    pub semaphore: u64,
}

/// The `tracer:span` sites that the notes of `path` tell of.
pub fn sites(path: &Path) -> Vec<Site> {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let notes = file.section_by_name(".note.stapsdt").unwrap();
    let mut rest = notes.data().unwrap();
    let mut sites = Vec::new();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let long = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    while rest.len() >= 12 {
        let (name, desc) = (word(rest, 0).next_multiple_of(4), word(rest, 4));
        let description = &rest[12 + name..12 + name + desc];
        if description[24..].starts_with(b"tracer\0span\0") {
            sites.push(Site {
                offset: file_offset(&file, long(description, 0)),
                semaphore: file_offset(&file, long(description, 16)),
            });
        }
        rest = &rest[(12 + name + desc.next_multiple_of(4)).min(rest.len())..];
    }
    sites
}

/// Where in the file the byte is that is loaded at `address`.
pub fn file_offset(file: &object::File<'_>, address: u64) -> u64 {
    let holds =
        |segment: &object::Segment<'_, '_>| (segment.address()..segment.address() + segment.size()).contains(&address);
    let segment = file.segments().find(holds).unwrap();
    segment.file_range().0 + (address - segment.address())
}

/// Ways to attach that this kernel has: the nop, and the optimised one, if it has one.
pub fn offsets() -> Vec<u64> {
    // SAFETY: a call of the kernel's own trampoline entry from outside it, which it refuses.
    let refused = unsafe { libc::syscall(336) };
    assert_eq!(refused, -1);
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENXIO) => vec![0, 11],
        Some(libc::EPROTO) => vec![0, 1],
        _ => vec![0],
    }
}

pub struct Listener {
    kept: usize,
    size: usize,
    ring: OwnedFd,
    events: Vec<OwnedFd>,
    consumer: *mut AtomicU64,
    producer: *const AtomicU64,
    data: *const u8,
}

fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are 128 bytes, zero where not set; what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn program(ring: i32, kept: usize) -> Vec<u64> {
    let insn = |code: u64, dst: u64, src: u64, off: i16, imm: i32| {
        code | dst << 8 | src << 12 | u64::from(off as u16) << 16 | u64::from(imm as u32) << 32
    };
    vec![
        insn(0x79, 7, 1, 104, 0),             // r7 = regs->rsi, the length
        insn(0x79, 8, 1, 112, 0),             // r8 = regs->rdi, the record
        insn(0x18, 1, 1, 0, ring),            // r1 = ring
        0,                                    //
        insn(0xb7, 2, 0, 0, 8 + kept as i32), // r2 = size
        insn(0xb7, 3, 0, 0, 0),               // r3 = 0
        insn(0x85, 0, 0, 0, 131),             // r0 = ringbuf_reserve
        insn(0x15, 0, 0, 12, 0),              // if r0 == 0: exit
        insn(0xbf, 9, 0, 0, 0),               // r9 = r0
        insn(0x7b, 9, 7, 0, 0),               // *r9 = r7
        insn(0xbf, 1, 9, 0, 0),               // r1 = r9
        insn(0x07, 1, 0, 0, 8),               // r1 += 8
        insn(0xbf, 2, 7, 0, 0),               // r2 = r7
        insn(0xb5, 2, 0, 1, kept as i32),     // if r2 <= KEPT: skip
        insn(0xb7, 2, 0, 0, kept as i32),     // r2 = KEPT
        insn(0xbf, 3, 8, 0, 0),               // r3 = r8
        insn(0x85, 0, 0, 0, 112),             // probe_read_user
        insn(0xbf, 1, 9, 0, 0),               // r1 = r9
        insn(0xb7, 2, 0, 0, 1),               // r2 = BPF_RB_NO_WAKEUP
        insn(0x85, 0, 0, 0, 132),             // ringbuf_submit
        insn(0xb7, 0, 0, 0, 0),               // r0 = 0
        insn(0x95, 0, 0, 0, 0),               // exit
    ]
}

/// Loads a program for uprobes.
fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut log = vec![0_u8; 65_536];
    // BPF_PROG_LOAD: type kprobe and the count, instructions, licence, log level and size, log.
    let load = [
        2 | (instructions.len() as u64) << 32,
        instructions.as_ptr().addr() as u64,
        license.as_ptr().addr() as u64,
        1 | (log.len() as u64) << 32,
        log.as_mut_ptr().addr() as u64,
    ];
    bpf(5, &mut pad(&load)).map_err(|error| {
        let log = String::from_utf8_lossy(&log);
        io::Error::other(format!("{error}: {}", log.trim_end_matches('\0')))
    })
}

/// Puts a probe that does nothing on an instruction of `path`, for as long as the result lives.
pub fn empty_probe(path: &Path, offset: u64, semaphore: u64) -> io::Result<OwnedFd> {
    let nothing = [0xb7, 0x95]; // r0 = 0; exit
    event(path, Site { offset, semaphore }, 0, &load(&nothing)?)
}

impl Listener {
    /// Listens to every process that runs `path`, `at` bytes behind the note's location.
    pub fn attach(path: &Path, at: u64) -> io::Result<Self> {
        Self::for_spans(path, at, 10_000, 512)
    }

    /// As [`Listener::attach`], with room for `count` spans of which `kept` bytes each are kept, a multiple of 8.
    pub fn for_spans(path: &Path, at: u64, count: usize, kept: usize) -> io::Result<Self> {
        let size = (count * entry_len(kept)).next_power_of_two();
        // BPF_MAP_CREATE: type ring buffer, no key, no value, its size.
        let ring = bpf(0, &mut pad(&[27, (size as u64) << 32]))?;
        let program = load(&program(ring.as_raw_fd(), kept))?;
        let attach = |site| event(path, site, at, &program);
        let events = sites(path).into_iter().map(attach).collect::<io::Result<_>>()?;
        let map = |offset: usize, len: usize, prot: i32| {
            // SAFETY: a new mapping of the ring buffer, wherever the kernel puts it.
            let address = unsafe {
                libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, ring.as_raw_fd(), offset as i64)
            };
            assert_ne!(address, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            address.cast::<u8>()
        };
        let consumer = map(0, PAGE, libc::PROT_READ | libc::PROT_WRITE);
        let producer = map(PAGE, PAGE + 2 * size, libc::PROT_READ);
        // SAFETY: the data begin a page after the producer's position.
        let data = unsafe { producer.add(PAGE) };
        Ok(Self { kept, size, ring, events, consumer: consumer.cast(), producer: producer.cast(), data })
    }

    /// Hands over what has come since the last call.
    pub fn drain(&mut self, mut record: impl FnMut(&[u8])) -> usize {
        // SAFETY: the positions and the data are mapped for as long as `self` lives; the kernel maps the data twice, so an
        // entry is contiguous wherever it begins.
        unsafe {
            let end = (*self.producer).load(Ordering::Acquire);
            let mut at = (*self.consumer).load(Ordering::Relaxed);
            let mut count = 0;
            while at < end {
                let entry = self.data.add(at as usize & (self.size - 1));
                let header = (*entry.cast::<AtomicU32>()).load(Ordering::Acquire);
                if header >> 31 == 1 {
                    break;
                }
                let len = entry.add(8).cast::<u64>().read() as usize;
                record(std::slice::from_raw_parts(entry.add(16), len.min(self.kept)));
                at += entry_len(self.kept) as u64;
                count += 1;
                (*self.consumer).store(at, Ordering::Release);
            }
            count
        }
    }

    /// How often the kernel saw the site hit.
    pub fn hits(&self) -> u64 {
        let read = |fd: &OwnedFd| {
            let mut count = 0_u64;
            // SAFETY: eight writable bytes.
            let got = unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
            assert_eq!(got, 8);
            count
        };
        self.events.iter().map(read).sum()
    }
}

fn pad(words: &[u64]) -> [u64; 16] {
    let mut attr = [0; 16];
    attr[..words.len()].copy_from_slice(words);
    attr
}

fn event(path: &Path, site: Site, at: u64, program: &OwnedFd) -> io::Result<OwnedFd> {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind: u64 = kind.trim().parse().unwrap();
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // perf_event_attr: type and size, config with the semaphore in its upper half, ..., the path, the offset.
    let mut attr = [0_u64; 16];
    attr[0] = kind | 128 << 32;
    attr[1] = site.semaphore << 32;
    attr[7] = path.as_ptr().addr() as u64;
    attr[8] = site.offset + at;
    // SAFETY: the attributes are 128 bytes and the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 8) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor; the program outlives its use by the kernel, which counts references.
    unsafe {
        let fd = OwnedFd::from_raw_fd(fd as i32);
        const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
        if libc::ioctl(fd.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    }
}

/// The example of this name, which `cargo test` has built beside the test.
pub fn example(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

//! The uprobe programs in the form that `uprobe_multi` links (Linux 6.6) take.
//!
//! Such a link holds any number of sites of one file by one descriptor, and detaches them together. The kernel takes a program
//! for it only if it was loaded with the attach type `BPF_TRACE_UPROBE_MULTI`, which aya 0.14 cannot say (aya's pull request
//! 1417 adds it, for a later compiler than ours). So aya makes the maps, and these programs are loaded here: parsed and
//! relocated by `aya-obj`, then one system call for each.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::{Function, Object};

use super::link::{self, opened};

/// Why the programs cannot be had for `uprobe_multi`; perf events do the work then.
#[derive(Debug, thiserror::Error)]
pub enum MultiError {
    /// The object was not understood.
    #[error("cannot read the eBPF object")]
    Object(#[from] aya_obj::ParseError),
    /// The object's references to maps and functions were not understood.
    #[error("cannot relocate the eBPF object")]
    Relocation(#[from] aya_obj::relocation::EbpfRelocationError),
    /// The object's types were not understood.
    #[error("cannot use the types of the eBPF object")]
    Btf(#[from] aya_obj::btf::BtfError),
    /// The kernel refused.
    #[error("bpf({call}) of `{name}` failed: {log}")]
    Load {
        /// `BPF_BTF_LOAD` or `BPF_PROG_LOAD`.
        call: &'static str,
        /// The program.
        name: &'static str,
        /// What the verifier said.
        log: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The object is not the one that this agent was built for.
    #[error("the embedded eBPF object has no program `{0}`: run `cargo xtask build-ebpf` and build the agent again")]
    NoProgram(&'static str),
}

/// The loaded programs, by name.
#[derive(Debug)]
pub struct MultiPrograms {
    programs: HashMap<&'static str, OwnedFd>,
    /// A link may be for one process.
    pub filters_processes: bool,
}

impl MultiPrograms {
    /// Loads programs of the object whose maps aya has made.
    pub fn load(object: &[u8], ebpf: &Ebpf, names: &[&'static str]) -> Result<Self, MultiError> {
        let mut object = Object::parse(object)?;
        let features = aya::features();
        let btf = match features.btf() {
            Some(features) => {
                object.fixup_and_sanitize_btf(features)?.map(|btf| load_btf(&btf.to_bytes())).transpose()?
            }
            None => None,
        };
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        let maps = object.maps.clone();
        let made = maps.iter().filter_map(|(name, map)| {
            let data = data(ebpf.map(name)?)?;
            Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
        });
        object.relocate_maps(made, &sections)?;
        object.relocate_calls(&sections)?;
        object.sanitize_functions(features);
        let mut programs = HashMap::new();
        for &name in names {
            let program = object.programs.get(name).ok_or(MultiError::NoProgram(name))?;
            let function = object.functions.get(&program.function_key()).ok_or(MultiError::NoProgram(name))?;
            let fd = load_program(name, function, &program.license, btf.as_ref())?;
            programs.insert(name, fd);
        }
        let filters_processes =
            programs.values().next().is_some_and(|fd| link::multi_links_filter_processes(fd.as_fd()));
        Ok(Self { programs, filters_processes })
    }

    /// A program.
    pub fn program(&self, name: &'static str) -> Option<BorrowedFd<'_>> {
        self.programs.get(name).map(|fd| fd.as_fd())
    }
}

/// The kinds of maps that the programs use.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::BloomFilter(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

/// The part of `union bpf_attr` that BPF_BTF_LOAD reads.
#[repr(C)]
#[derive(Default)]
struct BtfLoadAttr {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    reserved: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads.
#[repr(C)]
#[derive(Default)]
struct ProgramLoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [c_char; 16],
    interface: u32,
    attach_type: u32,
    btf: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_PROG_TYPE_KPROBE: u32 = 2;

/// Whether the kernel has such links, asked with a program that does nothing.
pub(super) fn links_are_known() -> bool {
    // `r0 = 0; exit`
    const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];
    let attr = ProgramLoadAttr {
        kind: BPF_PROG_TYPE_KPROBE,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: link::BPF_TRACE_UPROBE_MULTI,
        ..ProgramLoadAttr::default()
    };
    // SAFETY: `attr` and all that it points to live through the call, which reads them only.
    let fd =
        opened(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<ProgramLoadAttr>()) });
    fd.is_ok_and(|fd| link::multi_links_are_known(fd.as_fd()).is_ok())
}

fn load_btf(bytes: &[u8]) -> Result<OwnedFd, MultiError> {
    let attr = BtfLoadAttr { btf: bytes.as_ptr() as u64, size: bytes.len() as u32, ..BtfLoadAttr::default() };
    // SAFETY: `attr` and `bytes` live through the call, which reads them only.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_BTF_LOAD, &raw const attr, size_of::<BtfLoadAttr>()) };
    opened(fd).map_err(|source| MultiError::Load { call: "BPF_BTF_LOAD", name: "types", log: String::new(), source })
}

fn load_program(
    name: &'static str,
    function: &Function,
    license: &CString,
    btf: Option<&OwnedFd>,
) -> Result<OwnedFd, MultiError> {
    let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let mut attr = ProgramLoadAttr {
        kind: BPF_PROG_TYPE_KPROBE,
        instruction_count: function.instructions.len() as u32,
        instructions: function.instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: link::BPF_TRACE_UPROBE_MULTI,
        ..ProgramLoadAttr::default()
    };
    // The last byte stays zero.
    for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    if let Some(btf) = btf {
        attr.btf = btf.as_raw_fd() as u32;
        (attr.function_info, attr.function_info_count) = (functions.as_ptr() as u64, function.func_info.len() as u32);
        (attr.line_info, attr.line_info_count) = (lines.as_ptr() as u64, function.line_info.len() as u32);
        attr.function_info_size = function.func_info_rec_size as u32;
        attr.line_info_size = function.line_info_rec_size as u32;
    }
    let load = |attr: &ProgramLoadAttr| {
        // SAFETY: `attr` and all that it points to live through the call, which writes to the log only, within its size.
        opened(unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(attr), size_of::<ProgramLoadAttr>())
        })
    };
    load(&attr).map_err(|source| {
        // Once more, for the verifier's reasons.
        let mut log = vec![0_u8; 1 << 20];
        (attr.log_level, attr.log_size, attr.log) = (1, log.len() as u32, log.as_mut_ptr() as u64);
        let _ = load(&attr);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]).into_owned();
        MultiError::Load { call: "BPF_PROG_LOAD", name, log, source }
    })
}

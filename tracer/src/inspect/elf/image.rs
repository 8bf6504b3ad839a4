//! The parts of an ELF file that a plan needs, read when they are needed.
//!
//! Every read is checked against the file's length and against a budget, so that a file whose headers lie costs an error
//! and not the machine's memory.

use std::cell::{Cell, OnceCell};

use object::elf::{
    EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PF_X, PT_INTERP, PT_LOAD, PT_TLS, SHF_COMPRESSED, SHT_DYNAMIC,
    SHT_NOBITS, SectionType,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadRef};

use crate::inspect::elf::source::ReadAt;
use crate::inspect::error::Fault;

/// Sections and segments beyond this many are not looked at.
const MAX_HEADERS: usize = 4_096;
/// The largest section that is read, in bytes.
const MAX_SECTION: u64 = 512 << 20;
/// Functions may overlap in a file made to trouble us: all together, no more than this is decoded, in bytes.
const MAX_DECODED: u64 = 128 << 20;

const DT_SONAME: u64 = 14;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;

type Header = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A loadable segment.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct Segment<'a> {
    pub(in crate::inspect) address: u64,
    pub(in crate::inspect) offset: u64,
    pub(in crate::inspect) file_size: u64,
    pub(in crate::inspect) executable: bool,
    bytes: OnceCell<&'a [u8]>,
}

impl Segment<'_> {
    /// Bytes from `address` to the end of what the file holds of the segment.
    fn rest(&self, address: u64) -> Option<u64> {
        let into = address.checked_sub(self.address)?;
        self.file_size.checked_sub(into).filter(|rest| *rest > 0)
    }
}

/// A section header.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct Section<'a> {
    pub(in crate::inspect) name: &'a [u8],
    pub(in crate::inspect) kind: SectionType,
    pub(in crate::inspect) address: u64,
    pub(in crate::inspect) offset: u64,
    pub(in crate::inspect) size: u64,
    pub(in crate::inspect) link: usize,
    pub(in crate::inspect) align: u64,
    pub(in crate::inspect) compressed: bool,
}

impl Section<'_> {
    /// Whether the file holds its bytes.
    pub(in crate::inspect) fn in_file(&self) -> bool {
        self.kind != SHT_NOBITS && self.size > 0
    }
}

/// Executable bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct Code<'a> {
    pub(in crate::inspect) address: u64,
    pub(in crate::inspect) bytes: &'a [u8],
}

/// The thread-local segment.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::inspect) struct TlsSegment {
    pub(in crate::inspect) size: u64,
    pub(in crate::inspect) align: u64,
}

/// An ELF file for x86-64.
pub(in crate::inspect) struct Image<'a> {
    pub(in crate::inspect) sections: Vec<Section<'a>>,
    pub(in crate::inspect) segments: Vec<Segment<'a>>,
    pub(in crate::inspect) tls: Option<TlsSegment>,
    /// Addresses are absolute: not position independent.
    pub(in crate::inspect) fixed: bool,
    /// Names an interpreter: a dynamically linked executable.
    pub(in crate::inspect) interpreter: bool,
    /// Is a program, not a library.
    pub(in crate::inspect) program: bool,
    linked: bool,
    /// For sections that are read in pieces.
    pub(in crate::inspect) source: &'a dyn ReadAt,
    read: Box<dyn Fn(u64, u64) -> Option<&'a [u8]> + 'a>,
    budget: Cell<u64>,
    decode_budget: Cell<u64>,
}

impl<'a> Image<'a> {
    /// A program or library.
    pub(in crate::inspect) fn parse<R: ReadRef<'a> + 'a>(data: R, source: &'a dyn ReadAt) -> Result<Self, Fault> {
        let image = Self::parse_any(data, source)?;
        if image.linked { Ok(image) } else { Err(Fault::NotLinked) }
    }

    /// Any file: debug info can be in ones that nobody links.
    pub(in crate::inspect) fn parse_any<R: ReadRef<'a> + 'a>(data: R, source: &'a dyn ReadAt) -> Result<Self, Fault> {
        let ident = data.read_bytes_at(0, 16).map_err(|()| Fault::NotElf)?;
        if !ident.starts_with(b"\x7fELF") {
            return Err(Fault::NotElf);
        }
        check_machine(data, ident)?;
        let header = Header::parse(data).map_err(|_| Fault::Truncated("file header"))?;
        let kind = header.e_type(LE);
        let mut image = Self {
            sections: Vec::new(),
            segments: Vec::new(),
            tls: None,
            fixed: kind == ET_EXEC,
            interpreter: false,
            program: kind == ET_EXEC,
            linked: kind == ET_EXEC || kind == ET_DYN,
            source,
            read: Box::new(move |offset, size| data.read_bytes_at(offset, size).ok()),
            budget: Cell::new(
                data.len().map_err(|()| Fault::Truncated("file"))?.saturating_mul(2).saturating_add(1 << 20),
            ),
            decode_budget: Cell::new(MAX_DECODED),
        };
        image.add_segments(header, data)?;
        image.add_sections(header, data)?;
        image.program |= image.says_program();
        Ok(image)
    }

    fn add_segments<R: ReadRef<'a>>(&mut self, header: &'a Header, data: R) -> Result<(), Fault> {
        let headers = header.program_headers(LE, data).map_err(|_| Fault::Truncated("program headers"))?;
        for segment in headers.iter().take(MAX_HEADERS) {
            match segment.p_type(LE) {
                PT_LOAD => self.segments.push(Segment {
                    address: segment.p_vaddr(LE),
                    offset: segment.p_offset(LE),
                    file_size: segment.p_filesz(LE).min(segment.p_memsz(LE)),
                    executable: segment.p_flags(LE).0 & PF_X.0 != 0,
                    bytes: OnceCell::new(),
                }),
                PT_INTERP => self.interpreter = true,
                PT_TLS => self.tls = Some(TlsSegment { size: segment.p_memsz(LE), align: segment.p_align(LE) }),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_sections<R: ReadRef<'a>>(&mut self, header: &'a Header, data: R) -> Result<(), Fault> {
        let headers = header.section_headers(LE, data).map_err(|_| Fault::Truncated("section headers"))?;
        if headers.is_empty() {
            return Ok(());
        }
        let names = header.shstrndx(LE, data).ok().and_then(|index| headers.get(index as usize));
        let names = names.and_then(|names| self.bytes(names.sh_offset(LE), names.sh_size(LE))).unwrap_or_default();
        for section in headers.iter().take(MAX_HEADERS) {
            self.sections.push(Section {
                name: string_at(names, section.sh_name(LE) as usize),
                kind: section.sh_type(LE),
                address: section.sh_addr(LE),
                offset: section.sh_offset(LE),
                size: section.sh_size(LE),
                link: section.sh_link(LE) as usize,
                align: section.sh_addralign(LE),
                compressed: section.sh_flags(LE).0 & SHF_COMPRESSED.0 != 0,
            });
        }
        Ok(())
    }

    /// Whether the dynamic section calls a position-independent file a program: by its flag, or by an interpreter without
    /// a library name.
    fn says_program(&self) -> bool {
        let dynamic = self.sections.iter().find(|section| section.kind == SHT_DYNAMIC);
        let bytes = dynamic.and_then(|section| self.section_bytes(section)).unwrap_or_default();
        let (mut flag, mut library) = (false, false);
        for entry in bytes.chunks_exact(16) {
            let [tag, value] = [&entry[..8], &entry[8..]].map(|word| word.try_into().map_or(0, u64::from_le_bytes));
            flag |= tag == DT_FLAGS_1 && value & DF_1_PIE != 0;
            library |= tag == DT_SONAME;
        }
        flag || (self.interpreter && !library)
    }

    /// Bytes of the file, if it has them and the budget allows.
    fn bytes(&self, offset: u64, size: u64) -> Option<&'a [u8]> {
        if size > MAX_SECTION {
            return None;
        }
        self.budget.set(self.budget.get().checked_sub(size)?);
        (self.read)(offset, size)
    }

    /// The section's bytes; none if it has none, or they are not in the file.
    pub(in crate::inspect) fn section_bytes(&self, section: &Section<'_>) -> Option<&'a [u8]> {
        if section.kind == SHT_NOBITS {
            return None;
        }
        self.bytes(section.offset, section.size)
    }

    /// The first section of this name.
    pub(in crate::inspect) fn section(&self, name: &[u8]) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Whether the file holds a section of this name.
    pub(in crate::inspect) fn has(&self, name: &[u8]) -> bool {
        self.section(name).is_some_and(|section| section.in_file())
    }

    /// The lowest address of executable memory.
    pub(in crate::inspect) fn code_start(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.executable).map(|segment| segment.address).min().unwrap_or(0)
    }

    /// Offset in the file of an address in executable memory.
    pub(in crate::inspect) fn code_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.executable && segment.rest(address).is_some())?;
        (address - segment.address).checked_add(segment.offset)
    }

    /// Offset in the file of any address.
    pub(in crate::inspect) fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.rest(address).is_some())?;
        (address - segment.address).checked_add(segment.offset)
    }

    /// What the file holds of a segment, read once; empty if it cannot be read.
    pub(in crate::inspect) fn segment_bytes(&self, segment: &Segment<'a>) -> &'a [u8] {
        segment.bytes.get_or_init(|| self.bytes(segment.offset, segment.file_size).unwrap_or_default())
    }

    /// Initial memory at an address.
    pub(in crate::inspect) fn memory(&self, address: u64, size: usize) -> Option<&'a [u8]> {
        let segment = self.segments.iter().find(|segment| segment.rest(address).is_some())?;
        let start = usize::try_from(address - segment.address).ok()?;
        self.segment_bytes(segment).get(start..start.checked_add(size)?)
    }

    /// All executable bytes.
    pub(in crate::inspect) fn code(&self) -> impl Iterator<Item = Code<'a>> {
        let executable = self.segments.iter().filter(|segment| segment.executable);
        let code = executable.map(|segment| Code { address: segment.address, bytes: self.segment_bytes(segment) });
        code.filter(|code| code.address.checked_add(code.bytes.len() as u64).is_some())
    }

    /// The executable bytes around an address.
    pub(in crate::inspect) fn code_at(&self, address: u64) -> Option<Code<'a>> {
        self.code().find(|code| address.checked_sub(code.address).is_some_and(|into| into < code.bytes.len() as u64))
    }

    /// Takes bytes to decode from what may be decoded in all.
    pub(in crate::inspect) fn spend_decoding(&self, size: u64) -> Option<()> {
        self.decode_budget.set(self.decode_budget.get().checked_sub(size)?);
        Some(())
    }
}

/// Says which machine the file is for if it is the wrong one.
fn check_machine<'a, R: ReadRef<'a>>(data: R, ident: &[u8]) -> Result<(), Fault> {
    let machine = data.read_bytes_at(18, 2).map_err(|()| Fault::Truncated("file header"))?;
    let (wide, little) = (ident[4] == 2, ident[5] == 1);
    let machine = if little { [machine[0], machine[1]] } else { [machine[1], machine[0]] };
    let machine = u16::from_le_bytes(machine);
    if wide && little && machine == EM_X86_64.0 {
        return Ok(());
    }
    let name = match machine {
        3 => "32-bit x86".to_owned(),
        40 => "32-bit ARM".to_owned(),
        62 => "x32".to_owned(),
        183 => "64-bit ARM".to_owned(),
        243 => "RISC-V".to_owned(),
        other => format!("ELF machine {other}"),
    };
    Err(Fault::WrongMachine(name))
}

/// The NUL-terminated string at an offset, empty if there is none.
pub(in crate::inspect) fn string_at(strings: &[u8], offset: usize) -> &[u8] {
    let rest = strings.get(offset..).unwrap_or_default();
    rest.iter().position(|byte| *byte == 0).map_or(&[], |end| &rest[..end])
}

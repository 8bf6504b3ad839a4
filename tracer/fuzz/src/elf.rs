//! A file made of given sections.

/// A section: name, type, flags.
pub type Section = (&'static str, u32, u64);

/// All that the agent looks at in a program. `.text` is at [`CODE`], and the whole file is mapped there and executable.
pub const PROGRAM: [Section; 20] = [
    (".text", 1, 6),
    (".symtab", 2, 0),
    (".strtab", 3, 0),
    (".debug_info", 1, 0),
    (".debug_abbrev", 1, 0),
    (".debug_str", 1, 0),
    (".debug_line", 1, 0),
    (".debug_ranges", 1, 0),
    (".eh_frame", 1, 2),
    (".comment", 1, 0),
    (".note.gnu.build-id", 7, 2),
    (".note.stapsdt", 7, 0),
    (".rela.dyn", 4, 2),
    (".dynsym", 11, 2),
    (".dynstr", 3, 2),
    (".debug_str_offsets", 1, 0),
    (".debug_addr", 1, 0),
    (".debug_rnglists", 1, 0),
    (".debug_line_str", 1, 0),
    (".rodata", 1, 2),
];

/// What is in a program besides code and debug info.
pub const TABLES: [Section; 14] = [
    (".symtab", 2, 0),
    (".strtab", 3, 0),
    (".dynsym", 11, 2),
    (".dynstr", 3, 2),
    (".rela.dyn", 4, 2),
    (".relr.dyn", 19, 2),
    (".got", 1, 3),
    (".dynamic", 6, 3),
    (".rodata", 1, 2),
    (".comment", 1, 0),
    (".note.gnu.build-id", 7, 2),
    (".note.stapsdt", 7, 0),
    (".stapsdt.base", 1, 2),
    (".gnu_debuglink", 1, 0),
];

/// Debug info.
pub const DEBUG: [Section; 9] = [
    (".debug_info", 1, 0),
    (".debug_abbrev", 1, 0),
    (".debug_str", 1, 0),
    (".debug_line", 1, 0),
    (".debug_ranges", 1, 0),
    (".debug_str_offsets", 1, 0),
    (".debug_addr", 1, 0),
    (".debug_rnglists", 1, 0),
    (".debug_line_str", 1, 0),
];

/// The other halves of split units.
pub const SPLIT: [Section; 6] = [
    (".debug_info.dwo", 1, 0),
    (".debug_abbrev.dwo", 1, 0),
    (".debug_str.dwo", 1, 0),
    (".debug_str_offsets.dwo", 1, 0),
    (".debug_rnglists.dwo", 1, 0),
    (".debug_cu_index", 1, 0),
];

/// Address of the first byte of the first section, as in the seeds.
pub const CODE: u64 = 0x1370;

/// Cuts the input into contents.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [low, high, rest @ ..] = bytes {
        let size = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (part, behind) = rest.split_at(size);
        parts.push(part);
        bytes = behind;
    }
    parts
}

/// An executable with these sections and contents.
pub fn from_sections(sections: &[Section], parts: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0; CODE as usize];
    let mut headers = vec![[0_u8; 64]];
    let mut names = vec![0];
    for (index, (name, kind, flags)) in sections.iter().enumerate() {
        let content = parts.get(index).copied().unwrap_or_default();
        // The strings of a table of symbols are behind it.
        let link = if matches!(kind, 2 | 11) { index as u32 + 2 } else { 0 };
        let address = if flags & 2 != 0 { file.len() as u64 } else { 0 };
        headers.push(header(names.len(), *kind, *flags, address, file.len(), content.len(), link));
        names.extend(name.bytes().chain([0]));
        file.extend(content);
    }
    headers.push(header(0, 3, 0, 0, file.len(), names.len(), 0));
    file.extend(&names);
    let table = file.len();
    file.extend(headers.iter().flatten());
    let size = file.len() as u64;
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for (at, bytes) in [
        (16, &3_u16.to_le_bytes()[..]),
        (18, &62_u16.to_le_bytes()),
        (20, &1_u32.to_le_bytes()),
        (32, &64_u64.to_le_bytes()),
        (40, &(table as u64).to_le_bytes()),
        (52, &64_u16.to_le_bytes()),
        (54, &56_u16.to_le_bytes()),
        (56, &2_u16.to_le_bytes()),
        (58, &64_u16.to_le_bytes()),
        (60, &(headers.len() as u16).to_le_bytes()),
        (62, &(headers.len() as u16 - 1).to_le_bytes()),
        // What is loaded.
        (64, &1_u32.to_le_bytes()),
        (68, &5_u32.to_le_bytes()),
        (96, &size.to_le_bytes()),
        (104, &size.to_le_bytes()),
        (112, &4096_u64.to_le_bytes()),
        // Thread-local storage.
        (120, &7_u32.to_le_bytes()),
        (160, &256_u64.to_le_bytes()),
        (168, &8_u64.to_le_bytes()),
    ] {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn header(name: usize, kind: u32, flags: u64, address: u64, offset: usize, size: usize, link: u32) -> [u8; 64] {
    let mut header = [0; 64];
    header[..4].copy_from_slice(&(name as u32).to_le_bytes());
    header[4..8].copy_from_slice(&kind.to_le_bytes());
    for (at, value) in [(8, flags), (16, address), (24, offset as u64), (32, size as u64), (48, 1)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[40..44].copy_from_slice(&link.to_le_bytes());
    header
}

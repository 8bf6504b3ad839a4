//! A `.debug_*` section, read in pieces. A compressed one is unpacked into a file without a name.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::rc::Rc;

use crate::inspect::elf::image::Image;
use crate::inspect::elf::source::ReadAt;

/// The largest section that is unpacked, in bytes.
const MAX_UNPACKED: u64 = 2 << 30;
/// Size of the header of a compressed section.
const HEADER: u64 = 24;

/// Where the bytes are.
#[derive(Clone)]
enum Store<'i> {
    Absent,
    Part { source: &'i dyn ReadAt, offset: u64 },
    Unpacked { file: Rc<File>, offset: u64 },
}

/// One section; empty if the file does not have it.
#[derive(Clone)]
pub(super) struct DebugSection<'i> {
    store: Store<'i>,
    pub(super) size: u64,
}

impl<'i> DebugSection<'i> {
    pub(super) fn open(image: &Image<'i>, name: &str) -> Self {
        let Some(section) = image.section(name.as_bytes()).filter(|section| section.in_file()) else {
            return Self::absent();
        };
        let part = Self { store: Store::Part { source: image.source, offset: section.offset }, size: section.size };
        if !section.compressed {
            return part;
        }
        part.unpack().map_or(Self::absent(), |(file, size)| Self {
            store: Store::Unpacked { file: Rc::new(file), offset: 0 },
            size,
        })
    }

    pub(super) fn absent() -> Self {
        Self { store: Store::Absent, size: 0 }
    }

    /// A part of it as a section of its own; empty if it is not all there.
    pub(super) fn part(&self, start: u64, size: u64) -> Self {
        let mut part = self.clone();
        part.size = size;
        let inside = start.checked_add(size).is_some_and(|end| end <= self.size);
        match &mut part.store {
            Store::Part { offset, .. } | Store::Unpacked { offset, .. } if inside => {
                // What does not fit a file is not in it.
                *offset = offset.saturating_add(start);
                part
            }
            _ => Self::absent(),
        }
    }

    /// Fills the buffer from an offset of the section.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(buffer.len() as u64)?;
        let read = end <= self.size
            && match &self.store {
                Store::Absent => false,
                Store::Part { source, offset: start } => source.read_at(start.checked_add(offset)?, buffer),
                Store::Unpacked { file, offset: start } => file.read_at(start.checked_add(offset)?, buffer),
            };
        read.then_some(())
    }

    /// As many bytes from an offset on as there are, up to `most`.
    pub(super) fn read_up_to(&self, offset: u64, most: usize) -> Option<Vec<u8>> {
        let rest = usize::try_from(self.size.checked_sub(offset)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(most)];
        self.read_into(offset, &mut bytes)?;
        Some(bytes)
    }

    /// The NUL-terminated text at an offset.
    pub(super) fn text(&self, offset: u64) -> Option<String> {
        const LONGEST: usize = 16 << 10;
        for most in [256, LONGEST] {
            let mut bytes = self.read_up_to(offset, most)?;
            if let Some(end) = memchr::memchr(0, &bytes) {
                bytes.truncate(end);
                return String::from_utf8(bytes).ok();
            }
        }
        None
    }

    /// A little-endian number of four bytes.
    pub(super) fn word(&self, offset: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read_into(offset, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// A little-endian number of eight bytes.
    pub(super) fn long(&self, offset: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read_into(offset, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    fn unpack(&self) -> Option<(File, u64)> {
        let kind = self.word(0)?;
        let size = self.long(8)?;
        // No method packs better than this.
        if size > MAX_UNPACKED || size > self.size.saturating_mul(40_000) {
            return None;
        }
        let packed = io::BufReader::with_capacity(1 << 20, Packed { section: self, at: HEADER });
        let mut unpacked: Box<dyn Read + '_> = match kind {
            1 => Box::new(flate2::bufread::ZlibDecoder::new(packed)),
            2 => Box::new(ruzstd::decoding::StreamingDecoder::new(packed).ok()?),
            _ => return None,
        };
        let directory = std::env::temp_dir();
        let mut file =
            File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(directory).ok()?;
        let written = io::copy(&mut unpacked.by_ref().take(size), &mut file).ok()?;
        (written == size).then_some((file, size))
    }
}

/// The packed bytes of a section as a stream.
struct Packed<'s, 'i> {
    section: &'s DebugSection<'i>,
    at: u64,
}

impl Read for Packed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.section.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let size = rest.min(buffer.len());
        self.section.read_into(self.at, &mut buffer[..size]).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += size as u64;
        Ok(size)
    }
}

//! Debug info that was split off: found by build-id or by `.gnu_debuglink`, and taken only if it is that of the very file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::image::{Image, string_at};
use super::notes;

/// Where distributions put debug info.
const SYSTEM: &str = "/usr/lib/debug";

/// Files that may have the debug info of a file, best first.
pub(super) fn candidates(path: &Path, image: &Image<'_>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(id) = notes::build_id(image).map(hex::encode).filter(|id| id.len() > 2) {
        found.push(Path::new(SYSTEM).join(".build-id").join(&id[..2]).join(format!("{}.debug", &id[2..])));
        found.extend(downloads().map(|cache| cache.join(&id).join("debuginfo")));
    }
    let link = image.section(b".gnu_debuglink").and_then(|section| image.section_bytes(section)).unwrap_or_default();
    let name = Path::new(OsStr::from_bytes(string_at(link, 0)));
    // A name, not a path: it could lead anywhere.
    if let (Some(name), Some(folder)) = (name.file_name().filter(|file| *file == name.as_os_str()), path.parent()) {
        found.push(folder.join(name));
        found.push(folder.join(".debug").join(name));
        if let Ok(folder) = folder.strip_prefix("/") {
            found.push(Path::new(SYSTEM).join(folder).join(name));
        }
    }
    found
}

/// Where the client of debuginfod keeps what it has downloaded.
fn downloads() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DEBUGINFOD_CACHE_PATH").or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(cache.join("debuginfod_client"))
    })
}

/// Whether a file has the debug info of another one: by build-id, else by the checksum in the link to it.
pub(super) fn belongs(image: &Image<'_>, debug: &Image<'_>, file: &File) -> bool {
    match (notes::build_id(image), notes::build_id(debug)) {
        (Some(one), Some(other)) => one == other,
        _ => checksum(image).is_some_and(|expected| crc(file) == Some(expected)),
    }
}

/// The checksum in `.gnu_debuglink`: behind the name, at the next multiple of four.
fn checksum(image: &Image<'_>) -> Option<u32> {
    let bytes = image.section_bytes(image.section(b".gnu_debuglink")?)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let at = (end + 1).next_multiple_of(4);
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn crc(mut file: &File) -> Option<u32> {
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(crc.sum()),
            size => crc.update(&buffer[..size]),
        }
    }
}

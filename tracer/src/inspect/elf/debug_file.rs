//! Debug info that was split off: found by build-id or by `.gnu_debuglink`, and taken only if it is that of the very file; and the
//! files of split units, in a package beside the program or where they were built.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use object::ReadCache;

use crate::files;
use crate::inspect::elf::image::{Image, string_at};
use crate::inspect::{notes, open};

/// Where distributions put debug info.
const SYSTEM: &str = "/usr/lib/debug";

/// Files that may have the debug info of a file, best first.
pub(in crate::inspect) fn candidates(path: &Path, image: &Image<'_>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(id) = notes::build_id(image).map(hex::encode).filter(|id| id.len() > 2) {
        found.push(Path::new(SYSTEM).join(".build-id").join(&id[..2]).join(format!("{}.debug", &id[2..])));
        found.extend(downloads().map(|cache| cache.join(&id).join("debuginfo")));
    }
    let (place, named) = (place(path), named(path));
    if let (Some(name), Some(folder)) = (link(image), place.parent()) {
        found.push(folder.join(name));
        found.push(folder.join(".debug").join(name));
        if let Some(Ok(folder)) = named.parent().map(|folder| folder.strip_prefix("/")) {
            found.push(Path::new(SYSTEM).join(folder).join(name));
        }
    }
    found
}

/// The name in `.gnu_debuglink`.
pub(in crate::inspect) fn link<'a>(image: &Image<'a>) -> Option<&'a OsStr> {
    let bytes = image.section_bytes(image.section(b".gnu_debuglink")?)?;
    let name = Path::new(OsStr::from_bytes(string_at(bytes, 0)));
    // A name, not a path: it could lead anywhere.
    name.file_name().filter(|file| *file == name.as_os_str())
}

/// Where a file is in the file system of those who run it: the program of a process is `/proc/PID/exe` for us, its libraries are in
/// `/proc/PID/map_files` or below `/proc/PID/root`.
fn named(path: &Path) -> PathBuf {
    let Some(root) = root(path) else { return path.to_owned() };
    match path.strip_prefix(root) {
        Ok(inside) => Path::new("/").join(inside),
        Err(_) => path.read_link().unwrap_or_else(|_| path.to_owned()),
    }
}

/// Where we find what they see there. What is below `/proc/PID/root` is opened inside that file system (see [`files`]).
fn place(path: &Path) -> PathBuf {
    let named = named(path);
    match root(path).zip(named.strip_prefix("/").ok()) {
        Some((root, inside)) => root.join(inside),
        None => named,
    }
}

/// The root of their file system, if it may be another one.
fn root(path: &Path) -> Option<PathBuf> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let process = parts.next()?.as_os_str();
    let kind = parts.next()?.as_os_str().to_str()?;
    matches!(kind, "exe" | "root" | "map_files").then(|| Path::new("/proc").join(process).join("root"))
}

/// A file that is read through a cache.
pub(in crate::inspect) type Opened = (ReadCache<File>, File);

/// Where the entries of a program's split units are looked for.
#[derive(Clone, Copy)]
pub(in crate::inspect) struct Elsewhere<'p> {
    /// The program; none if only its bytes are known, and then nothing is looked for.
    pub(in crate::inspect) program: Option<&'p Path>,
}

impl Elsewhere<'_> {
    /// The package beside the program.
    pub(in crate::inspect) fn package(self) -> Option<Opened> {
        package_path(self.program?).and_then(|path| open(&path).ok())
    }

    /// The file with the entries of a unit: where the compiler has put it, else beside the program.
    pub(in crate::inspect) fn object(self, directory: Option<&str>, name: &str) -> Option<Opened> {
        let program = self.program?;
        let built = directory.map_or_else(|| PathBuf::from(name), |directory| Path::new(directory).join(name));
        // The program says where, and anybody can have written it: nothing but debug info is opened.
        let file = built.file_name().filter(|_| built.extension().is_some_and(|extension| extension == "dwo"))?;
        // A name of another file system means nothing in ours.
        let visible = match root(program) {
            Some(root) => built.strip_prefix("/").ok().map(|built| root.join(built)),
            None => Some(built.clone()).filter(|path| path.is_absolute()),
        };
        let beside = place(program).parent().map(|folder| folder.join(file));
        let candidates = [visible, beside];
        candidates.into_iter().flatten().find_map(|path| open(&path).ok())
    }
}

/// The package of split units that belongs to a program, if there is one.
pub(in crate::inspect) fn package_path(program: &Path) -> Option<PathBuf> {
    let named = |path: PathBuf| {
        let mut name = path.into_os_string();
        name.push(".dwp");
        PathBuf::from(name)
    };
    // The program may be called by a link to it.
    let real = program.canonicalize().ok().filter(|_| root(program).is_none());
    [Some(place(program)), real].into_iter().flatten().map(named).find(|path| files::size(path).is_some())
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
pub(in crate::inspect) fn belongs(image: &Image<'_>, debug: &Image<'_>, file: &File) -> bool {
    match (notes::build_id(image), notes::build_id(debug)) {
        (Some(one), Some(other)) => one == other,
        _ => checksum(image).is_some_and(|expected| crc(file) == Some(expected)),
    }
}

/// The checksum in `.gnu_debuglink`: behind the name, at the next multiple of four.
pub(in crate::inspect) fn checksum(image: &Image<'_>) -> Option<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_process_is_where_that_process_has_it() {
        let program = std::env::current_exe().expect("a test has a path");
        let id = std::process::id();
        assert_eq!(named(Path::new(&format!("/proc/{id}/exe"))), program);
        let place = place(Path::new(&format!("/proc/{id}/exe")));
        assert_eq!(place, Path::new(&format!("/proc/{id}/root{}", program.display())));
        assert!(place.is_file());
        assert_eq!(named(Path::new(&format!("/proc/{id}/root/lib/some.so"))), Path::new("/lib/some.so"));
        let mapping = Path::new("/proc/1/map_files/400000-401000");
        assert_eq!(root(mapping), Some(PathBuf::from("/proc/1/root")));
        assert_eq!(super::place(&program), program);
    }
}

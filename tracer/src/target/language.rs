//! What language a program is written in, by the semantic conventions' names, where that is certain.

use std::fs::File;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, ReadCache};

use crate::files;

/// Interpreters and virtual machines, by the beginning of the executable's name: what they run is not in their own language.
const INTERPRETERS: [(&str, &str); 7] = [
    ("python", "python"),
    ("node", "nodejs"),
    ("java", "java"),
    ("ruby", "ruby"),
    ("php", "php"),
    ("dotnet", "dotnet"),
    ("beam.smp", "erlang"),
];
/// Compilers leave a line for each object at most; a longer section is none of theirs, in bytes.
const MAX_COMMENT: u64 = 1 << 20;

/// The language of the program `executable`, which can be opened by the name `open_as`.
pub(super) fn language(executable: &Path, open_as: &Path) -> Option<&'static str> {
    let name = executable.file_name()?.to_str()?;
    // `python3.13`, but not `nodetool`.
    let is = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    if let Some((_, language)) = INTERPRETERS.iter().find(|(prefix, _)| is(prefix)) {
        return Some(language);
    }
    compiled(files::open(open_as).ok()?)
}

/// rustc and Go leave their marks; C and C++ cannot be told apart.
fn compiled(file: File) -> Option<&'static str> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<LittleEndian, _>::parse(&cache).ok()?;
    if elf.section_by_name(".go.buildinfo").is_some() {
        return Some("go");
    }
    let comment = elf.section_by_name(".comment").filter(|section| section.size() <= MAX_COMMENT)?;
    let bytes = comment.data().ok()?;
    memchr::memmem::find(bytes, b"rustc version ").map(|_| "rust")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::language;

    #[test]
    fn a_program_is_told_by_its_interpreter_or_its_compiler() {
        let me = std::env::current_exe().expect("its name");
        assert_eq!(language(&me, Path::new("/proc/self/exe")), Some("rust"));
        let named = |name: &str| language(Path::new(name), Path::new("/bin/sh"));
        assert_eq!(named("/usr/bin/python3.13"), Some("python"));
        assert_eq!(named("/opt/node"), Some("nodejs"));
        assert_eq!(named("/opt/nodetool"), None, "C");
        assert_eq!(named("/bin/sh"), None);
        assert_eq!(language(&me, Path::new("/proc/version")), None);
    }
}

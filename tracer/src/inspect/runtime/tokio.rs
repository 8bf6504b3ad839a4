//! Where a program's tokio keeps the id of the current task: in its thread-local `CONTEXT`, at an offset that the compiler
//! chose. The offset is known for the versions of [`table`]; the version is in the paths of panic messages, which stay in
//! release builds and in stripped ones.

mod table;

use memchr::memmem;

use crate::inspect::elf::image::Image;

/// What precedes the minor version in the path of a source file of tokio 1.
const PATH: &[u8] = b"/tokio-1.";
/// Longest version behind it that is looked at, in bytes.
const LONGEST: usize = 16;

/// The id's offset in the variable in bytes; `size` is the variable's, which has to be that of the version's layout.
pub(in crate::inspect) fn task_id_offset(image: &Image<'_>, size: u64) -> Option<u32> {
    let minor = minor_version(image)?;
    let &(_, known, offset) = table::TABLE.iter().find(|(known, ..)| *known == minor)?;
    (known == size).then_some(offset)
}

/// The minor version of the one tokio 1 in the file; none where there are several.
fn minor_version(image: &Image<'_>) -> Option<u16> {
    let section = image.section(b".rodata")?;
    let bytes = image.section_bytes(section)?;
    let mut found = None;
    for at in memmem::find_iter(bytes, PATH) {
        let Some(minor) = minor_at(&bytes[at + PATH.len()..]) else { continue };
        if found.is_some_and(|found| found != minor) {
            return None;
        }
        found = Some(minor);
    }
    found
}

/// `54` of `54.1/src/runtime/...`.
fn minor_at(rest: &[u8]) -> Option<u16> {
    let version = &rest[..rest.len().min(LONGEST)];
    let end = memmem::find(version, b"/")?;
    let mut numbers = version[..end].split(|byte| *byte == b'.');
    let number = |text: Option<&[u8]>| std::str::from_utf8(text?).ok()?.parse::<u16>().ok();
    let minor = number(numbers.next())?;
    number(numbers.next())?;
    Some(minor)
}

#[cfg(test)]
mod tests {
    use super::{minor_at, table::TABLE};

    #[test]
    fn a_path_names_the_minor_version() {
        assert_eq!(minor_at(b"54.1/src/runtime/mod.rs"), Some(54));
        for other in
            [&b""[..], b"54", b"54/src", b"x.1/src", b"54.1-beta/src", b"99999999.1/src", b"54.11111111111111111111/"]
        {
            assert_eq!(minor_at(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn every_known_id_is_inside_its_variable() {
        assert!(!TABLE.is_empty());
        assert!(TABLE.iter().all(|(_, size, offset)| u64::from(*offset) + 8 <= *size));
        assert!(TABLE.is_sorted_by_key(|(minor, ..)| *minor));
    }
}

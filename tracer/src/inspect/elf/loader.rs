//! The dynamic loader: where it says that it has loaded libraries.

use std::fs::File;

use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

/// A loader is not larger.
const MAX_SIZE: u64 = 16 << 20;

/// File offset of the empty function that the loaders of glibc and musl call when the list of libraries has changed.
pub fn loaded_offset(file: &File) -> Option<u64> {
    if file.metadata().ok()?.len() > MAX_SIZE {
        return None;
    }
    let cache = ReadCache::new(file.try_clone().ok()?);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let symbol =
        elf.dynamic_symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok("_dl_debug_state"))?;
    let address = symbol.address();
    elf.segments().find_map(|segment| {
        let into = address.checked_sub(segment.address())?;
        let (offset, size) = segment.file_range();
        (into < size).then(|| offset + into)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loader_of_this_program_has_it_and_the_program_does_not() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("my mappings");
        let loader = maps.split_whitespace().find(|word| word.contains("/ld-linux")).expect("it is mapped");
        let open = |path: &str| std::fs::File::open(path).expect("a file");
        assert!(super::loaded_offset(&open(loader)).is_some_and(|offset| offset > 0));
        assert_eq!(super::loaded_offset(&open("/proc/self/exe")), None);
    }
}

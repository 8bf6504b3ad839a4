//! Notes: the build-id and USDT probes.

use crate::inspect::code::function::emulated_at;
use crate::inspect::elf::image::{Image, string_at};
use crate::inspect::plan::{Semaphore, Site, UsdtNote};

/// More notes than this are not the work of people.
const MAX_NOTES: usize = 16_384;

/// A note of an ELF note section.
struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    body: &'a [u8],
}

/// Splits a note section. Ends where the section does not go on as one.
fn split<'a>(mut bytes: &'a [u8], align: u64) -> impl Iterator<Item = Note<'a>> {
    let align = if align == 8 { 8 } else { 4 };
    std::iter::from_fn(move || {
        let name_size = u32_at(bytes, 0)? as usize;
        let body_size = u32_at(bytes, 4)? as usize;
        let kind = u32_at(bytes, 8)?;
        let name = bytes.get(12..12_usize.checked_add(name_size)?)?;
        let start = 12_usize.checked_add(name_size)?.checked_next_multiple_of(align)?;
        let body = bytes.get(start..start.checked_add(body_size)?)?;
        let next = start.checked_add(body_size)?.checked_next_multiple_of(align)?;
        bytes = bytes.get(next..).unwrap_or_default();
        Some(Note { name: name.strip_suffix(b"\0").unwrap_or(name), kind, body })
    })
    .take(MAX_NOTES)
}

/// The GNU build-id.
pub(in crate::inspect) fn build_id(image: &Image<'_>) -> Option<Vec<u8>> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let section = image.section(b".note.gnu.build-id")?;
    let bytes = image.section_bytes(section)?;
    let note = split(bytes, section.align).find(|note| note.name == b"GNU" && note.kind == NT_GNU_BUILD_ID)?;
    (1..=64).contains(&note.body.len()).then(|| note.body.to_vec())
}

/// The USDT probes. Notes of functions that the linker dropped lead nowhere and are left out.
pub(in crate::inspect) fn usdt(image: &Image<'_>) -> Vec<UsdtNote> {
    const NT_STAPSDT: u32 = 3;
    let Some(section) = image.section(b".note.stapsdt") else {
        return Vec::new();
    };
    let base = image.section(b".stapsdt.base").map(|section| section.address);
    let bytes = image.section_bytes(section).unwrap_or_default();
    let notes = split(bytes, section.align).filter(|note| note.name == b"stapsdt" && note.kind == NT_STAPSDT);
    notes.filter_map(|note| probe(image, base, note.body)).collect()
}

fn probe(image: &Image<'_>, base: Option<u64>, body: &[u8]) -> Option<UsdtNote> {
    let [location, noted_base, semaphore] = [u64_at(body, 0)?, u64_at(body, 8)?, u64_at(body, 16)?];
    // The linker has moved everything by as much as it has moved the base section.
    let moved = base.map_or(0, |base| base.wrapping_sub(noted_base));
    let mut strings = body.get(24..)?;
    let mut next = || {
        let text = string_at(strings, 0);
        strings = strings.get(text.len() + 1..).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    let (provider, name, arguments) = (next(), next(), next());
    let address = location.wrapping_add(moved);
    let site = Site { offset: image.code_offset(address)?, address, sp_delta: 0, cheap: emulated_at(image, address) };
    let semaphore = (semaphore != 0).then(|| semaphore.wrapping_add(moved));
    let semaphore = semaphore.and_then(|address| Some(Semaphore { offset: image.file_offset(address)?, address }));
    Some(UsdtNote { provider, name, site, semaphore, arguments })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

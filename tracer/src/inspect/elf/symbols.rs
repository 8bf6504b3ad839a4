//! Symbol tables: functions by address, thread-local variables, and names when asked for.

use std::fmt::{self, Write as _};

use object::elf::{SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC, STT_TLS, SymbolType};

use crate::inspect::elf::debug_data::DebugData;
use crate::inspect::elf::image::{Image, Section, string_at};
use crate::inspect::plan::SymbolSource;

const ENTRY: usize = 24;
/// Symbols of a table beyond this many are not looked at.
const MAX_SYMBOLS: usize = 4 << 20;

/// A defined function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::inspect) struct Func {
    pub(in crate::inspect) address: u64,
    /// In bytes, `u32::MAX` if more.
    size: u32,
    name: u32,
    pub(in crate::inspect) dynamic: bool,
}

/// A defined thread-local variable.
#[derive(Clone, Copy, Debug)]
pub(in crate::inspect) struct TlsVariable {
    pub(in crate::inspect) offset: u64,
    pub(in crate::inspect) size: u64,
    pub(in crate::inspect) dynamic: bool,
    /// Index in its table.
    pub(in crate::inspect) index: u32,
    name: u32,
}

/// Both symbol tables of a file.
#[derive(Default)]
pub(in crate::inspect) struct Symbols<'a> {
    /// By address.
    functions: Vec<Func>,
    pub(in crate::inspect) variables: Vec<TlsVariable>,
    strings: &'a [u8],
    dynamic_strings: &'a [u8],
    /// Values of the dynamic symbols, by index; zero if undefined.
    dynamic_values: Vec<u64>,
    /// Where the full table is.
    pub(in crate::inspect) source: SymbolSource,
    /// A table was announced but could not be read.
    pub(in crate::inspect) damaged: bool,
}

struct Entry {
    name: u32,
    kind: SymbolType,
    defined: bool,
    value: u64,
    size: u64,
}

impl<'a> Symbols<'a> {
    /// Reads them; the full one can be in the file with the debug info, or packed into the file as its mini debug info.
    pub(in crate::inspect) fn read(image: &Image<'a>, debug: Option<&Image<'a>>, mini: &'a DebugData) -> Self {
        let mut symbols = Self::default();
        let unpacked = match mini {
            DebugData::Unpacked(bytes) => Image::parse_any(bytes.as_slice(), bytes).ok(),
            DebugData::Absent | DebugData::Damaged => None,
        };
        let table = |image: &Image<'a>, kind| {
            image.sections.iter().find(|section| section.kind == kind && section.in_file()).copied()
        };
        let holders = [
            (SymbolSource::File, Some(image)),
            (SymbolSource::DebugFile, debug),
            (SymbolSource::DebugData, unpacked.as_ref()),
        ];
        let full =
            holders.into_iter().find_map(|(source, holder)| Some((source, holder?, table(holder?, SHT_SYMTAB)?)));
        if let Some((source, holder, section)) = full {
            symbols.source = source;
            symbols.damaged |= symbols.add_table(image, holder, &section, false).is_none();
        } else if !matches!(mini, DebugData::Absent) {
            symbols.damaged = true;
        }
        if let Some(section) = table(image, SHT_DYNSYM) {
            symbols.damaged |= symbols.add_table(image, image, &section, true).is_none();
        }
        symbols.functions.sort_unstable();
        symbols
    }

    fn add_table(&mut self, image: &Image<'a>, holder: &Image<'a>, section: &Section<'a>, dynamic: bool) -> Option<()> {
        let entries = holder.section_bytes(section)?;
        let strings = holder.section_bytes(holder.sections.get(section.link)?)?;
        if dynamic {
            self.dynamic_strings = strings;
        } else {
            self.strings = strings;
        }
        for (index, entry) in entries.chunks_exact(ENTRY).enumerate().take(MAX_SYMBOLS) {
            let entry = Entry::read(entry)?;
            if dynamic {
                self.dynamic_values.push(if entry.defined { entry.value } else { 0 });
            }
            if !entry.defined {
                continue;
            }
            match entry.kind {
                STT_FUNC | STT_GNU_IFUNC if image.code_offset(entry.value).is_some() => self.functions.push(Func {
                    address: entry.value,
                    size: u32::try_from(entry.size).unwrap_or(u32::MAX),
                    name: entry.name,
                    dynamic,
                }),
                STT_TLS => self.variables.push(TlsVariable {
                    offset: entry.value,
                    size: entry.size,
                    dynamic,
                    index: index as u32,
                    name: entry.name,
                }),
                _ => {}
            }
        }
        Some(())
    }

    /// Whether there are functions of rustls: both manglings write the length of a crate's name before it.
    pub(in crate::inspect) fn has_rustls(&self) -> bool {
        self.functions.iter().any(|function| memchr::memmem::find(self.name(function).as_bytes(), b"6rustls").is_some())
    }

    /// All functions, by address.
    pub(in crate::inspect) fn functions(&self) -> &[Func] {
        &self.functions
    }

    /// The functions that begin at an address.
    pub(in crate::inspect) fn at(&self, address: u64) -> &[Func] {
        let start = self.functions.partition_point(|function| function.address < address);
        let rest = &self.functions[start..];
        &rest[..rest.partition_point(|function| function.address == address)]
    }

    /// The size of the function that begins at an address: that of the longest symbol there.
    pub(in crate::inspect) fn size_at(&self, address: u64) -> u64 {
        self.at(address).iter().map(|function| function.size).max().unwrap_or_default().into()
    }

    /// Start and size of the function around an address.
    pub(in crate::inspect) fn around(&self, address: u64) -> Option<(u64, u64)> {
        let behind = self.functions.partition_point(|function| function.address <= address);
        let start = self.functions[..behind].last()?.address;
        let size = self.size_at(start);
        (address - start < size).then_some((start, size))
    }

    /// Whether other objects can call the function at an address.
    pub(in crate::inspect) fn exported(&self, address: u64) -> bool {
        self.at(address).iter().any(|function| function.dynamic)
    }

    /// The value of a dynamic symbol, if it is defined here.
    pub(in crate::inspect) fn dynamic_value(&self, index: u32) -> Option<u64> {
        self.dynamic_values.get(index as usize).copied().filter(|value| *value != 0)
    }

    /// The function's name as the symbol table has it.
    pub(in crate::inspect) fn name(&self, function: &Func) -> &'a str {
        self.string(function.name, function.dynamic)
    }

    /// The variable's name as the symbol table has it.
    pub(in crate::inspect) fn variable_name(&self, variable: &TlsVariable) -> &'a str {
        self.string(variable.name, variable.dynamic)
    }

    fn string(&self, offset: u32, dynamic: bool) -> &'a str {
        let strings = if dynamic { self.dynamic_strings } else { self.strings };
        std::str::from_utf8(string_at(strings, offset as usize)).unwrap_or_default()
    }
}

impl Entry {
    fn read(bytes: &[u8]) -> Option<Self> {
        let section = u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?);
        Some(Self {
            name: u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?),
            kind: SymbolType(bytes.get(4)? & 0xf),
            defined: section != 0,
            value: u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?),
            size: u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
        })
    }
}

/// The symbol's name for people, without its hash; empty if it is no Rust symbol.
pub(in crate::inspect) fn demangle(name: &str) -> String {
    if name.len() > MAX_NAME {
        return String::new();
    }
    let Ok(name) = rustc_demangle::try_demangle(name) else { return String::new() };
    let mut text = Bounded(String::new());
    write!(text, "{name:#}").map_or_else(|_| String::new(), |()| text.0)
}

/// Longer names are nested generics without end; nobody could read them.
const MAX_NAME: usize = 16 << 10;

/// Ends the writing of a name that has become too long: by references to its own parts, a short symbol can stand for megabytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn a_symbol_that_stands_for_megabytes_has_no_name() {
        assert_eq!(demangle("_RNvC1a1b"), "a::b");
        // Each tuple has the one before it twice.
        let bomb = (0..20).fold(("_RINvC1a1bTuuE".to_owned(), "7_".to_owned()), |(mut name, part), _| {
            let at = name.len() - 2;
            name.push_str(&format!("TB{part}B{part}E"));
            (name, format!("{}_", base_62(at - 1)))
        });
        let bomb = format!("{}E", bomb.0);
        assert!(rustc_demangle::try_demangle(&bomb).is_ok(), "{bomb}");
        assert_eq!(demangle(&bomb), "", "{bomb}");
    }

    fn base_62(number: usize) -> String {
        let digit = |digit| char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit]);
        if number < 62 { digit(number).into() } else { format!("{}{}", base_62(number / 62), digit(number % 62)) }
    }
}

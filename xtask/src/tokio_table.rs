//! `cargo xtask tokio-table`: where each tokio version keeps the id of the current task.
//!
//! The agent reads it from tokio's thread-local `CONTEXT`. Its layout is the compiler's choice, so it is measured: a program of
//! each version is built with debug information, which says the offset.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian, Reader as _};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::{run, workspace};

/// Minor versions of tokio 1 to look at. Since 1.29 the variable has a constant initial value, so the standard library keeps it
/// at the start of its storage.
const MINORS: std::ops::RangeInclusive<u16> = 29..=54;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// `cargo xtask tokio-table`.
pub fn main() -> Result<()> {
    let rustc = Command::new("rustc").arg("--version").output().context("cannot run rustc")?;
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    let mut table = format!(
        "//! Made by `cargo xtask tokio-table` with {rustc}.\n\n\
         /// Minor version of tokio 1, size of the thread-local variable, offset of the task id in it; both in bytes.\n\
         pub(super) const TABLE: &[(u16, u64, u32)] = &[\n"
    );
    for minor in MINORS {
        let dir = workspace::target().join("tokio-table");
        match measure(&dir, minor) {
            Ok((size, offset)) => {
                writeln!(table, "    ({minor}, {size}, {offset}),")?;
                println!("tokio 1.{minor}: {offset} of {size} bytes");
            }
            Err(error) => println!("tokio 1.{minor}: left out: {error:#}"),
        }
    }
    table.push_str("];\n");
    fs::write(workspace::root().join("tracer/src/inspect/runtime/tokio/table.rs"), table)
        .context("cannot write the table")
}

/// Size of the variable and offset of the task id, as the debug information of a program with this tokio says.
fn measure(dir: &Path, minor: u16) -> Result<(u64, u64)> {
    let package = dir.join(format!("v{minor}"));
    fs::create_dir_all(package.join("src"))?;
    fs::write(
        package.join("Cargo.toml"),
        format!(
            "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n\
             tokio = {{ version = \"~1.{minor}\", features = [\"rt-multi-thread\"] }}\n"
        ),
    )?;
    fs::write(
        package.join("src/main.rs"),
        "fn main() {\n    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();\n    \
         runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });\n}\n",
    )?;
    let mut build = Command::new("cargo");
    build.arg("build").arg("--quiet").current_dir(&package).env("CARGO_TARGET_DIR", dir.join("build"));
    run::output(&mut build)?;
    let bytes = fs::read(dir.join("build/debug/probe"))?;
    let file = object::File::parse(&*bytes)?;
    let variable = file.symbols().find(|symbol| {
        symbol.name().is_ok_and(|name| name.contains("tokio7runtime7context7CONTEXT"))
            && symbol.kind() == object::SymbolKind::Tls
    });
    let size = variable.context("the program has no CONTEXT")?.size();
    let section = |id: gimli::SectionId| -> Result<Slice<'_>> {
        let data = file.section_by_name(id.name()).map(|section| section.data()).transpose()?;
        Ok(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(section)?;
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            if entry.tag() == gimli::DW_TAG_member
                && name_is(&dwarf, &unit, entry, b"current_task_id")
                && let Some(AttributeValue::Udata(offset)) = entry.attr_value(gimli::DW_AT_data_member_location)
            {
                return Ok((size, offset));
            }
        }
    }
    bail!("the debug information has no current_task_id")
}

fn name_is(
    dwarf: &gimli::Dwarf<Slice<'_>>,
    unit: &gimli::Unit<Slice<'_>>,
    entry: &DebuggingInformationEntry<Slice<'_>>,
    name: &[u8],
) -> bool {
    let Some(value) = entry.attr_value(gimli::DW_AT_name) else { return false };
    dwarf.attr_string(unit, value).is_ok_and(|text| text.to_slice().is_ok_and(|text| *text == *name))
}

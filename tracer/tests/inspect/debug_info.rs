//! Debug info in all the places and forms that it can have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tracer::inspect::render::table;
use tracer::inspect::{ExitKind, ProbePlan, RemarkKind, SymbolSource, inspect_bytes, inspect_file};

use crate::sample::{FAT_LTO, FAT_LTO_LINES, LEGACY, PACKED, PACKED_UNITS, UNITS, UNPACKED, UNPACKED_UNITS, V0};

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn objcopy(arguments: &[&str], from: &Path, to: &Path) -> PathBuf {
    run(Command::new("objcopy").args(arguments).arg(from).arg(to));
    to.to_owned()
}

fn inlined(plan: &ProbePlan) -> usize {
    plan.messages.iter().filter(|function| function.exit_kind == ExitKind::Inlined).count()
}

/// Sites and what they mean, as text.
fn messages(plan: &ProbePlan) -> String {
    serde_json::to_string(&plan.messages).unwrap()
}

#[test]
fn line_tables_say_where_calls_are_inlined() {
    let plan = FAT_LTO_LINES.plan();
    assert!(inlined(&plan) > 50, "{} inlined calls", inlined(&plan));
    assert_eq!(inlined(&FAT_LTO.plan()), 0, "nothing says where");
    for function in plan.messages.iter().filter(|function| function.exit_kind == ExitKind::Inlined) {
        let call = function.call.as_ref().unwrap();
        assert!(call.file.as_deref().unwrap().ends_with("inspect-sample/src/main.rs"), "{call:?}");
        assert!(call.line.is_some() && call.function.is_some(), "{call:?}");
        assert!(function.message_type.as_deref().unwrap().starts_with("inspect_sample::"), "{function:?}");
    }
    // Functions whose symbols have no type get it from there too.
    assert!(plan.messages.iter().all(|function| function.message_type.is_some()));
}

#[test]
fn compressed_debug_info_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let expected = messages(&FAT_LTO_LINES.plan());
    for method in ["zlib", "zstd"] {
        let flag = format!("--compress-debug-sections={method}");
        let packed = objcopy(&[&flag], &FAT_LTO_LINES.path(), &folder.path().join(method));
        assert_eq!(messages(&inspect_file(&packed).unwrap()), expected, "{method}");
    }
}

#[test]
fn debug_info_that_was_split_off_is_found_if_it_is_the_files_own() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let whole = FAT_LTO_LINES.path();
    let debug = objcopy(&["--only-keep-debug"], &whole, &place("service.debug"));
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let stripped = objcopy(&["--strip-all", &link], &whole, &place("service"));
    let plan = inspect_file(&stripped).unwrap();
    assert_eq!(messages(&plan), messages(&FAT_LTO_LINES.plan()));
    assert!(plan.has_dwarf && !plan.stripped);

    // Another program's debug info in its place.
    std::fs::remove_file(&debug).unwrap();
    assert!(inspect_file(&stripped).unwrap().stripped);
    objcopy(&["--only-keep-debug"], &LEGACY.path(), &debug);
    assert!(inspect_file(&stripped).unwrap().stripped);
}

/// A stripped copy with mini debug info, made as Fedora makes it: the functions that the dynamic symbols lack, packed by `xz`.
fn with_mini_debug_info(whole: &Path, folder: &Path, xz: &[&str]) -> PathBuf {
    let names = |arguments: &[&str], kinds: &str| {
        let output =
            Command::new("nm").args(arguments).args(["--format=posix", "--defined-only"]).arg(whole).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let symbols = text.lines().filter_map(|line| line.split_once(' '));
        symbols
            .filter(|(_, rest)| rest.starts_with(|kind| kinds.contains(kind)))
            .map(|(name, _)| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let kept = &names(&[], "Tt") - &names(&["-D"], "TtWwDdBbRrVvi");
    std::fs::write(folder.join("kept"), kept.into_iter().collect::<Vec<_>>().join("\n")).unwrap();
    let debug = objcopy(&["--only-keep-debug"], whole, &folder.join("debug"));
    let keep = format!("--keep-symbols={}", folder.join("kept").display());
    let mini = objcopy(
        &["-S", "--remove-section=.gdb_index", "--remove-section=.comment", &keep],
        &debug,
        &folder.join("mini"),
    );
    run(Command::new("xz").args(["--force", "--keep"]).args(xz).arg(&mini));
    let section = format!("--add-section=.gnu_debugdata={}", folder.join("mini.xz").display());
    objcopy(&["--strip-all", &section], whole, &folder.join("service"))
}

#[test]
fn mini_debug_info_names_the_functions_of_a_stripped_file() {
    let folder = tempfile::tempdir().unwrap();
    for build in [LEGACY, V0] {
        let whole = inspect_file(&build.path()).unwrap();
        assert_eq!(whole.symbols, SymbolSource::File);
        // What xz can be told: checks of each kind, another filter in front, several blocks.
        for xz in [
            &["-6"][..],
            &["--check=sha256"],
            &["--check=none"],
            &["--x86", "--lzma2=preset=9e"],
            &["--block-size=65536"],
        ] {
            let service = with_mini_debug_info(&build.path(), folder.path(), xz);
            let plan = inspect_file(&service).unwrap();
            assert_eq!(messages(&plan), messages(&whole), "{xz:?}");
            assert!(!plan.stripped && plan.symbols == SymbolSource::DebugData, "{xz:?}: {:?}", plan.symbols);
            assert!(table(&plan, 200).contains("symbols from .gnu_debugdata"));
        }
    }
    // The file with its debug info knows more.
    let service = with_mini_debug_info(&LEGACY.path(), folder.path(), &[]);
    let link = format!("--add-gnu-debuglink={}", folder.path().join("debug").display());
    let linked = objcopy(&[&link], &service, &folder.path().join("linked"));
    assert_eq!(inspect_file(&linked).unwrap().symbols, SymbolSource::DebugFile);
}

#[test]
fn damaged_mini_debug_info_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let service = with_mini_debug_info(&LEGACY.path(), folder.path(), &[]);
    let mut bytes = std::fs::read(&service).unwrap();
    let packed = std::fs::read(folder.path().join("mini.xz")).unwrap();
    let at = memchr::memmem::find(&bytes, &packed).unwrap();
    bytes[at + packed.len() / 2] ^= 1;
    let plan = inspect_bytes(&bytes, &service).unwrap();
    assert!(plan.stripped && plan.messages.is_empty());
    assert!(plan.remarks.iter().any(|remark| remark.kind == RemarkKind::Damaged), "{:?}", plan.remarks);
}

fn misses_debug_info(plan: &ProbePlan) -> bool {
    plan.remarks.iter().any(|remark| remark.kind == RemarkKind::MissingDebugInfo)
}

#[test]
fn split_units_say_the_same_as_whole_ones() {
    let expected = messages(&FAT_LTO_LINES.plan());
    for build in UNPACKED.into_iter().chain(PACKED) {
        let plan = build.plan();
        assert_eq!(messages(&plan), expected, "{}", build.path().display());
        assert!(!misses_debug_info(&plan));
    }
    let expected = UNITS.plan();
    assert!(inlined(&expected) > 10, "{} inlined calls", inlined(&expected));
    for build in [UNPACKED_UNITS, PACKED_UNITS] {
        assert_eq!(messages(&build.plan()), messages(&expected), "{}", build.path().display());
    }
}

#[test]
fn entries_of_split_units_are_looked_for_beside_the_program_and_missed() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("service");
    let package = folder.path().join("service.dwp");
    std::fs::copy(PACKED[0].path(), &program).unwrap();
    let plan = inspect_file(&program).unwrap();
    assert!(inlined(&plan) == 0 && misses_debug_info(&plan), "{:?}", plan.remarks);
    // That of another build.
    std::fs::copy(PACKED[1].path().with_extension("dwp"), &package).unwrap();
    let plan = inspect_file(&program).unwrap();
    assert!(inlined(&plan) == 0 && misses_debug_info(&plan), "{:?}", plan.remarks);
    std::fs::copy(PACKED[0].path().with_extension("dwp"), &package).unwrap();
    let plan = inspect_file(&program).unwrap();
    assert!(inlined(&plan) > 50 && !misses_debug_info(&plan), "{:?}", plan.remarks);
    // By another name.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&program, &link).unwrap();
    assert_eq!(messages(&inspect_file(&link).unwrap()), messages(&plan));
}

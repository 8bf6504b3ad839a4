//! Debug info in all the places and forms that it can have.

use std::path::{Path, PathBuf};
use std::process::Command;

use tracer::inspect::{ExitKind, ProbePlan, RemarkKind, inspect_file};

use crate::sample::{FAT_LTO, FAT_LTO_LINES, LEGACY, PACKED, PACKED_UNITS, UNITS, UNPACKED, UNPACKED_UNITS};

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

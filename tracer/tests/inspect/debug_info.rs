//! Debug info in all the places and forms that it can have.

use std::path::{Path, PathBuf};
use std::process::Command;

use tracer::inspect::{ExitKind, ProbePlan, inspect_file};

use crate::sample::{FAT_LTO, FAT_LTO_LINES, LEGACY};

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

//! What the shim changes in a service: at most five lines, each of them in sight.

use std::path::Path;

/// As the requirement has it.
const MOST: usize = 5;

/// The lines of a service that are there in one of its two builds only: with the shim, without.
fn changed(source: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let of = match line {
            r#"#[cfg(feature = "shim")]"# => &mut with,
            r#"#[cfg(not(feature = "shim"))]"# => &mut without,
            other => {
                assert!(!other.contains("feature ="), "a change that is not counted: {other}");
                assert!(!other.contains("tracer_shim"), "the shim outside of its build: {other}");
                continue;
            }
        };
        let item = lines.next().unwrap_or_default();
        assert!(item.ends_with(';'), "more than one line: {item}");
        of.push(item);
    }
    (with, without)
}

#[test]
fn a_service_changes_five_lines_at_most() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/src");
    for service in tracer_tests::pipeline::SERVICES {
        let source =
            std::fs::read_to_string(sources.join("bin").join(service).with_extension("rs")).expect("a service");
        let (with, without) = changed(&source);
        assert!((1..=MOST).contains(&with.len()), "{service} changes {} lines: {with:#?}", with.len());
        assert!(without.len() <= with.len(), "what goes is replaced: {without:#?}");
    }
    // What they share knows nothing of it, and neither does who sends the orders.
    let shared = std::fs::read_dir(&sources).expect("a folder").map(|entry| entry.expect("a file").path());
    for path in shared.chain(["orders.rs", "media_driver.rs"].map(|file| sources.join("bin").join(file))) {
        if path.is_file() {
            let source = std::fs::read_to_string(&path).expect("a source");
            let mentions = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(mentions.clone().all(|line| !line.contains("shim")), "{}", path.display());
        }
    }
}

#[test]
fn changes_are_counted() {
    let source = "a();\n#[cfg(feature = \"shim\")]\nb();\n  #[cfg(not(feature = \"shim\"))]\nc();\n";
    assert_eq!(changed(source), (vec!["b();"], vec!["c();"]));
}

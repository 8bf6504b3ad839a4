//! The files of `packaging/` say what the agent knows better: its capabilities, and the keys of its configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;
use tracer::cli::config::Config;
use tracer::privilege::{EXTRA, TRACE};

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(packaging(name)).expect("it is in the repository")
}

/// All capabilities that the agent has a use for.
fn wanted() -> BTreeSet<&'static str> {
    TRACE.iter().chain(&EXTRA).map(|demand| demand.name).collect()
}

#[test]
fn the_unit_has_the_capabilities_of_the_agent() {
    let unit = text("tracer.service");
    for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).expect("the unit has such a line");
        assert_eq!(line.split(' ').collect::<BTreeSet<_>>(), wanted(), "{key}");
    }
}

#[test]
fn the_pod_has_the_capabilities_of_the_agent_and_a_valid_configuration() {
    let text = text("kubernetes/tracer.yaml");
    let [config, pod] = text.split("\n---\n").collect::<Vec<_>>()[..] else { panic!("two documents") };
    let parse = |text| serde_yaml_ng::from_str::<Value>(text).expect("YAML");
    let added = &parse(pod)["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let added: BTreeSet<String> = added
        .as_sequence()
        .expect("a list")
        .iter()
        .filter_map(|name| Some(format!("CAP_{}", name.as_str()?)))
        .collect();
    assert_eq!(added.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted());
    let config = parse(config)["data"]["tracer.yaml"].as_str().expect("a text").to_owned();
    serde_yaml_ng::from_str::<Config>(&config).expect("a configuration");
}

/// With its comments it switches nothing on; without them each example is one.
#[test]
fn the_configuration_file_is_valid_and_so_are_its_examples() {
    assert_eq!(Config::from_file(&packaging("tracer.yaml")).expect("it is valid"), Config::default());
    let is_example =
        |line: &&str| line.strip_prefix('#').is_some_and(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let examples: Vec<String> =
        text("tracer.yaml").lines().filter(is_example).map(|line| line[1..].to_owned()).collect();
    assert!(examples.len() > 5, "{examples:?}");
    let config: Config = serde_yaml_ng::from_str(&examples.join("\n")).expect("each is valid");
    assert!(!config.name.is_empty() && !config.export.is_empty() && config.sampler.is_some());
}

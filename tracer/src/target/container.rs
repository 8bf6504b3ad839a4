//! Containers by id or name: which one a process is in stands in the path of its control group, and what users call it in the
//! files of the engine.
//!
//! Ids are known for every engine. Names are for Docker, for Podman and CRI-O (containers/storage), for Kubernetes on containerd
//! (the name of the container in its pod), and for LXC and systemd-nspawn, whose control groups have them.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use super::Process;
use crate::files;

/// A larger file of an engine is not read.
const MAX_FILE: u64 = 16 << 20;
/// Containers whose names are remembered.
const MAX_KNOWN: usize = 4096;
/// What stands before the name in a control group.
const NAMED_GROUPS: [&str; 2] = ["lxc.payload.", "machine-"];
/// Annotations of a bundle that hold the container's name.
const ANNOTATIONS: [&str; 3] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];

/// The containers that were asked for.
#[derive(Debug, Default)]
pub struct Containers {
    /// Beginnings of ids and names.
    wanted: Vec<String>,
    /// Whether one is meant, by id: engines are asked once for each.
    known: Mutex<HashMap<String, bool>>,
}

impl Containers {
    /// Those whose id or name begins with one of these.
    pub(super) fn new(wanted: &[String]) -> Self {
        Self { wanted: wanted.to_vec(), known: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether a process is in one of them.
    pub(super) fn have(&self, process: &Process) -> bool {
        !self.is_empty() && process.control_group().is_some_and(|group| self.mean(&group, host_root()))
    }

    fn mean(&self, group: &str, root: &Path) -> bool {
        let is_wanted = |name: &str| self.wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
        if group_names(group).any(is_wanted) {
            return true;
        }
        let Some(id) = container_id(group) else { return false };
        if is_wanted(&id) {
            return true;
        }
        let Ok(mut known) = self.known.lock() else { return false };
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        *known.entry(id).or_insert_with_key(|id| names(id, root).iter().any(|name| is_wanted(name)))
    }
}

/// Names in the path of a control group.
fn group_names(group: &str) -> impl Iterator<Item = &str> {
    group.split('/').filter_map(|part| {
        let name = NAMED_GROUPS.iter().find_map(|before| part.strip_prefix(before))?;
        Some(name.strip_suffix(".scope").unwrap_or(name))
    })
}

/// The container in a control group: the last 64 hexadecimal digits, as a node can be a container itself.
pub(super) fn container_id(group: &str) -> Option<String> {
    let mut parts = group.rsplit(|character: char| !character.is_ascii_hexdigit());
    parts.find(|part| part.len() == 64).map(str::to_owned)
}

/// Where the files of the engines are: an agent in a container has another root than the host.
pub(super) fn host_root() -> &'static Path {
    let of_the_first = Path::new("/proc/1/root");
    if of_the_first.join("proc").exists() { of_the_first } else { Path::new("/") }
}

/// What engines have written down of a container: Docker's own file, and bundles of the Open Container Initiative.
pub(super) fn descriptions(id: &str, root: &Path) -> Vec<Value> {
    let docker = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
    let bundles = bundles(id, root).into_iter().map(|bundle| bundle.join("config.json"));
    [docker].into_iter().chain(bundles).filter_map(|path| json(&path)).collect()
}

/// What the engines call a container.
fn names(id: &str, root: &Path) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(|name| name.trim_start_matches('/').to_owned());
    let mut names = Vec::new();
    for description in descriptions(id, root) {
        names.extend(text(&description["Name"]));
        names.extend(ANNOTATIONS.iter().filter_map(|name| text(&description["annotations"][*name])));
    }
    for state in ["overlay-containers", "vfs-containers", "btrfs-containers"] {
        let listed = json(&root.join("var/lib/containers/storage").join(state).join("containers.json"));
        let listed = listed.as_ref().and_then(Value::as_array).into_iter().flatten();
        for container in listed.filter(|container| container["id"] == id) {
            names.extend(container["names"].as_array().into_iter().flatten().filter_map(text));
        }
    }
    names
}

/// Folders in which engines keep the description of a running container.
fn bundles(id: &str, root: &Path) -> Vec<PathBuf> {
    let namespaces = std::fs::read_dir(root.join("run/containerd/io.containerd.runtime.v2.task"));
    let containerd = namespaces.into_iter().flatten().filter_map(Result::ok).map(|folder| folder.path().join(id));
    let storage = root.join("run/containers/storage/overlay-containers").join(id).join("userdata");
    containerd.chain([storage]).collect()
}

fn json(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    files::open(path).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_meant_by_the_beginning_of_their_id_or_name() {
        let id = "0123456789abcdef".repeat(4);
        let group = format!("/system.slice/docker-{id}.scope");
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let means = |wanted: &str| Containers::new(&[wanted.to_owned()]).mean(&group, folder.path());
        assert!(means("0123") && !means("1234") && !means("web"));
        write(&format!("var/lib/docker/containers/{id}/config.v2.json"), r#"{"Name":"/web-1"}"#);
        let listed = format!(r#"[{{"id":"other","names":["no"]}},{{"id":"{id}","names":["podded"]}}]"#);
        write("var/lib/containers/storage/overlay-containers/containers.json", &listed);
        let bundle = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        write(&bundle, r#"{"annotations":{"io.kubernetes.cri.container-name":"risk"}}"#);
        for name in ["web", "web-1", "podded", "risk"] {
            assert!(means(name), "{name}");
        }
        assert!(!means("no") && !means("web-2"));
    }

    #[test]
    fn a_container_is_found_in_the_paths_of_all_engines() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/docker/{}/docker/{id}", "f".repeat(64)),
        ] {
            assert_eq!(container_id(&path).as_ref(), Some(&id), "{path}");
        }
        assert_eq!(container_id("/user.slice"), None);
    }

    #[test]
    fn some_control_groups_have_the_name() {
        let means = |wanted: &str, group: &str| Containers::new(&[wanted.to_owned()]).mean(group, Path::new("/none"));
        assert!(means("web", "/lxc.payload.web/system.slice"));
        assert!(means("web", "/machine.slice/machine-web.scope/payload"));
        assert!(!means("web", "/system.slice/web.service"));
    }
}

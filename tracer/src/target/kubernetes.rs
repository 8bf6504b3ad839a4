//! Which pod a process belongs to: its number stands in the path of the control group, and its name in the description that the engine keeps
//! of the container.

use std::path::Path;

use serde_json::Value;

use super::container::{container_id, descriptions};

/// A number of a pod as `kubectl` shows it: 8-4-4-4-12 hexadecimal digits.
const UID_DIGITS: usize = 32;

/// Attributes by the semantic conventions, and the keys of their values in the descriptions of CRI-O and Docker, and of containerd.
const NAMES: [(&str, [&str; 2]); 3] = [
    ("k8s.namespace.name", ["io.kubernetes.pod.namespace", "io.kubernetes.cri.sandbox-namespace"]),
    ("k8s.pod.name", ["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]),
    ("k8s.container.name", ["io.kubernetes.container.name", "io.kubernetes.cri.container-name"]),
];

/// What is known of the pod; nothing outside of Kubernetes. `root` is that of the host.
pub(super) fn pod_attributes(group: &str, root: &Path) -> Vec<(String, String)> {
    let Some(uid) = pod_uid(group) else { return Vec::new() };
    let mut attributes = vec![("k8s.pod.uid".to_owned(), uid)];
    let Some(id) = container_id(group) else { return attributes };
    let descriptions = descriptions(&id, root);
    for (attribute, keys) in NAMES {
        let values = descriptions.iter().flat_map(|description| keys.map(|key| label(description, key)));
        attributes.extend(values.flatten().next().map(|value| (attribute.to_owned(), value.to_owned())));
    }
    attributes
}

/// In Docker's file, or in a bundle of the Open Container Initiative.
fn label<'a>(description: &'a Value, key: &str) -> Option<&'a str> {
    [&description["Config"]["Labels"], &description["annotations"]].into_iter().find_map(|labels| labels[key].as_str())
}

/// From the last part of the path that is a pod's: `podUID` below `kubepods`, or `kubepods-burstable-podUID.slice`, where systemd has `_`
/// for `-`. Pods of the node's own files have a number without any.
fn pod_uid(group: &str) -> Option<String> {
    let of_part = |part: &str| {
        let uid = match part.strip_suffix(".slice") {
            Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1.replace('_', "-"),
            Some(_) => return None,
            None => part.strip_prefix("pod")?.to_owned(),
        };
        let digits = uid.chars().filter(|letter| *letter != '-');
        let is_uid = digits.clone().all(|digit| digit.is_ascii_hexdigit()) && digits.count() == UID_DIGITS;
        is_uid.then_some(uid)
    };
    group.split('/').rev().find_map(of_part)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "ac04f3f2-1f2c-11e9-b015-1ebee232acfa";

    #[test]
    fn the_number_of_a_pod_is_found_in_the_paths_of_all_layouts() {
        let (id, under) = ("0123456789abcdef".repeat(4), UID.replace('-', "_"));
        for group in [
            // Control groups made by the kubelet itself, and by systemd; version 1 and 2 have the same.
            format!("/kubepods/besteffort/pod{UID}/{id}"),
            format!("/kubepods/pod{UID}/{id}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{id}.scope"),
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{id}.scope/container"),
            // A node that is a container, and the view from within a pod.
            format!("/docker/{}/kubelet/kubepods/burstable/pod{UID}/{id}", "f".repeat(64)),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{under}.slice/cri-containerd-{id}.scope"
            ),
            format!("/../../kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"),
        ] {
            assert_eq!(pod_uid(&group).as_deref(), Some(UID), "{group}");
            assert_eq!(container_id(&group).as_deref(), Some(id.as_str()), "{group}");
        }
        let of_a_file = "7f8e3c1b2a495d6e7f8e3c1b2a495d6e";
        assert_eq!(pod_uid(&format!("/kubepods/burstable/pod{of_a_file}/x")).as_deref(), Some(of_a_file));
        for group in
            ["/", "/user.slice", "/system.slice/podman.service", "/pods/podcast/x", "/a.slice/kubepods-pod12.slice"]
        {
            assert_eq!(pod_uid(group), None, "{group}");
        }
    }

    #[test]
    fn names_come_from_the_files_of_each_engine() {
        let id = "0123456789abcdef".repeat(4);
        let group = format!("/kubepods/pod{UID}/{id}");
        let cri = r#"{"annotations":{"io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-name":"cart-1",
            "io.kubernetes.cri.container-name":"cart"}}"#;
        let crio = r#"{"annotations":{"io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.name":"cart-1",
            "io.kubernetes.container.name":"cart"}}"#;
        let docker = crio.replace("annotations", r#"Config":{"Labels"#) + "}";
        let engines = [
            (format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"), cri),
            (format!("run/containers/storage/overlay-containers/{id}/userdata/config.json"), crio),
            (format!("var/lib/docker/containers/{id}/config.v2.json"), &docker),
        ];
        for (path, text) in engines {
            let root = tempfile::tempdir().expect("a folder");
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
            let attributes = pod_attributes(&group, root.path());
            let expected = [
                ("k8s.pod.uid", UID),
                ("k8s.namespace.name", "shop"),
                ("k8s.pod.name", "cart-1"),
                ("k8s.container.name", "cart"),
            ];
            assert_eq!(attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "{path:?}");
        }
        assert!(pod_attributes(&format!("/system.slice/docker-{id}.scope"), Path::new("/none")).is_empty());
    }
}

//! An image for containers, as the Open Container Initiative lays it out in a folder, in one tar archive: `podman load`, `skopeo copy
//! oci-archive:`, `ctr image import` and `docker load` take it. Nothing runs to make it.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    archive::{Archive, gzip},
    sha256,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What the image holds: the program is static, so there is nothing else that it needs.
const FILES: [(&str, &str); 4] = [
    ("tracer", "usr/bin/tracer"),
    ("tracer.yaml", "etc/tracer/tracer.yaml"),
    ("LICENSE-MIT", "usr/share/doc/tracer/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/tracer/LICENSE-APACHE"),
];

/// Makes the archive of the image.
pub fn write(stage: &Path, archive: &Path, seconds: u64) -> Result<()> {
    let mut layer = Archive::new(Vec::new(), seconds);
    for (name, path) in FILES {
        layer.file(path, &fs::read(stage.join(name)).with_context(|| format!("there is no {name}"))?)?;
    }
    let layer = layer.finish()?;
    let mut packed = gzip(Vec::new());
    std::io::Write::write_all(&mut packed, &layer)?;
    let packed = packed.finish()?;

    let version = env!("CARGO_PKG_VERSION");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/tracer"],
            "Env": ["PATH=/usr/bin"],
            "Labels": { "org.opencontainers.image.title": "tracer", "org.opencontainers.image.version": version },
        },
        // Of the layer as it is unpacked.
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &packed)],
    }))?;
    let mut listed = descriptor(MANIFEST, &manifest);
    listed["annotations"] = json!({
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": format!("docker.io/library/tracer:{version}"),
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] });

    let mut image = Archive::new(File::create(archive)?, seconds);
    image.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    image.file("index.json", &serde_json::to_vec(&index)?)?;
    for blob in [&config, &manifest, &packed] {
        image.file(&format!("blobs/sha256/{}", sha256(blob)), blob)?;
    }
    image.finish()?;
    Ok(())
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File, io::Read as _};

    use serde_json::Value;

    use super::{FILES, sha256, write};

    fn entries(archive: impl std::io::Read) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().expect("an archive").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("it is whole");
            (entry.path().expect("it has one").display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn every_part_is_where_its_digest_says() {
        let folder = tempfile::tempdir().expect("a folder");
        FILES.iter().for_each(|(name, _)| std::fs::write(folder.path().join(name), name).expect("written"));
        let archive = folder.path().join("image.tar");
        write(folder.path(), &archive, 7).expect("made");
        let files = entries(File::open(archive).expect("it is there"));
        let blob = |descriptor: &Value| {
            let digest =
                descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
            let blob = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(
                (sha256(blob).as_str(), blob.len() as u64),
                (digest, descriptor["size"].as_u64().expect("a size"))
            );
            blob.clone()
        };
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let manifest = parse(&blob(&parse(&files["index.json"])["manifests"][0]));
        let config = parse(&blob(&manifest["config"]));
        let mut layer = Vec::new();
        let packed = blob(&manifest["layers"][0]);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut layer).expect("gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        let inside = entries(&layer[..]);
        assert_eq!(inside.keys().map(String::as_str).collect::<Vec<_>>().len(), FILES.len());
        assert_eq!(inside["usr/bin/tracer"], b"tracer");
    }
}

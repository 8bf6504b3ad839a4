//! Kernels from Debian's cloud images: their drivers for virtual machines are built in, so no modules are needed.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{setup::apt::Suite, workspace};

/// The names of kernel packages start so.
const IMAGE: &str = "linux-image-";

/// Which release has which kernel; backports hold the others.
const SUITES: [(&str, &str); 4] =
    [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "bookworm-backports"), ("", "trixie-backports")];

/// The newest fetched kernel of a version such as `6.12`.
pub fn cached(version: &str) -> Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(dir()) else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(newest(version, "vmlinuz-", &names).map(|name| dir().join(name)))
}

/// Downloads the newest kernel of that version.
pub fn fetch(version: &str) -> Result<PathBuf> {
    let (_, suite) =
        SUITES.iter().find(|(known, _)| *known == version || known.is_empty()).expect("the last one fits all");
    let suite = Suite::open(suite)?;
    let images = suite.packages(IMAGE)?;
    let Some(image) = newest(version, IMAGE, &images) else {
        bail!("{suite} has no kernel {version}; it has {}", available(&images).join(", "));
    };
    let release = &image[IMAGE.len()..];
    // Newer packages of that name are empty and depend on one with the binary alone.
    let binary = format!("linux-binary-{release}");
    let package = if suite.packages(&binary)?.contains(&binary) { &binary } else { image };
    let scratch = tempfile::tempdir_in(workspace::tools())?;
    suite.unpack(package, scratch.path())?;
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let found = places.iter().map(|place| scratch.path().join(place)).find(|file| file.is_file());
    fs::create_dir_all(dir())?;
    let kernel = dir().join(format!("vmlinuz-{release}"));
    fs::rename(found.with_context(|| format!("{package} holds no kernel"))?, &kernel)?;
    Ok(kernel)
}

fn dir() -> PathBuf {
    workspace::tools().join("kernels")
}

/// The name with the highest version, of those that are a cloud kernel of `version`.
fn newest<'a>(version: &str, prefix: &str, names: &'a [String]) -> Option<&'a str> {
    let fits = |name: &&str| {
        release(name, prefix).is_some_and(|release| {
            release.strip_prefix(version).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    names.iter().map(String::as_str).filter(fits).max_by_key(|name| numbers(name))
}

/// `6.12.95+deb12` of `linux-image-6.12.95+deb12-cloud-amd64`; none for debug symbols, unsigned and meta packages.
fn release<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let release = name.strip_prefix(prefix)?.strip_suffix("-cloud-amd64")?;
    release.starts_with(|c: char| c.is_ascii_digit()).then_some(release)
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn available(packages: &[String]) -> Vec<String> {
    let mut versions: Vec<Vec<u64>> = packages
        .iter()
        .filter_map(|name| release(name, IMAGE))
        .map(|release| numbers(release).into_iter().take(2).collect())
        .collect();
    versions.sort();
    versions.dedup();
    versions.iter().map(|numbers| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")).collect()
}

#[cfg(test)]
mod tests {
    use super::{available, newest};

    fn names() -> Vec<String> {
        [
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.85+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64-dbg",
            "linux-image-cloud-amd64",
        ]
        .map(String::from)
        .into()
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(newest("6.1", "linux-image-", &names()), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest("6.12", "linux-image-", &names()), Some("linux-image-6.12.85+deb12-cloud-amd64"));
        assert_eq!(newest("6", "linux-image-", &names()), Some("linux-image-6.12.85+deb12-cloud-amd64"));
        assert_eq!(newest("6.18", "linux-image-", &names()), None);
    }

    #[test]
    fn what_there_is() {
        assert_eq!(available(&names()), ["6.1", "6.12"]);
    }
}

//! Probe plans that were made before, on disk: the second attach to a file does not read its debug info again.
//!
//! A plan is kept under the file's build-id and taken only if file size, debug file and agent are the same and the code at
//! every site is what it was. Whatever is wrong with a kept plan, it is made anew.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::inspect::{Identity, InspectError, ProbePlan, RemarkKind, code_at_sites, identity, inspect_open};

/// The largest kept plan that is read, in bytes.
const MAX_SIZE: u64 = 64 << 20;
/// Plans beyond this many are removed, the oldest first.
const MAX_PLANS: usize = 256;
const SUFFIX: &str = ".plan.json";

/// The plans of one user.
#[derive(Debug)]
pub(super) struct Plans {
    /// None where nothing can be kept.
    folder: Option<PathBuf>,
    agent: String,
}

#[derive(Deserialize)]
struct Kept {
    agent: String,
    file: Identity,
    /// Over the code at all sites.
    code: u64,
    plan: ProbePlan,
}

#[derive(Serialize)]
struct Keep<'a> {
    agent: &'a str,
    file: &'a Identity,
    code: u64,
    plan: &'a ProbePlan,
}

impl Plans {
    /// The folder of this user: `$XDG_CACHE_HOME/tracer`, else for root `/var/cache/tracer`, else `~/.cache/tracer`.
    pub(super) fn open() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = || rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/cache"));
        let cache = variable("XDG_CACHE_HOME").or_else(root).or_else(|| Some(variable("HOME")?.join(".cache")));
        Self::within(cache.filter(|cache| cache.is_absolute()).map(|cache| cache.join("tracer")))
    }

    fn within(folder: Option<PathBuf>) -> Self {
        let folder = folder.filter(|folder| match own_folder(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("probe plans are not kept in {}: {error}", folder.display());
                false
            }
        });
        Self { folder, agent: agent() }
    }

    /// The plan of a file: the kept one, else a new one.
    pub(super) fn plan(&self, file: &File, path: &Path) -> Result<ProbePlan, InspectError> {
        let identity = if self.folder.is_some() { identity(file, path)? } else { None };
        let place = self.folder.as_ref().zip(identity.as_ref());
        let place = place.map(|(folder, id)| folder.join(format!("{}-{}{SUFFIX}", id.build_id, id.size)));
        let (Some(place), Some(identity)) = (place, identity) else {
            return inspect_open(file, path);
        };
        if let Some(plan) = self.kept(&place, (file, path), &identity) {
            return Ok(plan);
        }
        let plan = inspect_open(file, path)?;
        // Files that were missing can come.
        let whole = plan.remarks.iter().all(|remark| remark.kind != RemarkKind::MissingDebugInfo);
        if let Some(code) = code((file, path), &plan).filter(|_| whole)
            && let Err(error) = self.keep(&place, &Keep { agent: &self.agent, file: &identity, code, plan: &plan })
        {
            tracing::debug!("{} is not kept: {error}", place.display());
        }
        Ok(plan)
    }

    fn kept(&self, place: &Path, program: (&File, &Path), file: &Identity) -> Option<ProbePlan> {
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place).ok()?;
        let metadata = opened.metadata().ok()?;
        let ours = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
        if !ours || metadata.len() > MAX_SIZE {
            return None;
        }
        let mut text = Vec::new();
        opened.take(MAX_SIZE).read_to_end(&mut text).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        let same = kept.agent == self.agent && kept.file == *file;
        (same && code(program, &kept.plan) == Some(kept.code)).then_some(kept.plan)
    }

    fn keep(&self, place: &Path, keep: &Keep<'_>) -> io::Result<()> {
        let fresh = place.with_extension(format!("{}.new", std::process::id()));
        let written = File::options().write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(keep)?)?;
            // Whole or not at all.
            fs::rename(&fresh, place)
        });
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        self.trim();
        written
    }

    /// Removes the oldest plans if there are too many.
    fn trim(&self) {
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        let mut plans: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX)))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        plans.sort_unstable();
        for (_, path) in &plans[..plans.len().saturating_sub(MAX_PLANS)] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes the folder, or checks that nobody else can write to it.
fn own_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::symlink_metadata(folder)?;
    let ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && metadata.mode() & 0o022 == 0 { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// The running agent: its version, and which build of it.
fn agent() -> String {
    let build =
        fs::metadata("/proc/self/exe").map(|metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
    format!("{} {build:?}", env!("CARGO_PKG_VERSION"))
}

fn code((file, path): (&File, &Path), plan: &ProbePlan) -> Option<u64> {
    let code = code_at_sites(file, path, plan).ok()??;
    let mut hasher = DefaultHasher::new();
    code.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_file(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("a file").path());
        let file = files.next().expect("one plan is kept");
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn a_kept_plan_is_the_same_and_a_damaged_one_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("tracer");
        let plans = Plans::within(Some(folder.clone()));
        let path = Path::new("/proc/self/exe");
        let file = File::open(path).expect("a program");
        let program = (&file, path);
        let text = |plan: &ProbePlan| serde_json::to_string(plan).expect("text");
        let first = text(&plans.plan(program.0, program.1).expect("a program"));
        let kept = kept_file(&folder);
        let identity = identity(program.0, program.1).expect("a program").expect("a build-id");
        assert_eq!(text(&plans.kept(&kept, program, &identity).expect("kept")), first);
        let whole = fs::read(&kept).expect("the plan");
        for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"\0\xff"] {
            fs::write(&kept, damaged).expect("written");
            assert!(plans.kept(&kept, program, &identity).is_none());
            assert_eq!(text(&plans.plan(program.0, program.1).expect("a program")), first);
            assert_eq!(fs::read(&kept).expect("the plan"), whole, "it is kept again");
        }
    }

    #[test]
    fn sites_that_are_not_in_the_code_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let plans = Plans::within(Some(folder.path().join("tracer")));
        let path = Path::new("/proc/self/exe");
        let file = File::open(path).expect("a program");
        let program = (&file, path);
        let plan = plans.plan(program.0, program.1).expect("a program");
        let site = plan.sites().next().copied().expect("a Rust program panics somewhere");
        let identity = identity(program.0, program.1).expect("a program").expect("a build-id");
        let kept = kept_file(&folder.path().join("tracer"));
        let text = fs::read_to_string(&kept).expect("the plan");
        for (name, offset) in [("outside", u64::MAX), ("elsewhere", site.offset + 1)] {
            let other = text.replace(&format!("\"offset\":{}", site.offset), &format!("\"offset\":{offset}"));
            assert_ne!(other, text);
            fs::write(&kept, other).expect("written");
            assert!(plans.kept(&kept, program, &identity).is_none(), "{name}");
        }
    }

    #[test]
    fn a_folder_of_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("ours");
        assert!(Plans::within(Some(folder.path().to_owned())).folder.is_none());
    }
}

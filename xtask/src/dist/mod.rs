//! `cargo xtask dist`: what is installed elsewhere. From a commit to `target/packages`: a static binary in an archive, packages for
//! Debian and Fedora, an image for containers, and SHA256SUMS.
//!
//! The same commit gives the same bytes: every time in them is that of the commit, and no path of this machine is in them.

mod archive;
mod image;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    build_ebpf, run,
    setup::{self, packaging::TARGET},
    workspace,
};

/// The profile of the root `Cargo.toml`.
const PROFILE: &str = "dist";

/// `cargo xtask dist`.
pub fn main() -> Result<()> {
    let made = make()?;
    for file in &made {
        println!("{:>10} bytes  {}", fs::metadata(file)?.len(), file.display());
    }
    Ok(())
}

/// Makes everything; the paths of all files.
pub fn make() -> Result<Vec<PathBuf>> {
    setup::ensure(&setup::to_package())?;
    build_ebpf::main()?;
    let commit = Commit::read()?;
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let stage = folder.join("stage");
    fs::create_dir_all(&stage)?;
    run::step("build the static binary", || build(&commit))?;
    stage_files(&stage)?;
    let version = env!("CARGO_PKG_VERSION");
    let archive = folder.join(format!("tracer-{version}-x86_64-linux.tar.gz"));
    archive::write(&stage, &format!("tracer-{version}"), &archive, commit.seconds)?;
    let debian = run::step("make the package for Debian", || debian(&folder, &commit))?;
    let fedora = run::step("make the package for Fedora", || fedora(&folder, &commit))?;
    let image = folder.join(format!("tracer-{version}-oci.tar"));
    image::write(&stage, &image, commit.seconds)?;
    let mut made = vec![archive, debian, fedora, image];
    made.push(checksums(&folder, &made)?);
    Ok(made)
}

/// Where everything is put.
pub fn folder() -> PathBuf {
    workspace::root().join("target/packages")
}

/// The commit that is built.
struct Commit {
    /// When it was made, in seconds since 1970.
    seconds: u64,
}

impl Commit {
    fn read() -> Result<Self> {
        let text = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => {
                run::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()))
                    .context("without git, SOURCE_DATE_EPOCH has to say when the source was made")?
            }
        };
        Ok(Self { seconds: text.trim().parse().context("SOURCE_DATE_EPOCH is a number of seconds")? })
    }

    fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOURCE_DATE_EPOCH", self.seconds.to_string())
    }
}

/// Where cargo puts the binary.
fn binary() -> PathBuf {
    workspace::target().join(TARGET).join(PROFILE).join("tracer")
}

fn build(commit: &Commit) -> Result<()> {
    let mut build = workspace::cargo("build");
    build.args(["--locked", "--profile", PROFILE, "--target", TARGET, "--package", "tracer", "--bin", "tracer"]);
    build.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    // This variable wins over every other source of flags. Panics name files; where they were built is nobody's business.
    let flags = remapped()?.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run::visible(commit.apply(&mut build))
}

/// Folders of this machine, and what they are called in the binary.
fn remapped() -> Result<[(PathBuf, &'static str); 2]> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    Ok([(workspace::root().to_owned(), "/tracer"), (home, "/cargo")])
}

/// Everything that packages hold and that is not in the repository as it is.
fn stage_files(stage: &Path) -> Result<()> {
    let tracer = stage.join("tracer");
    fs::copy(binary(), &tracer).with_context(|| format!("cargo built no {}", binary().display()))?;
    let man = stage.join("man");
    fs::create_dir(&man)?;
    run::output(Command::new(&tracer).arg("man").arg(&man))?;
    for page in fs::read_dir(&man)? {
        archive::compress(&page?.path())?;
    }
    let completions = stage.join("completions");
    fs::create_dir(&completions)?;
    for (shell, name) in [("bash", "tracer"), ("zsh", "_tracer"), ("fish", "tracer.fish")] {
        fs::write(completions.join(name), run::output(Command::new(&tracer).args(["completions", shell]))?)?;
    }
    for file in ["README.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE", "docs/privileges.md"] {
        copy_into(stage, file)?;
    }
    for file in ["packaging/tracer.service", "packaging/tracer.yaml"] {
        copy_into(stage, file)?;
    }
    Ok(())
}

fn copy_into(stage: &Path, file: &str) -> Result<()> {
    let name = Path::new(file).file_name().context("a file has a name")?;
    fs::copy(workspace::root().join(file), stage.join(name)).with_context(|| format!("cannot copy {file}"))?;
    Ok(())
}

/// By the table in `tracer/Cargo.toml`.
fn debian(folder: &Path, commit: &Commit) -> Result<PathBuf> {
    let program = workspace::find_program("cargo-deb").context("cargo-deb is not installed")?;
    let mut deb = Command::new(program);
    deb.args(["--package", "tracer", "--no-build", "--no-strip", "--target", TARGET, "--output"]).arg(folder);
    run::output(commit.apply(&mut deb).current_dir(workspace::root()))?;
    with_extension(folder, "deb")
}

/// By the other table there.
fn fedora(folder: &Path, commit: &Commit) -> Result<PathBuf> {
    let program = workspace::find_program("cargo-generate-rpm").context("cargo-generate-rpm is not installed")?;
    let mut rpm = Command::new(program);
    rpm.args(["--package", "tracer", "--target", TARGET, "--payload-compress", "gzip", "--output"]).arg(folder);
    run::output(commit.apply(&mut rpm).current_dir(workspace::root()))?;
    with_extension(folder, "rpm")
}

fn with_extension(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_it = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    files.find(is_it).with_context(|| format!("there is no .{extension} in {}", folder.display()))
}

/// As `sha256sum --check` reads it.
fn checksums(folder: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut text = String::new();
    for file in files {
        let name = file.file_name().context("a file has a name")?.to_string_lossy();
        text += &format!("{}  {name}\n", sha256(&fs::read(file)?));
    }
    let path = folder.join("SHA256SUMS");
    fs::write(&path, text)?;
    Ok(path)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

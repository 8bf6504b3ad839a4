//! Archives whose bytes depend on names and contents alone.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// A tar archive whose entries are root's and of one time.
pub struct Archive<W: Write> {
    tar: Builder<W>,
    seconds: u64,
}

impl<W: Write> Archive<W> {
    /// With this time, in seconds since 1970.
    pub fn new(out: W, seconds: u64) -> Self {
        Self { tar: Builder::new(out), seconds }
    }

    /// Adds a file. Programs can be run, and nothing else.
    pub fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if content.starts_with(b"\x7fELF") { 0o755 } else { 0o644 });
        header.set_mtime(self.seconds);
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, path, content).with_context(|| format!("cannot pack {path}"))
    }

    /// Ends it.
    pub fn finish(self) -> Result<W> {
        Ok(self.tar.into_inner()?)
    }
}

/// gzip without a time or a name in it.
pub fn gzip<W: Write>(out: W) -> GzEncoder<W> {
    GzBuilder::new().write(out, Compression::best())
}

/// Packs a folder as `name/` into a compressed archive.
pub fn write(folder: &Path, name: &str, archive: &Path, seconds: u64) -> Result<()> {
    let out = File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut packed = Archive::new(gzip(out), seconds);
    for path in files_below(folder)? {
        let inside = Path::new(name).join(path.strip_prefix(folder)?);
        packed.file(&inside.to_string_lossy(), &fs::read(path)?)?;
    }
    packed.finish()?.finish()?;
    Ok(())
}

/// In the order of their paths.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Replaces a file by its compressed form, `NAME.gz`, as pages of the manual are installed.
pub fn compress(path: &Path) -> Result<()> {
    let content = fs::read(path)?;
    let mut out = gzip(File::create(path.with_added_extension("gz"))?);
    out.write_all(&content)?;
    out.finish()?;
    fs::remove_file(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        time::{Duration, UNIX_EPOCH},
    };

    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        let pack = |name: &str, order: [&str; 3], seconds: u64| {
            let (stage, archive) = (folder.path().join(name), folder.path().join("archive"));
            fs::create_dir_all(stage.join("below")).expect("made");
            for file in order {
                fs::write(stage.join(file), file).expect("written");
                let time = UNIX_EPOCH + Duration::from_secs(seconds);
                File::options()
                    .write(true)
                    .open(stage.join(file))
                    .and_then(|file| file.set_modified(time))
                    .expect("set");
            }
            super::write(&stage, "tracer", &archive, 7).expect("packed");
            super::compress(&stage.join("a")).expect("compressed");
            (fs::read(archive).expect("it is there"), fs::read(stage.join("a.gz")).expect("it is there"))
        };
        assert_eq!(pack("one", ["a", "b", "below/c"], 1), pack("two", ["below/c", "b", "a"], 1000));
    }
}

//! The file system of the machine, as the cpio archive that the kernel unpacks.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use cpio::{NewcBuilder, newc::trailer};

use crate::run;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Mount points and work space of `vm-init`.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "tmp", "lib", "lib64"];

/// Programs and the libraries that they need, by their path in the machine.
#[derive(Default)]
pub struct Initramfs {
    files: BTreeMap<String, PathBuf>,
}

impl Initramfs {
    /// Adds an executable under `name`, with its libraries in `/lib` and its loader where it wants it.
    pub fn program(&mut self, name: &str, path: &Path) -> Result<()> {
        self.files.insert(name.to_owned(), path.to_owned());
        let linked = run::output(Command::new("ldd").arg(path))
            .with_context(|| format!("cannot tell the libraries of {}", path.display()))?;
        for library in libraries(&linked) {
            // An absolute name is the program loader, the rest is found by the loader in /lib.
            let name = match library.name.strip_prefix('/') {
                Some(absolute) => absolute.to_owned(),
                None => format!("lib/{}", library.name),
            };
            self.files.insert(name, library.path.into());
        }
        Ok(())
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(archive)?);
        for (number, dir) in DIRECTORIES.iter().enumerate() {
            out = entry(dir, number, DIRECTORY).write(out, 0).finish()?;
        }
        // The kernel opens it for the first process before anything is mounted.
        out = entry("dev/console", DIRECTORIES.len(), CHARACTER_DEVICE)
            .rdev_major(5)
            .rdev_minor(1)
            .write(out, 0)
            .finish()?;
        for (number, (name, path)) in self.files.iter().enumerate() {
            let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let size = u32::try_from(content.len()).context("the format ends at 4 GiB")?;
            let mut file = entry(name, 100 + number, FILE).write(out, size);
            file.write_all(&content)?;
            out = file.finish()?;
        }
        trailer(out)?.flush()?;
        Ok(())
    }
}

/// Equal inode numbers would be hard links.
fn entry(name: &str, number: usize, mode: u32) -> NewcBuilder {
    NewcBuilder::new(name).ino(number as u32 + 1).nlink(1).mode(mode)
}

#[derive(Debug, PartialEq, Eq)]
struct Library<'a> {
    name: &'a str,
    path: &'a str,
}

/// Reads lines such as `libm.so.6 => /lib/libm.so.6 (0x7f..)` and `/lib64/ld-linux-x86-64.so.2 (0x7f..)`.
fn libraries(ldd: &str) -> Vec<Library<'_>> {
    let mut found = Vec::new();
    for line in ldd.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some("=>"), Some(path)) if path.starts_with('/') => found.push(Library { name, path }),
            (Some(path), Some(address), None) if path.starts_with('/') && address.starts_with('(') => {
                found.push(Library { name: path, path });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Library, libraries};

    #[test]
    fn what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f91)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f92)\n\tnot a dynamic executable\n";
        let libm = Library { name: "libm.so.6", path: "/lib/x86_64-linux-gnu/libm.so.6" };
        let loader = Library { name: "/lib64/ld-linux-x86-64.so.2", path: "/lib64/ld-linux-x86-64.so.2" };
        assert_eq!(libraries(text), [libm, loader]);
    }
}

//! What a process was asked to run, where its executable does not say: a program that was given to the dynamic loader, one that
//! never had a file, or a script.

use std::path::{Path, PathBuf};

/// Programs that run the script which is their first argument.
const INTERPRETERS: [&str; 12] =
    ["python", "pypy", "perl", "ruby", "node", "php", "lua", "bash", "dash", "sh", "zsh", "ksh"];
/// Options of the dynamic loaders of glibc and musl that have a value.
const LOADER_OPTIONS: [&str; 7] = [
    "--library-path",
    "--glibc-hwcaps-prepend",
    "--glibc-hwcaps-mask",
    "--inhibit-rpath",
    "--audit",
    "--preload",
    "--argv0",
];

/// The program that the dynamic loader was asked to run (`/lib64/ld-linux-x86-64.so.2 ./service`), as it was named.
pub(super) fn given_to_loader(exe: &Path, arguments: &[String]) -> Option<PathBuf> {
    if !is_loader(exe) {
        return None;
    }
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            return arguments.next().map(PathBuf::from);
        }
        if LOADER_OPTIONS.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return Some(PathBuf::from(argument));
        }
    }
    None
}

/// Whether a file is a dynamic loader, by its name.
pub fn is_loader(path: &Path) -> bool {
    file_name(path).is_some_and(|name| {
        (name.starts_with("ld-") || name.starts_with("ld.so") || name.starts_with("ld64.so")) && name.contains(".so")
    })
}

/// The script or module that an interpreter was asked to run: `risk.py` of `python3 -u ./risk.py`.
pub(super) fn script(exe: &Path, arguments: &[String]) -> Option<String> {
    let name = file_name(exe)?;
    let is_interpreter = INTERPRETERS.iter().any(|interpreter| {
        let version = name.strip_prefix(interpreter);
        version.is_some_and(|version| version.chars().all(|character| character.is_ascii_digit() || character == '.'))
    });
    if !is_interpreter {
        return None;
    }
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Python's modules have the name by which they are started.
            "-m" if name.starts_with("py") => return arguments.next().cloned(),
            "-c" | "-e" => return None,
            "--" => {}
            option if option.starts_with('-') => {}
            script => return file_name(Path::new(script)),
        }
    }
    None
}

/// The name by which a process was started, if the kernel's own, shortened name for it confirms what its arguments say.
pub(super) fn called(comm: &str, arguments: &[String]) -> Option<String> {
    /// Bytes of a name that the kernel keeps.
    const KEPT: usize = 15;
    let name = file_name(Path::new(arguments.first()?))?;
    (comm.len() == KEPT && name.as_bytes().starts_with(comm.as_bytes())).then_some(name)
}

/// Name of a file that has none: `service` of `/memfd:service`.
pub(super) fn file_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let name = if path.parent() == Some(Path::new("/")) { name.strip_prefix("memfd:").unwrap_or(&name) } else { &name };
    (!name.is_empty()).then(|| name.to_owned())
}

/// The kernel appends ` (deleted)` to the path of a file that has no name any more.
pub(super) fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(stripped) => PathBuf::from(stripped),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_program_of_a_loader_is_its_first_argument_that_is_no_option() {
        let given = |exe: &str, text: &str| given_to_loader(Path::new(exe), &arguments(text));
        let loader = "/usr/lib64/ld-linux-x86-64.so.2";
        assert_eq!(given(loader, "ld.so ./svc -x"), Some(PathBuf::from("./svc")));
        assert_eq!(given(loader, "ld.so --library-path /lib --inhibit-cache svc"), Some(PathBuf::from("svc")));
        assert_eq!(given("/lib/ld-musl-x86_64.so.1", "ld --argv0 x -- -odd"), Some(PathBuf::from("-odd")));
        assert_eq!(given(loader, "ld.so --list"), None);
        assert_eq!(given("/usr/bin/ld-viewer", "x svc"), None);
    }

    #[test]
    fn a_script_is_told_from_options() {
        let run = |exe: &str, text: &str| script(Path::new(exe), &arguments(text));
        assert_eq!(run("/usr/bin/python3.11", "python3 -u /opt/risk.py x").as_deref(), Some("risk.py"));
        assert_eq!(run("/usr/bin/python3.11", "python3 -m risk.main").as_deref(), Some("risk.main"));
        assert_eq!(run("/bin/dash", "sh -c true"), None);
        assert_eq!(run("/bin/shred", "shred file"), None);
    }

    #[test]
    fn names_are_those_that_users_know() {
        assert_eq!(file_name(Path::new("/memfd:service")).as_deref(), Some("service"));
        assert_eq!(file_name(Path::new("/tmp/memfd:service")).as_deref(), Some("memfd:service"));
        assert_eq!(without_deleted(PathBuf::from("/a/b (deleted)")), Path::new("/a/b"));
        assert_eq!(
            called("msg_order_engin", &arguments("/opt/msg_order_engine -x")).as_deref(),
            Some("msg_order_engine")
        );
        assert_eq!(called("msg_order_engin", &arguments("other")), None);
        assert_eq!(called("short", &arguments("short-lie")), None, "a short name is complete");
    }
}

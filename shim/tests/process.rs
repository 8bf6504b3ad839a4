//! What other processes see of this one, and what its children do. One test: it forks, and changes the whole process.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use tracer_shim::sampling::{self, DROP_ALL, MAGIC, PAGE_LEN, PAGE_NAME, name_hash};
use tracer_shim::{Context, Span};

mod support;

/// Opens the memory of a process that has this name, as the agent does: `/proc/PID/map_files/..`.
fn open(pid: u32, name: &str) -> File {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in {maps}"));
    let range = line.split(' ').next().unwrap();
    OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/map_files/{range}")).unwrap()
}

fn write(page: &File, at: usize, word: u64) {
    page.write_all_at(&word.to_le_bytes(), at as u64).unwrap();
}

fn recorded(name: &str) -> bool {
    let span = Span::with_parent(Context::NONE, name);
    assert_eq!(span.context().is_sampled(), span.is_recorded());
    span.is_recorded()
}

/// Runs `f` in a forked child and returns what it writes.
fn in_child(f: impl FnOnce() -> String) -> String {
    // SAFETY: the child runs on the thread that forked, and ends without unwinding into the parent's frames.
    unsafe {
        let mut pipe = [0; 2];
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            let text = f();
            File::from_raw_fd(pipe[1]).write_all(text.as_bytes()).unwrap();
            libc::_exit(0);
        }
        libc::close(pipe[1]);
        let mut text = String::new();
        File::from_raw_fd(pipe[0]).read_to_string(&mut text).unwrap();
        let mut status = 0;
        assert_eq!((libc::waitpid(child, &raw mut status, 0), status), (child, 0));
        text
    }
}

#[test]
fn the_agent_samples_and_children_are_processes_of_their_own() {
    drop(tracer_shim::Message::encode_to_vec(&1_u32));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("OTEL_CTX") && maps.contains(PAGE_NAME), "the first message publishes: {maps}");
    tracer_shim::init("shop", &[]);
    let listener = support::Listener::attach(&std::env::current_exe().unwrap(), 0).unwrap();
    assert!(recorded("a") && recorded("b"));

    let page = open(std::process::id(), PAGE_NAME);
    let mut first = [0; 8];
    page.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(u64::from_le_bytes(first), MAGIC);
    // One rule: nothing of "a". Then: nothing of anything but "a".
    write(&page, 8, 1);
    write(&page, 24, 1);
    write(&page, 32, name_hash("a"));
    write(&page, 40, DROP_ALL);
    write(&page, 8, 2);
    assert!(!recorded("a") && recorded("b"));
    write(&page, 16, DROP_ALL);
    write(&page, 40, 0);
    assert!(recorded("a") && !recorded("b"));
    write(&page, 24, 0);
    assert!(PAGE_LEN <= 4096 && !recorded("a"));
    sampling::set_ratio(0.25);
    let kept = (0..4000).filter(|_| recorded("a")).count();
    assert!((850..1150).contains(&kept), "{kept} of 4000 at 25%");
    sampling::set_ratio(1.0);

    let ids = || (0..100).map(|_| Span::with_parent(Context::NONE, "id").context().to_string()).collect::<Vec<_>>();
    let child = in_child(|| {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(maps.matches("OTEL_CTX").count(), 1, "the child's own");
        ids().join(" ")
    });
    let parent = ids();
    assert_eq!(child.split(' ').filter(|id| parent.iter().any(|other| other == id)).count(), 0);
    assert_eq!(child.split(' ').count(), 100);
    drop(listener);
}

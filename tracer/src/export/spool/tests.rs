#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::os::unix::fs::{PermissionsExt, symlink};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;

const COLLECTOR: &str = "http://user@collector.example:4317/v1/traces?token=secret";
const LIMIT: u64 = 1 << 20;

fn request(n: u64) -> Request {
    Request { body: Bytes::from(format!("request {n}")), spans: n }
}

fn open(directory: &Path, limit: u64) -> (Spool, Tally) {
    let (mut spool, tally) = (Spool::open(directory, COLLECTOR, limit).unwrap(), Tally::new("otlp".into()));
    spool.recover(&tally);
    (spool, tally)
}

/// Writes requests of these spans.
fn fill(spool: &mut Spool, tally: &Tally, spans: impl Iterator<Item = u64>) {
    for n in spans {
        tally.accept(n);
        let segment = spool.write(&request(n), tally).unwrap();
        spool.put_back(segment);
    }
}

/// Spans of the requests that can be read, in order, and removes them.
fn drain(spool: &mut Spool, tally: &Tally) -> Vec<u64> {
    let mut spans = Vec::new();
    while let Some(segment) = spool.take(0) {
        let read = spool.read(&segment);
        spool.remove(segment, tally);
        match read {
            Ok(request) => {
                assert_eq!(request.body, format!("request {}", request.spans));
                tally.exported_from_spool(request.spans);
                spans.push(request.spans);
            }
            Err(Unread::Damaged(_)) => tally.dropped(Cause::SpoolDamaged, segment.spans()),
            Err(Unread::Refused(error)) => panic!("{error}"),
        }
    }
    spans
}

#[test]
fn another_life_finds_everything_in_order() {
    let directory = TempDir::new().unwrap();
    let (mut spool, tally) = open(directory.path(), LIMIT);
    fill(&mut spool, &tally, 1..=20);
    assert_eq!((tally.stats().spooled, tally.on_the_way()), (210, 0));
    // A request that was taken and not delivered is still there.
    spool.take(0).unwrap();
    drop(spool);

    let (mut spool, tally) = open(directory.path(), LIMIT);
    assert_eq!((tally.stats().recovered, tally.stats().spooled, tally.on_the_way()), (210, 210, 0));
    fill(&mut spool, &tally, 21..=22);
    assert_eq!(drain(&mut spool, &tally), (1..=22).collect::<Vec<_>>());
    let stats = tally.stats();
    assert_eq!((stats.exported, stats.exported_from_spool, stats.spooled, stats.on_the_way), (253, 253, 0, 0));
    assert_eq!(spool.used, 0);
    drop(spool);
    let (spool, tally) = open(directory.path(), LIMIT);
    assert!(spool.is_empty() && tally.stats().recovered == 0);
}

#[test]
fn at_its_size_the_oldest_go_and_are_counted() {
    let directory = TempDir::new().unwrap();
    let (mut spool, tally) = open(directory.path(), 10 * BLOCK_BYTES);
    fill(&mut spool, &tally, 1..=25);
    let stats = tally.stats();
    assert_eq!((stats.dropped(Cause::SpoolFull), stats.spooled), ((1..=15).sum(), (16..=25).sum()));
    // What is on its way to the collector stays.
    let taken = spool.take(0).unwrap();
    fill(&mut spool, &tally, 26..=40);
    assert_eq!(spool.read(&taken).unwrap().spans, 16);
    spool.put_back(taken);
    drop(spool);
    // With less room in the next life.
    let (mut spool, tally) = open(directory.path(), 4 * BLOCK_BYTES);
    assert_eq!(tally.stats().dropped(Cause::SpoolFull), 16 + (32..=36).sum::<u64>());
    assert_eq!(drain(&mut spool, &tally), [37, 38, 39, 40]);
    // A request that is larger than all is refused, and costs the others.
    let (mut spool, tally) = (Spool { limit: 100, ..spool }, tally);
    assert_eq!(spool.write(&request(1), &tally).unwrap_err(), Cause::SpoolFull);
    assert_eq!(tally.on_the_way(), 0);
}

#[test]
fn damage_costs_the_request_it_hits() {
    let directory = TempDir::new().unwrap();
    let (mut spool, tally) = open(directory.path(), LIMIT);
    fill(&mut spool, &tally, 1..=8);
    let path = |n: usize| spool.path(&spool.segments[n]);
    let content = std::fs::read(path(1)).unwrap();
    std::fs::write(path(1), &content[..content.len() / 2]).unwrap();
    std::fs::write(path(2), b"").unwrap();
    let mut flipped = std::fs::read(path(3)).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(path(3), flipped).unwrap();
    std::fs::remove_file(path(4)).unwrap();
    symlink("/etc/passwd", path(4)).unwrap();
    // Sparse: it takes no room, but reading it would.
    File::create(path(5)).unwrap().set_len(1 << 40).unwrap();
    std::fs::remove_file(path(6)).unwrap();
    assert_eq!(drain(&mut spool, &tally), [1, 8]);
    let stats = tally.stats();
    assert_eq!((stats.dropped(Cause::SpoolDamaged), stats.exported, stats.on_the_way), (2 + 3 + 4 + 5 + 6 + 7, 9, 0));
    assert!(Path::new("/etc/passwd").exists(), "only the link went");
}

#[test]
fn what_others_put_there_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = open(directory.path(), LIMIT);
    let folder = spool.folder().to_owned();
    drop(spool);
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(folder.join(segment::name(3, 5))).unwrap();
    symlink("/etc/passwd", folder.join(segment::name(4, 5))).unwrap();
    std::fs::write(folder.join("ffffffffffffffff-1.otlp1"), "no next number").unwrap();
    let large = File::create(folder.join(segment::name(u64::MAX / 2 - 1, u64::from(u32::MAX)))).unwrap();
    large.set_len(1 << 43).unwrap();
    let (mut spool, tally) = open(directory.path(), 64 << 20);
    assert_eq!((spool.len(), tally.stats().recovered), (1, u64::from(u32::MAX)));
    fill(&mut spool, &tally, 1..=1);
    assert_eq!(drain(&mut spool, &tally), [1]);
    assert_eq!(std::fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
    assert!(folder.join(segment::name(3, 5)).is_dir());
}

#[test]
fn files_are_private_and_the_name_tells_no_secret() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("var").join("spool");
    let (mut spool, tally) = open(&path, LIMIT);
    fill(&mut spool, &tally, 1..=1);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(spool.folder())), (0o700, 0o700));
    assert_eq!((mode(&spool.path(&spool.segments[0])), mode(&spool.folder().join(LOCK))), (0o600, 0o600));
    let name = spool.folder().file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("collector.example-4317-"), "{name}");
    assert!(!name.contains("secret") && !name.contains("user"), "{name}");
    assert_ne!(folder_name("http://a:1/x/v1/traces"), folder_name("http://a:1/y/v1/traces"));
}

#[test]
fn two_agents_cannot_share_it_and_two_collectors_can() {
    let directory = TempDir::new().unwrap();
    let (first, _) = open(directory.path(), LIMIT);
    let error = Spool::open(directory.path(), COLLECTOR, LIMIT).unwrap_err();
    assert!(matches!(&error, SpoolError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("another agent uses the spool"), "{error}");
    let (mut other, tally) = {
        let spool = Spool::open(directory.path(), "http://other:4317/", LIMIT).unwrap();
        (spool, Tally::new("otlp".into()))
    };
    fill(&mut other, &tally, 1..=1);
    let left = left_for_others(directory.path(), &[first.folder().to_owned()]);
    assert_eq!(left, [other.folder().to_owned()]);
    drop(first);
    open(directory.path(), LIMIT);
}

#[test]
fn a_folder_that_cannot_be_used_is_named_with_a_remedy() {
    let directory = TempDir::new().unwrap();
    let says = |path: &Path, words: &[&str]| {
        let error = Spool::open(path, COLLECTOR, LIMIT).unwrap_err().to_string();
        for word in words.iter().copied().chain(["--spool"]) {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
    };
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    says(&file, &["file", "cannot use"]);
    says(Path::new("/proc/no/such"), &["/proc/no/such", "can make files"]);
    let link = directory.path().join("link");
    symlink(directory.path(), &link).unwrap();
    says(&link, &["symbolic link"]);
    says(&directory.path().join("link/"), &["symbolic link"]);
    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    says(&open, &["other users can write"]);
}

#[test]
fn a_disk_that_refuses_is_told_and_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let (mut spool, tally) = open(directory.path(), LIMIT);
    // The next name is taken, by a link at that: neither is it followed nor is it removed unseen.
    let next = spool.folder().join(segment::name(0, 1));
    symlink(directory.path().join("elsewhere"), &next).unwrap();
    tally.accept(1);
    assert_eq!(spool.write(&request(1), &tally).unwrap_err(), Cause::SpoolWriteFailed);
    assert!(!directory.path().join("elsewhere").exists());
    assert!(tally.stats().last_error.unwrap().contains("cannot write to the spool"));
    assert_eq!((spool.used, spool.len()), (0, 0));
    fill(&mut spool, &tally, 2..=2);
    assert_eq!(drain(&mut spool, &tally), [2]);
}

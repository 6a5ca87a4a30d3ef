//! What the engine relies on, shown for every disk it runs on: real files and the disk in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, IoSlice};

use vstack_engine::{BoxedDisk, Buffer, BufferPool, Disk, DiskFile, FileDisk, MemDisk, ShadowDisk};

const PAGE: usize = 4096;

fn conforms<D: Disk>(disk: &D) {
    names(disk);
    contents(disk);
    pieces(disk);
    lengths(disk);
    only_one_holds_the_lock(disk);
    let usage = disk.usage().unwrap();
    assert!(usage.total_bytes > 0 && usage.used_bytes <= usage.total_bytes);
    assert!((0.0..=100.0).contains(&usage.percent()));
}

fn names<D: Disk>(disk: &D) {
    assert!(disk.list().unwrap().is_empty());
    assert_eq!(
        disk.open("a").err().map(|error| error.kind()),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        disk.remove("a").err().map(|error| error.kind()),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        disk.rename("a", "b").err().map(|error| error.kind()),
        Some(ErrorKind::NotFound)
    );
    drop(disk.create("b").unwrap());
    let file = disk.create("a").unwrap();
    assert_eq!(
        disk.create("a").err().map(|error| error.kind()),
        Some(ErrorKind::AlreadyExists)
    );
    assert_eq!(disk.list().unwrap(), ["a", "b"]);
    file.write_at(b"from a", 0).unwrap();
    disk.rename("a", "b").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    let mut buffer = [0; 6];
    disk.open("b").unwrap().read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"from a");
    disk.remove("b").unwrap();
    assert!(disk.list().unwrap().is_empty());
}

fn contents<D: Disk>(disk: &D) {
    let file = disk.create("f").unwrap();
    file.write_at(b"0123456789", 0).unwrap();
    file.write_at(b"AB", 4).unwrap();
    file.write_at(b"end", 20).unwrap();
    file.sync_data().unwrap();
    // However much is to be had without waiting, it is what stands there.
    let mut at_once = [0; 10];
    let had = file.read_at_once(&mut at_once, 0);
    assert_eq!(at_once[..had], b"0123AB6789"[..had]);
    assert_eq!(file.read_at_once(&mut at_once, 1 << 20), 0, "behind the end");
    assert!(file.cached_at(2, 5).is_none_or(|lent| *lent == b"23AB6"[..]));
    assert!(file.cached_at(1 << 20, 1).is_none(), "behind the end");
    // Another handle of the same file sees the same, and a write behind the end leaves zeros between.
    let again = disk.open("f").unwrap();
    assert_eq!(again.size().unwrap(), 23);
    let mut buffer = [9; 23];
    again.read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer[..10], b"0123AB6789");
    assert_eq!(&buffer[10..20], &[0; 10]);
    assert_eq!(&buffer[20..], b"end");
    let behind = again.read_at(&mut [0; 4], 20).unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::UnexpectedEof);
    disk.remove("f").unwrap();
}

/// Memory that begins at a page, as the log's does.
fn in_pages(pages: usize, byte: u8) -> Buffer {
    let mut buffer = BufferPool::new(pages * PAGE, 1).try_take().unwrap();
    buffer.push(&vec![byte; pages * PAGE]).unwrap();
    buffer
}

/// Pieces are written one behind the other, wherever they begin, and who reads sees them whatever was read before.
fn pieces<D: Disk>(disk: &D) {
    const PAGES: usize = 1600;
    let file = disk.create("f").unwrap();
    file.preallocate((PAGES * PAGE) as u64).unwrap();
    let mut expected = vec![0; PAGES * PAGE];
    let check = |expected: &[u8], what: &str| {
        let mut found = vec![9; expected.len()];
        file.read_at(&mut found, 0).unwrap();
        assert!(found == expected, "{what}");
    };
    check(&expected, "zeros, which a cache may now hold");
    let (one, two) = (in_pages(1, 1), in_pages(3, 2));
    let at = |page: usize, byte: usize| (page * PAGE + byte) as u64;
    file.write_pieces_at(&[one.bytes(), two.bytes(), one.bytes()].map(IoSlice::new), at(2, 0))
        .unwrap();
    expected[2 * PAGE..7 * PAGE].fill(1);
    expected[3 * PAGE..6 * PAGE].fill(2);
    check(&expected, "pages at a page");
    file.write_pieces_at(
        &[one.bytes(), &two.bytes()[..100], one.bytes()].map(IoSlice::new),
        at(3, 0),
    )
    .unwrap();
    expected[3 * PAGE..5 * PAGE + 100].fill(1);
    expected[4 * PAGE..4 * PAGE + 100].fill(2);
    check(&expected, "a piece that is no page among them");
    file.write_pieces_at(&[&two.bytes()[1..], one.bytes()].map(IoSlice::new), at(10, 7))
        .unwrap();
    expected[10 * PAGE + 7..13 * PAGE + 6].fill(2);
    expected[13 * PAGE + 6..14 * PAGE + 6].fill(1);
    check(&expected, "none of them at a page");
    let many: Vec<_> = (0..1500).map(|_| IoSlice::new(one.bytes())).collect();
    file.write_pieces_at(&many, at(20, 0)).unwrap();
    expected[20 * PAGE..1520 * PAGE].fill(1);
    check(&expected, "more than one call takes");
    // What was lent before a write past the cache is not what is lent after it.
    if let Some(before) = file.cached_at(at(3, 0), PAGE) {
        assert!(before == expected[3 * PAGE..4 * PAGE]);
        file.write_pieces_at(&[IoSlice::new(two.bytes())], at(3, 0)).unwrap();
        expected[3 * PAGE..6 * PAGE].fill(2);
        check(&expected, "pages that were lent");
        let after = file.cached_at(at(3, 0), PAGE).unwrap();
        assert!(after == expected[3 * PAGE..4 * PAGE]);
    }
    file.write_pieces_at(&[], at(1, 0)).unwrap();
    file.write_pieces_at(&[IoSlice::new(&[]), IoSlice::new(two.bytes())], at(PAGES - 3, 0))
        .unwrap();
    expected[(PAGES - 3) * PAGE..].fill(2);
    file.sync_data().unwrap();
    check(&expected, "nothing, and up to the end");
    let mut found = vec![9; expected.len()];
    disk.open("f").unwrap().read_at(&mut found, 0).unwrap();
    assert!(found == expected, "another handle");
    disk.remove("f").unwrap();
}

fn lengths<D: Disk>(disk: &D) {
    const LEN: u64 = 1 << 20;
    let file = disk.create("f").unwrap();
    file.preallocate(LEN).unwrap();
    assert_eq!(file.size().unwrap(), LEN);
    file.preallocate(100).unwrap();
    assert_eq!(file.size().unwrap(), LEN, "never shorter");
    file.write_at(b"x", LEN / 2).unwrap();
    file.sync_data().unwrap();
    let data = file.data_from(0).unwrap();
    assert!(data.is_some_and(|data| data <= LEN / 2), "{data:?}");
    assert_eq!(file.data_from(LEN).unwrap(), None);
    // Cut and extended again, nothing of what was there is left.
    file.set_len(10).unwrap();
    file.preallocate(LEN).unwrap();
    let mut byte = [1];
    file.read_at(&mut byte, LEN / 2).unwrap();
    assert_eq!(byte, [0]);
    disk.remove("f").unwrap();
}

fn only_one_holds_the_lock<D: Disk>(disk: &D) {
    let held = disk.lock().unwrap();
    assert_eq!(disk.lock().err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    drop(held);
    drop(disk.lock().unwrap());
}

#[test]
fn real_files_conform() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&FileDisk::new(dir.path().join("made/on/demand")).unwrap());
}

#[test]
fn a_boxed_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&BoxedDisk::new(FileDisk::new(dir.path()).unwrap()));
}

#[test]
fn a_shadow_conforms_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&ShadowDisk::new(FileDisk::as_it_is(dir.path())));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    conforms(&ShadowDisk::new(MemDisk::default()));
}

/// A shadow over a file does what the file would do, and the file stays as it was.
/// Something done to a file.
type Step<'a> = &'a dyn Fn(&dyn DiskFile);

#[test]
fn a_shadow_of_a_file_changes_as_the_file_would() {
    let below = MemDisk::default();
    below.create("f").unwrap().write_at(&[7; 3 * PAGE + 100], 0).unwrap();
    let shadow = ShadowDisk::new(below.clone());
    let other = MemDisk::default();
    other.create("f").unwrap().write_at(&[7; 3 * PAGE + 100], 0).unwrap();
    let (one, two) = (shadow.open("f").unwrap(), other.open("f").unwrap());
    let steps: [Step<'_>; 9] = [
        &|file| file.write_at(&[1; 10], 5).unwrap(),
        &|file| file.write_at(&[2; 2 * PAGE], PAGE as u64 / 2).unwrap(),
        &|file| file.set_len(2 * PAGE as u64 + 10).unwrap(),
        &|file| file.preallocate(5 * PAGE as u64).unwrap(),
        &|file| file.write_at(&[3; 5], 5 * PAGE as u64 - 2).unwrap(),
        &|file| file.set_len(PAGE as u64 / 2 + 3).unwrap(),
        &|file| file.set_len(3 * PAGE as u64).unwrap(),
        &|file| file.write_at(&[7; PAGE], 0).unwrap(),
        &|file| file.write_at(&[], 100).unwrap(),
    ];
    for (number, step) in steps.iter().enumerate() {
        step(&one);
        step(&two);
        let size = two.size().unwrap();
        assert_eq!(one.size().unwrap(), size, "step {number}");
        for from in (0..size).step_by(1000) {
            let len = usize::try_from(size - from).unwrap();
            let (mut found, mut expected) = (vec![9; len], vec![8; len]);
            one.read_at(&mut found, from).unwrap();
            two.read_at(&mut expected, from).unwrap();
            assert!(found == expected, "step {number}, from {from}");
            one.read_medium_at(&mut found, from).unwrap();
            assert!(found == expected, "step {number}, from {from}, the medium");
        }
    }
    shadow.rename("f", "g").unwrap();
    shadow.create("f").unwrap();
    assert_eq!(shadow.list().unwrap(), ["f", "g"]);
    assert_eq!(below.list().unwrap(), ["f"]);
    assert_eq!(below.contents("f"), vec![7; 3 * PAGE + 100]);
    shadow.forget_changes();
    assert_eq!(shadow.open("f").unwrap().size().unwrap(), 3 * PAGE as u64 + 100);
}

#[test]
fn the_disk_in_memory_conforms() {
    conforms(&MemDisk::default());
}

#[test]
fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let mut survivors = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = MemDisk::default();
        let file = disk.create("f").unwrap();
        file.write_at(&[1; 2048], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[2; 2048], 1024).unwrap();
        disk.create("g").unwrap();
        disk.crash(seed);
        let contents = disk.contents("f");
        assert_eq!(&contents[..1024], &[1; 1024], "seed {seed}");
        assert!(contents[1024..].iter().all(|byte| matches!(byte, 0..=2)));
        survivors.insert((contents, disk.list().unwrap()));
    }
    assert!(
        survivors.len() > 10,
        "a crash must be able to go many ways, got {}",
        survivors.len()
    );
}

#[test]
fn what_a_failed_sync_dropped_is_not_saved_by_the_next_one() {
    let disk = MemDisk::default();
    let file = disk.create("f").unwrap();
    disk.sync_dir().unwrap();
    file.write_at(b"lost", 0).unwrap();
    disk.plan(disk.changes() + 1, vstack_engine::Fault::Error);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(disk.contents("f"), b"lost", "still in the cache");
    disk.crash(1);
    assert_eq!(disk.contents("f"), b"");
}

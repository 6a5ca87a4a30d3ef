//! A disk that does not give a part of what it has: the rest is served, and nothing is written off that may come back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex},
};

use support::*;
use vstack_chunkpaxos::{Reply, Request};
use vstack_engine::{
    CompactError, Disk, DiskFile, Engine, MemDisk, Missing, Op, OpenError, Outcome, Store, StoreOptions, Usage, Which,
};
use vstack_types::{ChunkId, SystemClock, VideoId};

/// A part of a file that cannot be read.
type Bad = Arc<Mutex<Option<(String, Range<u64>)>>>;

/// A file that may not be opened for writing, and why.
type Refused = Arc<Mutex<Option<(String, io::ErrorKind)>>>;

/// A disk with a bad sector.
#[derive(Debug, Clone, Default)]
struct Spotted {
    disk: MemDisk,
    bad: Bad,
    refused: Refused,
}

#[derive(Debug)]
struct SpottedFile {
    file: <MemDisk as Disk>::File,
    name: String,
    bad: Bad,
}

impl Spotted {
    fn spoil(&self, name: &str, range: Range<u64>) {
        *self.bad.lock().unwrap() = Some((name.to_owned(), range));
    }

    fn heal(&self) {
        *self.bad.lock().unwrap() = None;
    }

    fn file(&self, name: &str, file: <MemDisk as Disk>::File) -> SpottedFile {
        SpottedFile {
            file,
            name: name.to_owned(),
            bad: Arc::clone(&self.bad),
        }
    }
}

impl Disk for Spotted {
    type File = SpottedFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<SpottedFile> {
        if let Some((refused, why)) = &*self.refused.lock().unwrap()
            && refused == name
        {
            return Err((*why).into());
        }
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<SpottedFile> {
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn usage(&self) -> io::Result<Usage> {
        self.disk.usage()
    }
}

impl DiskFile for SpottedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bad = self.bad.lock().unwrap().clone();
        let end = offset + buffer.len() as u64;
        if bad.is_some_and(|(name, range)| name == self.name && offset < range.end && range.start < end) {
            return Err(io::Error::other("the sector cannot be read"));
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.allocate(from, to)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

const FIRST: &str = "superblock_000000.vsb";

/// Chunks of 50 kB over three superblocks.
fn filled(disk: &Spotted) -> Store<Spotted> {
    let mut store = open(disk);
    let mut n = 0;
    while store.reader().superblock_numbers().len() < 3 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 50_000))).unwrap();
        n += 1;
    }
    store.mark(at(2)).unwrap();
    store
}

fn readable(store: &Store<Spotted>) -> usize {
    (0..20)
        .filter(|n| served(&store.reader(), &format!("c{n}")).is_some())
        .count()
}

#[test]
fn a_superblock_that_cannot_be_read_takes_nothing_else_with_it() {
    for checkpoint in [false, true] {
        let disk = Spotted::default();
        let store = filled(&disk);
        let all = readable(&store);
        if checkpoint {
            store.reader().write_checkpoint().unwrap();
        }
        drop(store);
        for (bad, lost) in [(0..u64::MAX, 4), (0..8192, 4), (30_000..31_000, 1)] {
            disk.spoil(FIRST, bad.clone());
            let mut store = open(&disk);
            let context = format!("{bad:?}, checkpoint {checkpoint}");
            let here = readable(&store);
            assert!(
                here < all && here + lost + 1 >= all,
                "{context}: {here} of {all}: {:?}",
                store.report()
            );
            if bad.start == 0 {
                assert!(store.report().unreadable && store.reader().votes_lost(), "{context}");
                assert_eq!(
                    one(&mut store, prepare("c19", 3)),
                    Ok(Outcome::Reply(Reply::Damaged)),
                    "{context}"
                );
            }
            // Bytes are still taken.
            let name = format!("n-{}-{}", bad.start, bad.end);
            assert!(
                stored(one(&mut store, put(&name, &item(bad.start + 500, 100)))),
                "{context}"
            );
            drop(store);
            disk.heal();
            let store = open(&disk);
            assert_eq!(
                readable(&store),
                all,
                "{context}: what can be read again is there again"
            );
            assert!(!store.reader().votes_lost(), "{context}: {:?}", store.report());
            assert!(store.report().damage.is_empty(), "{context}: {:?}", store.report());
        }
    }
}

#[test]
fn an_end_that_cannot_be_read_is_given_up_only_when_that_is_asked() {
    let disk = Spotted::default();
    let store = filled(&disk);
    let last = format!(
        "superblock_{:06}.vsb",
        store.reader().superblock_numbers().last().unwrap()
    );
    let all = readable(&store);
    drop(store);
    disk.spoil(&last, 8192..u64::MAX);
    let opened = Store::open(disk.clone(), options(), at(0));
    assert!(matches!(opened, Err(OpenError::End { number: 2, .. })));
    let blind = StoreOptions {
        blind: true,
        ..options()
    };
    let mut store = Store::open(disk.clone(), blind, at(0)).unwrap();
    assert!(store.reader().votes_lost());
    assert!(readable(&store) >= all - 2);
    assert!(stored(one(&mut store, put("new", &item(900, 100)))));
    drop(store);
    disk.heal();
    let store = open(&disk);
    assert!(store.reader().votes_lost(), "for good");
    assert_eq!(served(&store.reader(), "new").unwrap(), *item(900, 100).bytes());
}

/// Also where a checkpoint says how far it went: it may be given at the next try.
#[test]
fn an_end_that_a_checkpoint_names_and_cannot_be_read_is_waited_for() {
    let large = || StoreOptions {
        superblock_bytes: 4 << 20,
        ..options()
    };
    let disk = Spotted::default();
    let mut store = Store::open(disk.clone(), large(), at(0)).unwrap();
    // More than is looked at to see whether anything was written at all.
    for n in 0..40 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 50_000))).unwrap();
    }
    store.reader().write_checkpoint().unwrap();
    drop(store);
    let written = disk.disk.contents(FIRST).iter().rposition(|byte| *byte != 0).unwrap() as u64;
    // The commit record that the checkpoint names.
    disk.spoil(FIRST, written / 4096 * 4096..written + 1);
    let opened = Store::open(disk.clone(), large(), at(1));
    assert!(
        matches!(opened, Err(OpenError::End { number: 0, .. })),
        "{:?}",
        opened.err()
    );
    disk.heal();
    let store = Store::open(disk, large(), at(1)).unwrap();
    assert!(!store.reader().votes_lost() && store.report().damage.is_empty());
}

#[test]
fn while_a_record_cannot_be_read_nothing_is_said_of_it() {
    let disk = Spotted::default();
    let mut store = filled(&disk);
    store.reader().write_checkpoint().unwrap();
    drop(store);
    store = open(&disk);
    disk.spoil(FIRST, 8192..8300);
    let reader = store.reader();
    assert_eq!(reader.find(&id("c0"), Which::Public).unwrap_err(), Missing::Unreadable);
    assert!(reader.register(&id("c0")).is_err());
    assert!(one(&mut store, prepare("c0", 4)).is_err(), "no promise, and no refusal");
    assert!(promised_with_bytes(one(&mut store, prepare("c2", 4))));
    disk.heal();
    assert!(promised_with_bytes(one(&mut store, prepare("c0", 4))));
}

#[test]
fn nothing_is_voted_over_registers_that_cannot_be_read() {
    let disk = Spotted::default();
    let bytes = item(0, 50_000);
    let mut store = open(&disk);
    one(&mut store, put_vote("c0", &bytes)).unwrap();
    assert!(promised_with_bytes(one(&mut store, prepare("c0", 7))));
    drop(store);
    drop(filled(&disk));
    disk.spoil(FIRST, 0..u64::MAX);
    let mut store = open(&disk);
    let decided = Request::Decided {
        ballot: ballot(5),
        placement: placement(&bytes, 1, &[me(), other()]),
    };
    let _ = one(&mut store, paxos("c0", decided));
    drop(store);
    disk.heal();
    let mut store = open(&disk);
    assert!(!store.reader().votes_lost());
    let late = one(&mut store, accept("c0", 6, placement(&bytes, 1, &[me(), other()])));
    assert!(
        matches!(late, Ok(Outcome::Reply(Reply::Nack { .. }))),
        "the promise still holds: {late:?}"
    );
}

#[tokio::test]
async fn a_scrub_gives_nothing_up_that_the_disk_does_not_give() {
    let disk = Spotted::default();
    let store = filled(&disk);
    let all = readable(&store);
    store.reader().write_checkpoint().unwrap();
    drop(store);
    for bad in [8192..8200, 8192..u64::MAX, 60_000..70_000] {
        let engine = Engine::open(disk.clone(), options(), Arc::new(SystemClock::start())).unwrap();
        disk.spoil(FIRST, bad.clone());
        let scrubbed = engine.scrub(0, u64::MAX, |_| {}).await.unwrap();
        assert!(scrubbed.stretches > 0, "{bad:?}: it says so: {scrubbed:?}");
        assert!(matches!(
            engine.compact(0, u64::MAX, |_| {}).await,
            Err(CompactError::Read(_))
        ));
        disk.heal();
        engine.reader().write_checkpoint().unwrap();
        engine.close().await;
        drop(engine);
        let store = open(&disk);
        assert_eq!(readable(&store), all, "{bad:?}: {:?}", store.report());
    }
}

#[test]
fn what_may_not_be_written_to_is_refused_and_not_written_off() {
    let disk = Spotted::default();
    let store = filled(&disk);
    let all = readable(&store);
    store.reader().write_checkpoint().unwrap();
    drop(store);
    for (name, why) in [
        (FIRST, io::ErrorKind::PermissionDenied),
        ("superblock_000002.vsb", io::ErrorKind::PermissionDenied),
        ("superblock_000002.vsb", io::ErrorKind::ReadOnlyFilesystem),
        ("identity", io::ErrorKind::PermissionDenied),
        ("checkpoint", io::ErrorKind::PermissionDenied),
    ] {
        *disk.refused.lock().unwrap() = Some((name.to_owned(), why));
        for blind in [false, true] {
            let options = StoreOptions { blind, ..options() };
            let opened = Store::open(disk.clone(), options, at(0));
            let Err(OpenError::NotWritable { name: named, .. }) = opened else {
                panic!("{name}, {why}, blind {blind}: {:?}", opened.err());
            };
            assert_eq!(named, name);
        }
        *disk.refused.lock().unwrap() = None;
        let store = open(&disk);
        assert_eq!(readable(&store), all, "{name}, {why}");
        assert!(
            !store.reader().votes_lost() && store.report().damage.is_empty(),
            "{name}, {why}"
        );
    }
}

/// Everything of a video, in pages of so many.
fn listed_of(store: &Store<Spotted>, video: VideoId, limit: usize) -> io::Result<(Vec<ChunkId>, Vec<ChunkId>)> {
    let reader = store.reader();
    let (mut items, mut registers, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = reader.list_items_of(video, after, limit)?;
        assert!(page.entries.len() <= limit);
        items.extend(page.entries.into_iter().map(|item| item.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = reader.list_registers_of(video, after, limit)?;
        assert!(page.entries.len() <= limit);
        registers.extend(page.entries.into_iter().map(|register| register.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    items.sort_unstable();
    registers.sort_unstable();
    Ok((items, registers))
}

/// Of a video that is taken off a disk, what is left is asked for again and again, whatever else there is.
#[test]
fn what_is_here_of_a_video_is_found_without_a_look_at_anything_else() {
    let disk = Spotted::default();
    let mut store = open(&disk);
    let (one_film, other) = (VideoId::from_bytes([1; 16]), VideoId::from_bytes([2; 16]));
    let of = |video, count| -> Vec<ChunkId> { (0..count).map(|n| ChunkId::of_video(video, n)).collect() };
    let put_all = |store: &mut Store<Spotted>, ids: &[ChunkId]| {
        for id in ids {
            one(store, put_vote(id.as_str(), &item(1, 5_000))).unwrap();
        }
    };
    put_all(&mut store, &of(one_film, 12));
    let first = store.reader().superblock_numbers();
    while store.reader().superblock_numbers().last() == first.last() {
        one(&mut store, put("staged", &item(2, 20_000))).unwrap();
        one(&mut store, Op::DeleteStaged { id: id("staged") }).unwrap();
    }
    put_all(&mut store, &of(other, 15));
    let ends_with = store.reader().superblock_numbers().last().copied().unwrap();
    assert!(ends_with > *first.last().unwrap());
    // One was given up, and of one no bytes came.
    let gone = ChunkId::of_video(one_film, 11);
    one(&mut store, accept(gone.as_str(), 4, deleted(&item(1, 5_000), 2))).unwrap();
    let promised = ChunkId::of_video(one_film, 30);
    one(&mut store, prepare(promised.as_str(), 7)).unwrap();
    store.mark(at(2)).unwrap();
    store.reader().write_checkpoint().unwrap().unwrap();
    drop(store);
    for with_checkpoint in [true, false] {
        if !with_checkpoint {
            disk.disk.remove("checkpoint").unwrap();
        }
        let store = open(&disk);
        assert_eq!(store.report().checkpoint.is_some(), with_checkpoint);
        let mut registers = of(one_film, 12);
        registers.push(promised.clone());
        for limit in [1, 5, 1_000] {
            let (items, listed) = listed_of(&store, one_film, limit).unwrap();
            assert_eq!((items.len(), &listed), (12, &registers), "pages of {limit}");
            let (items, listed) = listed_of(&store, other, limit).unwrap();
            assert_eq!((items, listed), (of(other, 15), of(other, 15)), "pages of {limit}");
        }
        assert_eq!(
            listed_of(&store, VideoId::from_bytes([3; 16]), 10).unwrap(),
            (vec![], vec![])
        );
        // Where nothing else can be read, too.
        drop(store);
        let store = open(&disk);
        disk.spoil(&format!("superblock_{:06}.vsb", first.last().unwrap()), 0..u64::MAX);
        assert_eq!(listed_of(&store, other, 10).unwrap().0, of(other, 15));
        assert!(
            listed_of(&store, one_film, 10).is_err(),
            "nothing is passed over that may be there"
        );
        disk.heal();
    }
}

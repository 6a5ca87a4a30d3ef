//! Torn tails are cut, damage below them is reported and never cut, no vote is forgotten by one bad record, and
//! bytes that changed are never served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::{Placement, Reply};
use vstack_engine::{
    Damage, DeleteOutcome, Disk as _, Item, MemDisk, Missing, OpenError, Outcome, ReadError, Store, Which,
};

const FIRST: &str = "superblock_000000.vsb";
const RECORDS_AT: usize = 8192;
const PAGE: usize = 4096;

/// Where the last byte that is not zero stands.
fn written(disk: &MemDisk, name: &str) -> usize {
    disk.contents(name).iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn copy_of(disk: &MemDisk) -> MemDisk {
    use vstack_engine::Disk as _;
    let copy = MemDisk::default();
    for name in disk.list().unwrap() {
        copy.plant(&name, &disk.contents(&name));
    }
    copy
}

/// A byte of the payload of `item`, as it was put last.
fn payload_of(disk: &MemDisk, item: &Item) -> usize {
    let payload = |bytes: &[u8]| bytes == &item.bytes()[100..164];
    disk.contents(FIRST).windows(64).rposition(payload).unwrap()
}

/// A move of `item` to this disk alone, under way.
fn joint(item: &Item) -> Placement {
    Placement {
        prev: Some(placement(item, 1, &[other()]).layout),
        ..placement(item, 2, &[me()])
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_ends() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 700), item(2, 900));
    one(&mut store, put_vote("kept", &a)).unwrap();
    let before = written(&disk, FIRST).next_multiple_of(PAGE);
    one(&mut store, put_vote("torn", &b)).unwrap();
    drop(store);
    let (contents, end) = (disk.contents(FIRST), written(&disk, FIRST));
    assert!(end > before + 900);
    for cut in before..=end {
        let copy = copy_of(&disk);
        let mut torn = contents.clone();
        torn[cut..].fill(0);
        copy.plant(FIRST, &torn);
        let store = open(&copy);
        assert!(store.report().damage.is_empty(), "cut at {cut}: {:?}", store.report());
        assert_eq!(
            served(&store.reader(), "kept").as_deref(),
            Some(&a.bytes()[..]),
            "cut at {cut}"
        );
        let whole = cut == end;
        assert_eq!(served(&store.reader(), "torn").is_some(), whole, "cut at {cut}");
        assert_eq!(
            store.reader().register(&id("torn")).unwrap().accepted.is_some(),
            whole,
            "cut at {cut}"
        );
    }
}

#[test]
fn what_a_torn_batch_left_is_never_taken_for_a_record() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let mut ops = vec![put("a", &item(1, 150_000))];
    ops.extend(["b", "d", "e", "f"].map(|name| put(name, &item(2, 500))));
    store.commit(ops, at(1));
    drop(store);
    // The first record of the batch is torn, in its payload; those behind it are whole and stand where the next batch does
    // not reach.
    disk.flip(FIRST, RECORDS_AT + PAGE + 1000);
    let mut store = open(&disk);
    assert!(store.report().torn_bytes > 10_000);
    one(&mut store, put("c", &item(3, 100_000))).unwrap();
    // Does not fit any more: what is left stands behind the end of a superblock that is not the last.
    one(&mut store, put("y", &item(4, 200_000))).unwrap();
    assert_eq!(store.reader().stats().superblocks, 2);
    drop(store);
    let store = open(&disk);
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    let names: Vec<_> = store
        .reader()
        .list_items(0, 10, None)
        .unwrap()
        .entries
        .iter()
        .map(|listed| listed.id.to_string())
        .collect();
    assert_eq!(names, ["c", "y"]);
}

#[test]
fn every_flipped_byte_of_a_small_log_is_survived() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 700);
    one(&mut store, put_vote("rides", &a)).unwrap();
    store.commit(vec![prepare("only-vote", 5), put("staged", &a)], at(1));
    let accepted = store.reader().register(&id("rides")).unwrap();
    store.mark(at(2)).unwrap();
    drop(store);
    let contents = disk.contents(FIRST);
    // Every byte that says something, and samples of the padding.
    for at in (0..written(&disk, FIRST)).filter(|at| contents[*at] != 0 || at % 61 == 0) {
        let copy = copy_of(&disk);
        copy.flip(FIRST, at);
        let mut store = open(&copy);
        let reader = store.reader();
        assert!(!reader.votes_lost(), "byte {at}: one bad record forgets no vote");
        assert_eq!(
            reader.register(&id("only-vote")).unwrap().promised,
            Some(ballot(5)),
            "byte {at}"
        );
        assert_eq!(
            reader.register(&id("rides")).unwrap().accepted,
            accepted.accepted,
            "byte {at}"
        );
        for name in ["rides", "staged"] {
            // Either the very bytes, or nothing and a report of it.
            let found = reader.find(&id(name), Which::Public);
            let read = found
                .as_ref()
                .map(|found| reader.read(found, None, support::at(3).monotonic));
            match read {
                Ok(Ok(bytes)) => assert_eq!(bytes, *a.bytes(), "byte {at}"),
                Ok(Err(ReadError::Corrupt)) | Err(Missing::Corrupt) => {
                    let sha256 = a.sha256();
                    // What was found when the store was opened is written down already.
                    if let Ok(found) = &found {
                        let (id, lsn) = (id(name), found.lsn());
                        one(&mut store, vstack_engine::Op::Quarantine { id, sha256, lsn }).unwrap();
                    }
                    let damaged = store.reader().register(&id(name)).unwrap().damaged;
                    assert_eq!(damaged, name == "rides", "byte {at}");
                }
                other => panic!("byte {at}: {name}: {other:?}"),
            }
        }
    }
}

#[test]
fn damage_below_the_mark_is_reported_and_the_rest_served() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let items: Vec<_> = (0..5).map(|n| item(n, 6000)).collect();
    for (n, item) in items.iter().enumerate() {
        one(&mut store, put_vote(&format!("c{n}"), item)).unwrap();
    }
    drop(store);
    // The head of the third chunk's record: its place is lost, its vote is told by the commit record.
    let found = disk.contents(FIRST).windows(2).position(|pair| pair == b"c2").unwrap();
    disk.flip(FIRST, found);
    let mut store = open(&disk);
    let lost = Damage::Item {
        id: id("c2"),
        sha256: items[2].sha256(),
    };
    assert!(store.report().damage.contains(&lost), "{:?}", store.report());
    assert!(
        store
            .report()
            .damage
            .iter()
            .any(|damage| matches!(damage, Damage::Stretch { superblock: 0, .. }))
    );
    for n in [0, 1, 3, 4] {
        assert_eq!(
            served(&store.reader(), &format!("c{n}")).as_deref(),
            Some(&items[n].bytes()[..])
        );
    }
    assert_eq!(
        store.reader().find(&id("c2"), Which::Public).unwrap_err(),
        Missing::Corrupt
    );
    assert_eq!(one(&mut store, prepare("c2", 3)), replied(Reply::Damaged));
    // Restoring the bytes ends the damage, for good.
    assert!(stored(one(&mut store, put_item("c2", &items[2]))));
    assert!(promised_with_bytes(one(&mut store, prepare("c2", 3))));
    drop(store);
    let store = open(&disk);
    assert_eq!(served(&store.reader(), "c2").as_deref(), Some(&items[2].bytes()[..]));
    assert!(!store.reader().register(&id("c2")).unwrap().damaged);
}

#[test]
fn a_copy_that_rotted_in_a_running_store_lets_no_old_copy_go() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 50_000);
    let vote = |name| accept(name, 1, joint(&a));
    let rot = || disk.flip(FIRST, payload_of(&disk, &a));
    for name in ["sound", "rotten"] {
        one(&mut store, put_item(name, &a)).unwrap();
        assert_eq!(one(&mut store, vote(name)), accepted(1));
    }
    rot();
    // Long after the vote made sure of them.
    let later = at(3 + 25 * 3600);
    assert!(promised_with_bytes(one_at(&mut store, prepare("sound", 2), later)));
    assert_eq!(one_at(&mut store, prepare("rotten", 2), later), replied(Reply::Damaged));
    // Nor does a copy that rotted before the vote take part in one.
    one_at(&mut store, put_item("never-sound", &a), later).unwrap();
    rot();
    assert_eq!(one_at(&mut store, vote("never-sound"), later), needs(&a));
}

#[test]
fn a_copy_that_is_still_being_written_is_not_condemned() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 5_000);
    let vote = || accept("a", 1, joint(&a));
    let outcomes = store.commit(vec![put_item("a", &a), vote()], at(1));
    assert_eq!(outcomes[1], needs(&a), "nobody read it back yet");
    assert_eq!(one(&mut store, vote()), accepted(1));
    assert!(promised_with_bytes(one(&mut store, prepare("a", 2))));
    assert!(!restarted(store, &disk).reader().register(&id("a")).unwrap().damaged);
}

#[test]
fn changed_bytes_are_never_served_and_the_register_abstains() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 50_000);
    one(&mut store, put_vote("c", &a)).unwrap();
    let copy = payload_of(&disk, &a);
    one(&mut store, put("staged", &a)).unwrap();
    disk.flip(FIRST, copy);
    let reader = store.reader();
    let found = reader.find(&id("c"), Which::Public).unwrap();
    for _ in 0..2 {
        assert!(matches!(
            reader.read(&found, None, at(3).monotonic),
            Err(ReadError::Corrupt)
        ));
    }
    let range = Some(vstack_types::ByteRange {
        start: 40_000,
        end: 40_001,
    });
    assert!(
        matches!(reader.read(&found, range, at(3).monotonic), Err(ReadError::Corrupt)),
        "also far from the flip"
    );
    assert_eq!(reader.find(&id("c"), Which::Public).unwrap_err(), Missing::Corrupt);
    let lsn = found.lsn();
    let quarantine = || vstack_engine::Op::Quarantine {
        id: id("c"),
        sha256: a.sha256(),
        lsn,
    };
    one(&mut store, quarantine()).unwrap();
    let written_down = store.reader().log_seq();
    one(&mut store, quarantine()).unwrap();
    assert_eq!(store.reader().log_seq(), written_down, "once is enough");
    assert_eq!(one(&mut store, put_vote("c", &a)), voted(Reply::Damaged, false));
    drop(store);
    let mut store = open(&disk);
    assert_eq!(
        store.reader().find(&id("c"), Which::Public).unwrap_err(),
        Missing::Corrupt
    );
    assert!(store.reader().register(&id("c")).unwrap().damaged);
    assert_eq!(
        served(&store.reader(), "staged").as_deref(),
        Some(&a.bytes()[..]),
        "another id's copy is its own"
    );
    assert!(
        stored(one(&mut store, put("c", &a))),
        "a plain PUT of the same bytes restores too"
    );
    assert_eq!(served(&store.reader(), "c").as_deref(), Some(&a.bytes()[..]));
    assert!(!store.reader().register(&id("c")).unwrap().damaged);
    // A reader that was slow to tell means the copy that was replaced.
    one(&mut store, quarantine()).unwrap();
    assert_eq!(served(&store.reader(), "c").as_deref(), Some(&a.bytes()[..]));
    assert!(!store.reader().register(&id("c")).unwrap().damaged);
}

#[test]
fn damage_is_found_before_a_vote_vouches_for_the_bytes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 5000);
    one(&mut store, put_item("c", &a)).unwrap();
    store.mark(at(1)).unwrap();
    drop(store);
    disk.flip(FIRST, payload_of(&disk, &a));
    let mut store = open(&disk);
    let vote = || accept("c", 1, placement(&a, 1, &[me()]));
    assert_eq!(one(&mut store, vote()), needs(&a));
    assert!(stored(one(&mut store, put_item("c", &a))));
    assert_eq!(one(&mut store, vote()), accepted(1));
}

#[test]
fn when_both_copies_of_votes_are_gone_the_disk_votes_no_more() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    one(&mut store, put_vote("before", &a)).unwrap();
    one(&mut store, put_item("unclear", &a)).unwrap();
    let from = written(&disk, FIRST).next_multiple_of(PAGE);
    one(&mut store, put_vote("lost", &a)).unwrap();
    let to = written(&disk, FIRST).next_multiple_of(PAGE);
    one(&mut store, put_vote("after", &a)).unwrap();
    drop(store);
    let mut contents = disk.contents(FIRST);
    contents[from..to].fill(0);
    disk.plant(FIRST, &contents);
    let mut store = open(&disk);
    assert!(store.reader().votes_lost());
    assert!(
        store
            .report()
            .damage
            .iter()
            .any(|damage| matches!(damage, Damage::Votes { .. }))
    );
    assert_eq!(one(&mut store, put_vote("lost", &a)), voted(Reply::Damaged, false));
    assert_eq!(one(&mut store, prepare("unheard-of", 1)), replied(Reply::Damaged));
    assert_eq!(
        served(&store.reader(), "before").as_deref(),
        Some(&a.bytes()[..]),
        "reads go on"
    );
    assert!(stored(one(&mut store, put("plain", &a))));
    // A vote that is lost may vouch for any of the bytes here: none of them may go.
    let zero = std::time::Duration::ZERO;
    let nothing = vstack_engine::Collected::default();
    assert_eq!(collect(&mut store, zero, zero, at(1000)), Ok(nothing));
    let delete = |name: &str| vstack_engine::Op::DeleteStaged { id: id(name) };
    let answered = |outcome| Ok(Outcome::Deleted(outcome));
    assert_eq!(one(&mut store, delete("unclear")), answered(DeleteOutcome::Placed));
    assert_eq!(one(&mut store, delete("nothing")), answered(DeleteOutcome::NotFound));
    assert_eq!(served(&store.reader(), "unclear").as_deref(), Some(&a.bytes()[..]));
}

#[test]
fn a_superblock_without_a_head_is_damage_and_a_half_made_one_is_not() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let items: Vec<_> = (0..12).map(|n| item(n, 60_000)).collect();
    for (n, item) in items.iter().enumerate() {
        one(&mut store, put_vote(&format!("c{n}"), item)).unwrap();
    }
    assert_eq!(store.reader().stats().superblocks, 4);
    drop(store);
    let half_made = copy_of(&disk);
    half_made.plant("superblock_000004.vsb", &vec![0; 256 * 1024]);
    let store = open(&half_made);
    assert!(store.report().damage.is_empty());
    assert_eq!(served(&store.reader(), "c11").as_deref(), Some(&items[11].bytes()[..]));
    drop(store);
    // One head: the other copy serves, and it is reported.
    let one_head = copy_of(&disk);
    one_head.flip("superblock_000001.vsb", 20);
    let store = open(&one_head);
    assert_eq!(store.report().damage, [Damage::Head { number: 1 }]);
    assert_eq!(served(&store.reader(), "c5").as_deref(), Some(&items[5].bytes()[..]));
    drop(store);
    // Both heads: nothing of it can be read, nor known.
    for (name, first_left) in [("superblock_000001.vsb", 6), ("superblock_000003.vsb", 0)] {
        let no_head = copy_of(&disk);
        no_head.flip(name, 20);
        no_head.flip(name, PAGE + 20);
        let mut store = open(&no_head);
        assert!(store.reader().votes_lost(), "{name}");
        assert_eq!(
            served(&store.reader(), &format!("c{first_left}")).as_deref(),
            Some(&items[first_left].bytes()[..])
        );
        assert!(stored(one(&mut store, put("new", &items[0]))));
        let seq = store.reader().log_seq();
        drop(store);
        let store = open(&no_head);
        assert!(store.reader().log_seq() > seq);
        assert_eq!(served(&store.reader(), "new").as_deref(), Some(&items[0].bytes()[..]));
    }
}

#[test]
fn a_damaged_end_before_a_half_made_superblock_may_have_held_votes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    one(&mut store, put_vote("kept", &a)).unwrap();
    let from = written(&disk, FIRST).next_multiple_of(PAGE);
    one(&mut store, put_vote("lost", &a)).unwrap();
    let seq = store.reader().log_seq();
    drop(store);
    // The last batch is damaged, or its second half is gone.
    let half = written(&disk, FIRST) - PAGE;
    for (flipped, cut) in [
        (vec![from, half.next_multiple_of(PAGE)], None),
        (vec![], Some(from + PAGE)),
    ] {
        let damaged = copy_of(&disk);
        flipped.iter().for_each(|at| damaged.flip(FIRST, *at));
        if let Some(cut) = cut {
            let mut contents = damaged.contents(FIRST);
            contents[cut..].fill(0);
            damaged.plant(FIRST, &contents);
        }
        // The one behind it exists, so all of this one was synced.
        damaged.plant("superblock_000001.vsb", &vec![0; 256 * 1024]);
        for opened in 0..2 {
            let mut store = open(&damaged);
            assert!(store.reader().votes_lost(), "opened {opened}: {:?}", store.report());
            assert!(store.reader().log_seq() >= seq, "no sequence number is used twice");
            assert_eq!(served(&store.reader(), "kept").as_deref(), Some(&a.bytes()[..]));
            assert!(one(&mut store, put(&format!("new{opened}"), &a)).is_ok());
        }
    }
}

/// The text of a small file with the checksum that belongs to it.
fn with_checksum(text: &str) -> String {
    let lines = &text[..text.rfind("crc ").unwrap()];
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, lines.as_bytes());
    format!("{lines}crc {crc:08x}\n")
}

#[test]
fn foreign_newer_and_nameless_directories_are_refused() {
    use vstack_engine::Disk as _;
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("a", &item(1, 10))).unwrap();
    let second = Store::open(disk.clone(), options(), at(0));
    assert!(matches!(second, Err(OpenError::Locked)));
    drop(store);

    let nameless = copy_of(&disk);
    nameless.remove("identity").unwrap();
    assert!(matches!(
        Store::open(nameless, options(), at(0)),
        Err(OpenError::IdentityMissing)
    ));

    let emptied = copy_of(&disk);
    emptied.remove(FIRST).unwrap();
    let refused = Store::open(emptied.clone(), options(), at(0));
    assert!(matches!(refused, Err(OpenError::SuperblocksMissing)));
    // Blank, it is no superblock that was being made.
    emptied.plant(FIRST, &vec![0; 256 * 1024]);
    assert!(open(&emptied).reader().votes_lost());

    let elsewhere = MemDisk::default();
    let another = vstack_engine::StoreOptions {
        new_uuid: other().uuid,
        ..options()
    };
    drop(Store::open(elsewhere.clone(), another, at(0)).unwrap());
    let foreign = copy_of(&disk);
    foreign.plant("identity", &elsewhere.contents("identity"));
    assert!(matches!(
        Store::open(foreign, options(), at(0)),
        Err(OpenError::Foreign { number: 0, .. })
    ));

    let changed = copy_of(&disk);
    changed.flip("identity", 20);
    let error = Store::open(changed, options(), at(0)).err().unwrap().to_string();
    assert!(
        error.contains("damaged") && error.contains("vstack node adopt"),
        "{error}"
    );

    let newer = copy_of(&disk);
    let identity = String::from_utf8(disk.contents("identity")).unwrap();
    newer.plant(
        "identity",
        with_checksum(&identity.replacen("disk 1", "disk 2", 1)).as_bytes(),
    );
    let error = Store::open(newer, options(), at(0)).err().unwrap().to_string();
    assert!(error.contains("format 2") && error.contains("newer"), "{error}");
}

#[test]
fn a_file_that_belongs_elsewhere_stops_the_start_with_its_name() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("c", &item(1, 100))).unwrap();
    drop(store);
    disk.create("superblock_4294967295.vsb").unwrap();
    let refused = Store::open(disk.clone(), options(), at(0));
    assert!(matches!(refused, Err(OpenError::Missing { number: u32::MAX, .. })));
    disk.remove("superblock_4294967295.vsb").unwrap();
    assert!(served(&open(&disk).reader(), "c").is_some());
}

//! Who knows what was told at some version, and is told what changed behind it, knows everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use proptest::prelude::*;
use support::*;
use vstack_chunkpaxos::{Brief, Placement, Request};
use vstack_engine::{
    Adoption, Disk, HELD_BUCKETS, HELD_PARTS, HeldPart, Item, MemDisk, Op, Outcome, Reader, Store, Wanted, held_bucket,
};
use vstack_types::NodeUuid;

const FILE: &str = "superblock_000000.vsb";
const HOUR: Duration = Duration::from_secs(3600);

/// What is told of each bucket.
type Told = BTreeMap<u16, (Vec<(u64, u32, bool, Wanted)>, Vec<(u64, Brief)>)>;

fn told(parts: impl Iterator<Item = HeldPart>) -> Told {
    let mut told = Told::new();
    for part in parts {
        for item in part.items {
            told.entry(held_bucket(item.0)).or_default().0.push(item);
        }
        for register in part.registers {
            told.entry(held_bucket(register.0)).or_default().1.push(register);
        }
    }
    for (items, registers) in told.values_mut() {
        items.sort_unstable();
        registers.sort_unstable();
    }
    told
}

fn everything<D: Disk>(reader: &Reader<D>) -> Told {
    told((0..HELD_PARTS).map(|part| reader.held(part)))
}

fn of_buckets<D: Disk>(reader: &Reader<D>, buckets: &[u16]) -> Told {
    told((0..HELD_PARTS).map(|part| reader.held_in(part, buckets)))
}

/// Whoever asks for what changed.
struct Follower {
    version: u64,
    told: Told,
}

impl Follower {
    fn of<D: Disk>(reader: &Reader<D>) -> Self {
        Self {
            version: reader.held_version(),
            told: everything(reader),
        }
    }

    /// Asks for what changed; gives the buckets in which something did.
    fn asks<D: Disk>(&mut self, reader: &Reader<D>) -> Vec<u16> {
        let (version, changed) = reader.held_changes(self.version).unwrap();
        assert!(version >= self.version);
        self.told.retain(|bucket, _| changed.binary_search(bucket).is_err());
        self.told.extend(of_buckets(reader, &changed));
        self.version = version;
        changed
    }
}

fn bucket<D: Disk>(reader: &Reader<D>, name: &str) -> u16 {
    held_bucket(reader.fingerprint_key().of(&id(name)))
}

/// What is known by following is everything; says whether anything changed, which is of `name` then.
fn is_followed<D: Disk>(follower: &mut Follower, reader: &Reader<D>, name: &str, what: &str) -> bool {
    let changed = follower.asks(reader);
    assert_eq!(follower.told, everything(reader), "{what}");
    assert!(changed.iter().all(|changed| *changed == bucket(reader, name)), "{what}");
    assert_eq!(reader.held_changes(follower.version), Some((follower.version, vec![])));
    !changed.is_empty()
}

fn decided(name: &str, round: u64, placement: Placement) -> Op {
    paxos(
        name,
        Request::Decided {
            ballot: ballot(round),
            placement,
        },
    )
}

fn rots(disk: &MemDisk, bytes: &[u8]) {
    let contents = disk.contents(FILE);
    let found = contents.windows(64).rposition(|here| here == &bytes[100..164]);
    disk.flip(FILE, found.unwrap());
}

#[test]
fn every_kind_of_change_is_told() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let reader = store.reader();
    let (a, b, c) = (item(1, 9_000), item(2, 700), item(3, 7_000));
    let mut follower = Follower::of(&reader);
    let mut does = |store: &mut Store<MemDisk>, name: &str, what: &str, op: Op| {
        one(store, op).unwrap();
        is_followed(&mut follower, &store.reader(), name, what)
    };
    let s = &mut store;
    assert!(does(s, "staged", "bytes without a vote", put("staged", &a)));
    assert!(!does(s, "staged", "the same again", put("staged", &a)));
    assert!(does(s, "voted", "bytes and a vote", put_vote("voted", &a)));
    assert!(!does(s, "voted", "a promise says nothing of them", prepare("voted", 4)));
    assert!(does(
        s,
        "promised",
        "but that there is a register",
        prepare("promised", 4)
    ));
    assert!(does(
        s,
        "voted",
        "a decision",
        decided("voted", 5, placement(&a, 1, &[me(), other()]))
    ));
    assert!(!does(
        s,
        "voted",
        "the same again",
        decided("voted", 5, placement(&a, 1, &[me(), other()]))
    ));
    assert!(does(s, "moved", "bytes and a vote", put_vote("moved", &b)));
    assert!(does(
        s,
        "moved",
        "a move away",
        decided("moved", 5, placement(&b, 2, &[other()]))
    ));
    assert!(does(s, "staged", "a deletion", Op::DeleteStaged { id: id("staged") }));
    assert!(does(s, "item", "bytes for a vote to come", put_item("item", &c)));
    assert!(does(
        s,
        "item",
        "a vote for them",
        accept("item", 1, placement(&c, 1, &[me(), other()]))
    ));
    collect(&mut store, HOUR, DAY, at(2 * 3600)).unwrap();
    assert!(is_followed(
        &mut follower,
        &reader,
        "moved",
        "what is left is collected"
    ));

    // Whoever reads what has rotted learns it, and it is written down behind that.
    rots(&disk, a.bytes());
    assert_eq!(served(&reader, "voted"), None);
    assert!(is_followed(&mut follower, &reader, "voted", "damage is learnt"));
    assert_eq!(served(&reader, "voted"), None);
    assert!(!is_followed(&mut follower, &reader, "voted", "it is known"));
    one(&mut store, Op::Mend { id: id("voted") }).unwrap();
    assert!(is_followed(&mut follower, &reader, "voted", "its register abstains"));
    assert!(stored(one(&mut store, put_item("voted", &a))));
    assert!(is_followed(&mut follower, &reader, "voted", "it is restored"));
    assert_eq!(one(&mut store, Op::Seal), Ok(Outcome::Sealed));
    assert!(!is_followed(&mut follower, &reader, "voted", "a seal is told apart"));
}

#[test]
fn what_is_moved_on_the_disk_is_no_change() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let reader = store.reader();
    for n in 0..6 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 20_000))).unwrap();
        one(&mut store, put(&format!("s{n}"), &item(n, 300))).unwrap();
    }
    while reader.superblock_numbers().len() < 2 {
        let n = reader.log_seq();
        one(&mut store, put(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
    let mut follower = Follower::of(&reader);
    let before = reader.stats().moved_bytes;
    for offset in reader.wanted_records(0).unwrap() {
        let moves = reader.read_for_move(0, offset).unwrap().into_iter().collect();
        one(&mut store, Op::Move { moves }).unwrap();
    }
    assert_eq!(one(&mut store, Op::Empty { superblock: 0 }), Ok(Outcome::Emptied(true)));
    assert!(reader.stats().moved_bytes >= before + 120_000);
    assert_eq!(follower.asks(&reader), Vec::<u16>::new());
    assert_eq!(follower.told, everything(&reader));
}

/// Another process counts anew, and so does a disk under another name: what was told before is asked for by nobody.
#[test]
fn a_restart_and_a_new_name_begin_anew() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put_vote("voted", &item(1, 5_000))).unwrap();
    one(&mut store, put("staged", &item(2, 700))).unwrap();
    let before = everything(&store.reader());
    store.mark(at(2)).unwrap();
    for from_checkpoint in [false, true] {
        if from_checkpoint {
            store.reader().write_checkpoint().unwrap().unwrap();
        }
        store = restarted(store, &disk);
        assert_eq!(store.report().checkpoint.is_some(), from_checkpoint);
        let reader = store.reader();
        assert_eq!(everything(&reader), before, "{from_checkpoint}");
        assert_eq!(reader.held_changes(u64::MAX), None, "no version of this process");
        let (_, changed) = reader.held_changes(0).unwrap();
        assert_eq!(
            of_buckets(&reader, &changed),
            before,
            "everything came behind the first one"
        );
        let mut follower = Follower::of(&reader);
        assert!(stored(one(
            &mut store,
            put(&format!("more-{from_checkpoint}"), &item(3, 10))
        )));
        let name = format!("more-{from_checkpoint}");
        assert!(is_followed(&mut follower, &reader, &name, "it goes on from there"));
        assert!(stored(one(&mut store, put("gone", &item(4, 10)))));
        one(&mut store, Op::DeleteStaged { id: id("gone") }).unwrap();
        one(&mut store, Op::DeleteStaged { id: id(&name) }).unwrap();
        assert_eq!(follower.asks(&reader).len(), 2);
        assert_eq!(everything(&reader), before);
        store.mark(at(3)).unwrap();
    }
    drop(store);
    let adoption = Adoption::look(disk.clone(), options().superblock_bytes, at(4).wall).unwrap();
    adoption.adopt(NodeUuid::from_bytes([8; 16])).unwrap();
    let mut store = open(&disk);
    let reader = store.reader();
    let everything_now = everything(&reader);
    assert_eq!(everything_now.len(), before.len());
    for (items, registers) in everything_now.values() {
        assert!(registers.is_empty(), "its votes are given up");
        assert!(items.iter().all(|(.., wanted)| *wanted == Wanted::Staged));
    }
    let mut follower = Follower::of(&reader);
    one(&mut store, prepare("voted", 9)).unwrap();
    assert!(is_followed(&mut follower, &reader, "voted", "under the new name"));
}

#[test]
fn some_buckets_are_told_as_they_are_in_everything() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let ops = (0..4_000).map(|n| put_vote(&format!("c{n}"), &item(n, 10)));
    let results = store.commit(ops.collect(), at(1));
    assert!(results.iter().all(Result::is_ok));
    let reader = store.reader();
    let all = everything(&reader);
    assert!(all.len() > 3_000);
    // From none over a few, which are looked for, to nearly all, which are met on the way over everything.
    for step in [1, 2, 3, 100, 9_999, HELD_BUCKETS] {
        let buckets: Vec<u16> = (0..=u16::MAX).skip(step / 2).step_by(step).collect();
        let mut expected = all.clone();
        expected.retain(|bucket, _| buckets.binary_search(bucket).is_ok());
        assert_eq!(of_buckets(&reader, &buckets), expected, "{step}");
    }
    for (bucket, expected) in all.iter().step_by(40) {
        let only = Told::from([(*bucket, expected.clone())]);
        assert_eq!(of_buckets(&reader, &[*bucket]), only);
    }
    assert_eq!(of_buckets(&reader, &[]), Told::new());
    assert_eq!(of_buckets(&reader, &(0..=u16::MAX).collect::<Vec<_>>()), all);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u64),
    Item(u8, u64),
    Vote(u8, u64),
    Prepare(u8, u64),
    Accept(u8, u64, u64),
    Decided(u8, u64, u64),
    Deleted(u8, u64),
    DeleteStaged(u8),
    Collect,
    Compact,
    Rot(u8, u64),
    Mend(u8),
    Ask,
}

fn any_step() -> impl Strategy<Value = Step> {
    let (name, seed, round) = (0..5_u8, 0..3_u64, 1..9_u64);
    prop_oneof![
        (name.clone(), seed.clone()).prop_map(|(n, s)| Step::Put(n, s)),
        (name.clone(), seed.clone()).prop_map(|(n, s)| Step::Item(n, s)),
        (name.clone(), seed.clone()).prop_map(|(n, s)| Step::Vote(n, s)),
        (name.clone(), round.clone()).prop_map(|(n, r)| Step::Prepare(n, r)),
        (name.clone(), seed.clone(), round.clone()).prop_map(|(n, s, r)| Step::Accept(n, s, r)),
        (name.clone(), seed.clone(), round).prop_map(|(n, s, r)| Step::Decided(n, s, r)),
        (name.clone(), seed.clone()).prop_map(|(n, s)| Step::Deleted(n, s)),
        name.clone().prop_map(Step::DeleteStaged),
        Just(Step::Collect),
        Just(Step::Compact),
        (name.clone(), seed).prop_map(|(n, s)| Step::Rot(n, s)),
        name.prop_map(Step::Mend),
        Just(Step::Ask),
    ]
}

fn bytes_of(seed: u64) -> Item {
    item(seed + 1, 9_000)
}

/// Does it, whether it is taken or refused.
fn step(store: &mut Store<MemDisk>, disk: &MemDisk, step: &Step, now: u64) {
    let name = |n: &u8| format!("c{n}");
    let layout = |round: u64| {
        if round.is_multiple_of(3) {
            vec![other()]
        } else {
            vec![me(), other()]
        }
    };
    let op = match step {
        Step::Put(n, seed) => put(&name(n), &bytes_of(*seed)),
        Step::Item(n, seed) => put_item(&name(n), &bytes_of(*seed)),
        Step::Vote(n, seed) => put_vote(&name(n), &bytes_of(*seed)),
        Step::Prepare(n, round) => prepare(&name(n), *round),
        Step::Accept(n, seed, round) => accept(&name(n), *round, placement(&bytes_of(*seed), *round, &layout(*round))),
        Step::Decided(n, seed, round) => {
            decided(&name(n), *round, placement(&bytes_of(*seed), *round, &layout(*round)))
        }
        Step::Deleted(n, seed) => decided(&name(n), 20, deleted(&bytes_of(*seed), 9)),
        Step::DeleteStaged(n) => Op::DeleteStaged { id: id(&name(n)) },
        Step::Mend(n) => Op::Mend { id: id(&name(n)) },
        Step::Collect => {
            collect(store, HOUR, 2 * HOUR, at(now)).unwrap();
            return;
        }
        Step::Compact => {
            let reader = store.reader();
            let ended = reader.superblock_numbers().into_iter().rev().skip(1);
            for number in ended.collect::<Vec<_>>() {
                // Where not even a deletion can be read, it is left as it is.
                let Ok(wanted) = reader.wanted_records(number) else {
                    continue;
                };
                for offset in wanted {
                    let moves = reader.read_for_move(number, offset).unwrap().into_iter().collect();
                    one_at(store, Op::Move { moves }, at(now)).unwrap();
                }
                one_at(store, Op::Empty { superblock: number }, at(now)).unwrap();
            }
            return;
        }
        Step::Rot(n, seed) => {
            let item = bytes_of(*seed);
            let sought = &item.bytes()[100..164];
            for file in disk.list().unwrap().iter().filter(|file| file.ends_with(".vsb")) {
                let contents = disk.contents(file);
                if let Some(found) = contents.windows(64).position(|here| here == sought) {
                    disk.flip(file, found);
                    break;
                }
            }
            // Who reads it finds out, whichever it was.
            served(&store.reader(), &name(n));
            return;
        }
        Step::Ask => return,
    };
    drop(one_at(store, op, at(now)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done, by whichever way.
    #[test]
    fn who_follows_knows_everything(steps in prop::collection::vec(any_step(), 1..60)) {
        let disk = MemDisk::default();
        let mut store = open(&disk);
        let reader = store.reader();
        let mut follower = Follower::of(&reader);
        for (at, next) in (0..).zip(&steps) {
            // Time goes on, so that something comes to be collected.
            step(&mut store, &disk, next, at * 600);
            if matches!(next, Step::Ask) {
                follower.asks(&reader);
                let so_far = &steps[..=usize::try_from(at).unwrap()];
                prop_assert_eq!(&follower.told, &everything(&reader), "behind {:?}", so_far);
            }
        }
        follower.asks(&reader);
        prop_assert_eq!(&follower.told, &everything(&reader));
    }
}

#[test]
fn what_changes_while_it_is_told_is_told_later() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let reader = store.reader();
    let (begins, ends) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let follows = scope.spawn(|| {
            let mut follower = Follower::of(&reader);
            begins.wait();
            while !ends.load(Ordering::Acquire) {
                follower.asks(&reader);
            }
            follower.asks(&reader);
            follower
        });
        begins.wait();
        for n in 0..3_000 {
            let name = format!("c{}", n % 40);
            let op = match n % 3 {
                0 => put(&name, &item(n, 20)),
                1 => prepare(&name, n),
                _ => Op::DeleteStaged { id: id(&name) },
            };
            drop(one(&mut store, op));
        }
        ends.store(true, Ordering::Release);
        assert_eq!(follows.join().unwrap().told, everything(&reader));
    });
}

//! What was moved is as close as it gets: what surrounds it is no waste, however much of it there is, and a superblock of
//! it is not worth emptying until some of it is not wanted any more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::Range;

use support::*;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_engine::{Item, MemDisk, Op, Outcome, PutMode, PutOutcome, Store, StoreOptions, Waste};
use vstack_types::{NodeRef, NodeUuid};

const SUPERBLOCK: u64 = 2 << 20;

/// So many fit one superblock, of registers that name as many nodes as there may be: they take three times what is reckoned
/// with for them.
const REGISTERS: usize = 1000;

const TOGETHER: usize = 250;

fn opened(disk: &MemDisk) -> Store<MemDisk> {
    let options = StoreOptions {
        superblock_bytes: SUPERBLOCK,
        ..options()
    };
    let store = Store::open(disk.clone(), options, at(0)).unwrap();
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    store
}

fn on(item: &Item, version: u64, nodes: Range<u8>) -> Placement {
    let nodes = nodes.map(|number| NodeRef::first(NodeUuid::from_bytes([number; 16])));
    Placement {
        layout: Layout::Replicated { nodes: nodes.collect() },
        ..placement(item, version, &[])
    }
}

/// Hears that some chunks are on so many others, for the `version`-th time.
fn hears(store: &mut Store<MemDisk>, chunks: Range<usize>, others: u8, version: u64) {
    let placement = on(&item(1, 10), version, 10..10 + others);
    let decision = |number| (id(&format!("r{number}")), ballot(version), placement.clone());
    let all: Vec<_> = chunks.map(decision).collect();
    for some in all.chunks(TOGETHER) {
        let decisions = some.to_vec();
        assert_eq!(one(store, Op::Decided { decisions }), Ok(Outcome::Noted));
    }
}

/// Goes on in a new superblock.
fn turned(store: &mut Store<MemDisk>) {
    assert!(matches!(one(store, Op::Turn), Ok(Outcome::Turned(_))));
}

/// Writes again what is wanted of a superblock.
fn moved(store: &mut Store<MemDisk>, number: u32) {
    let reader = store.reader();
    for some in reader.wanted_records(number).unwrap().chunks(TOGETHER) {
        let moves = some.iter().map(|offset| reader.read_for_move(number, *offset).unwrap());
        let moves = moves.flatten().collect();
        assert!(matches!(one(store, Op::Move { moves }), Ok(Outcome::Moved(_))));
    }
}

fn emptied(store: &mut Store<MemDisk>, number: u32) {
    moved(store, number);
    let emptied = one(store, Op::Empty { superblock: number });
    assert_eq!(emptied, Ok(Outcome::Emptied(true)), "{number}");
}

/// The superblock that is worth emptying where so many percent are waste.
fn worth(store: &Store<MemDisk>, percent: u64) -> Option<u32> {
    let reader = store.reader();
    reader
        .most_wasteful(SUPERBLOCK, Waste::percent(percent), 0..u32::MAX)
        .unwrap()
}

/// A store of registers that were moved from superblock 0 to 1, and that goes on in 2.
fn of_moved_registers(disk: &MemDisk) -> Store<MemDisk> {
    let mut store = opened(disk);
    hears(&mut store, 0..REGISTERS, 31, 1);
    assert_eq!(store.reader().superblock_numbers(), [0]);
    turned(&mut store);
    assert_eq!(worth(&store, 30), Some(0), "nothing is known of it");
    emptied(&mut store, 0);
    turned(&mut store);
    assert_eq!(store.reader().superblock_numbers(), [1, 2]);
    store
}

#[test]
fn it_is_not_worth_emptying_as_long_as_it_is_wanted() {
    let store = of_moved_registers(&MemDisk::default());
    let space = store.reader().space().unwrap()[0];
    assert!(space.written() > 3 * space.live, "{space:?}");
    assert_eq!(worth(&store, 1), None, "{space:?}");
}

#[test]
fn it_is_worth_it_as_some_of_it_is_not_wanted_any_more() {
    let mut store = of_moved_registers(&MemDisk::default());
    // They are elsewhere now.
    hears(&mut store, 0..REGISTERS / 10, 3, 2);
    assert_eq!((worth(&store, 30), worth(&store, 15)), (None, None), "a tenth of it");
    assert_eq!(worth(&store, 5), Some(1), "a tenth of it");
    hears(&mut store, REGISTERS / 10..REGISTERS / 2, 3, 2);
    assert_eq!((worth(&store, 60), worth(&store, 30)), (None, Some(1)), "half of it");
    emptied(&mut store, 1);
    turned(&mut store);
    assert_eq!(store.reader().stats().register_count, REGISTERS as u64);
    // What was heard last was not moved yet.
    assert_eq!(worth(&store, 30), None);
}

/// Nothing of it is written down.
#[test]
fn after_a_start_it_is_found_out_by_moving_it_once() {
    let disk = MemDisk::default();
    drop(of_moved_registers(&disk));
    let mut store = opened(&disk);
    assert_eq!(worth(&store, 30), Some(1));
    emptied(&mut store, 1);
    turned(&mut store);
    assert_eq!(worth(&store, 1), None);
}

/// That others write beside it, and that what was moved is not emptied in the end, changes nothing of what is known.
#[test]
fn what_others_write_beside_it_is_told_from_it() {
    let disk = MemDisk::default();
    let mut store = opened(&disk);
    hears(&mut store, 0..REGISTERS / 2, 31, 1);
    turned(&mut store);
    // Put one by one, most of what these take is waste.
    let small = item(2, 3000);
    let few = |store: &mut Store<MemDisk>, name: &str| {
        for number in 0..60 {
            assert!(stored(one(store, put(&format!("{name}{number}"), &small))));
        }
    };
    few(&mut store, "before");
    moved(&mut store, 0);
    few(&mut store, "after");
    turned(&mut store);
    let space = store.reader().space().unwrap();
    let beside = space.iter().find(|space| space.number == 1).unwrap();
    let of_others = 120 * (8192 - 3512);
    let waste = beside.waste();
    assert!(
        (of_others * 9 / 10..=of_others * 11 / 10).contains(&waste),
        "{beside:?}"
    );
    let emptied = one(&mut store, Op::Empty { superblock: 0 });
    assert_eq!(emptied, Ok(Outcome::Emptied(true)));
    assert_eq!((worth(&store, 40), worth(&store, 20)), (None, Some(1)), "{beside:?}");
}

/// With bytes, too: small ones with a register that is larger than they are reckoned with.
#[test]
fn items_with_large_registers_are_as_close_as_it_gets() {
    let mut store = opened(&MemDisk::default());
    let small = item(3, 1000);
    let mut nodes = vec![me()];
    nodes.extend((10..41).map(|number| NodeRef::first(NodeUuid::from_bytes([number; 16]))));
    let vote = PutMode::Vote {
        ballot: ballot(0),
        placement: placement(&small, 1, &nodes),
    };
    for number in 0..200 {
        let put = Op::Put {
            id: id(&format!("c{number}")),
            item: small.clone(),
            mode: vote.clone(),
        };
        let put = one(&mut store, put);
        assert!(
            matches!(put, Ok(Outcome::Put(PutOutcome::Voted { stored: true, .. }))),
            "{put:?}"
        );
    }
    turned(&mut store);
    assert_eq!(worth(&store, 30), Some(0));
    emptied(&mut store, 0);
    turned(&mut store);
    let space = store.reader().space().unwrap()[0];
    assert!(space.unavoidable > 100_000, "{space:?}");
    assert_eq!(worth(&store, 1), None, "{space:?}");
    for number in 0..100 {
        // Their bytes and their places are given up together.
        let deleted = Op::Decided {
            decisions: vec![(id(&format!("c{number}")), ballot(1), deleted(&small, 2))],
        };
        assert_eq!(one(&mut store, deleted), Ok(Outcome::Noted));
    }
    collect(&mut store, std::time::Duration::ZERO, DAY, at(100)).unwrap();
    assert_eq!(store.reader().stats().chunk_count, 100);
    assert_eq!((worth(&store, 60), worth(&store, 30)), (None, Some(1)), "{space:?}");
}

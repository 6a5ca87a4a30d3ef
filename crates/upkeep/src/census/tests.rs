//! What is counted, missed and told.

use vstack_api::holdings::{HeldItem, HeldRegister, Wanted};
use vstack_chunkpaxos::{Brief, Layout, Placement};
use vstack_types::NodeUuid;

use super::*;

const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn placed(sequence: u32, version: u64, on: &[u8], from: Option<&[u8]>) -> Placement {
    let layout = |on: &[u8]| Layout::Replicated {
        nodes: on.iter().map(|n| node(*n)).collect(),
    };
    Placement {
        version,
        size: 100,
        sha256: Digest::of(&sequence.to_le_bytes()),
        layout: layout(on),
        prev: from.map(layout),
        back: false,
    }
}

/// The key of one node.
fn print(n: u8) -> FingerprintKey {
    FingerprintKey::from_bytes([n; 16])
}

fn learn(census: &mut Census, sequence: u32, placement: &Placement) {
    let id = ChunkId::of_video(VIDEO, sequence);
    census.learn(VIDEO, Part::Chunk(sequence), &id, placement, 100);
}

/// What node `n` holds when all of these are there.
fn holdings(n: u8, placements: &[(u32, Placement)]) -> Holdings {
    let of = |sequence: &u32| print(n).of(&ChunkId::of_video(VIDEO, *sequence));
    let mut held = Holdings {
        items: placements
            .iter()
            .map(|(sequence, placement)| HeldItem {
                fingerprint: of(sequence),
                tag: tag_of(placement.sha256),
                damaged: false,
                wanted: Wanted::Placed,
            })
            .collect(),
        registers: placements
            .iter()
            .map(|(sequence, placement)| HeldRegister {
                fingerprint: of(sequence),
                brief: placement.brief(),
            })
            .collect(),
    };
    held.items.sort_unstable();
    held.registers.sort_unstable();
    held
}

fn census(placements: &[(u32, Placement)]) -> Census {
    let mut census = Census::default();
    for (sequence, placement) in placements {
        learn(&mut census, *sequence, placement);
    }
    census
}

fn seen(census: &Census, sequence: u32) -> Vec<(Seen, Seat)> {
    let row = census.row(VIDEO, Part::Chunk(sequence)).unwrap();
    row.items.iter().map(|item| (item.seen, item.seat)).collect()
}

#[test]
fn what_is_there_is_counted_and_what_is_not_is_missed() {
    let placements: Vec<_> = (0..40).map(|n| (n, placed(n, 1, &[1, 2], None))).collect();
    let mut census = census(&placements);
    assert_eq!(seen(&census, 7), [(Seen::NotCounted, Seat::NotCounted); 2]);
    assert_eq!(census.count(node(1), &holdings(1, &placements), print(1), 100), []);
    assert_eq!(
        seen(&census, 7),
        [(Seen::Whole, Seat::Agrees), (Seen::NotCounted, Seat::NotCounted)]
    );
    let mut less = holdings(2, &placements[..39]);
    less.items[3].damaged = true;
    less.registers[5].brief = Brief::from_code(77);
    assert_eq!(census.count(node(2), &less, print(2), 100), []);
    let all: Vec<_> = census.rows().map(|(_, row)| row.items[1]).collect();
    let count = |seen| all.iter().filter(|item| item.seen == seen).count();
    let seats = |seat| all.iter().filter(|item| item.seat == seat).count();
    assert_eq!(
        (count(Seen::Whole), count(Seen::Damaged), count(Seen::Absent)),
        (38, 1, 1)
    );
    assert_eq!(
        (seats(Seat::Agrees), seats(Seat::Differs), seats(Seat::Empty)),
        (38, 1, 1)
    );
    census.uncount(node(2));
    assert_eq!(seen(&census, 39)[1], (Seen::NotCounted, Seat::NotCounted));
}

#[test]
fn what_may_only_be_late_is_not_missed_yet() {
    let placements = [(0, placed(0, 1, &[1], None))];
    let mut census = census(&placements);
    let nothing = Holdings::default();
    census.count(node(1), &nothing, print(1), 99);
    assert_eq!(seen(&census, 0), [(Seen::NotCounted, Seat::NotCounted)]);
    census.count(node(1), &holdings(1, &placements), print(1), 99);
    assert_eq!(seen(&census, 0), [(Seen::Whole, Seat::Agrees)]);
    census.count(node(1), &nothing, print(1), 100);
    assert_eq!(seen(&census, 0), [(Seen::Absent, Seat::Empty)]);
}

#[test]
fn what_nobody_expects_is_told() {
    let placements: Vec<_> = (0..4).map(|n| (n, placed(n, 1, &[1, 2], None))).collect();
    let mut census = census(&placements[..3]);
    let strangers = census.count(node(1), &holdings(1, &placements), print(1), 100);
    let fingerprint = print(1).of(&ChunkId::of_video(VIDEO, 3));
    let [Stranger::Item(item), Stranger::Register(register)] = &strangers[..] else {
        panic!("{strangers:?}")
    };
    assert_eq!((item.fingerprint, register.fingerprint), (fingerprint, fingerprint));
    census.forget(VIDEO, Part::Chunk(0));
    assert_eq!(census.count(node(1), &holdings(1, &placements), print(1), 100).len(), 4);
    assert_eq!((census.chunks(), census.nodes()), (2, vec![node(1), node(2)]));
    census.forget_video(VIDEO);
    assert_eq!(
        (census.chunks(), census.nodes()),
        (0, vec![]),
        "nothing is expected of anybody"
    );
}

#[test]
fn a_chunk_in_the_place_of_another_is_another_register() {
    let first = (0, placed(0, 5, &[1, 2], None));
    let mut census = census(std::slice::from_ref(&first));
    census.count(node(1), &holdings(1, std::slice::from_ref(&first)), print(1), 100);
    let learned = [node(1), node(2), node(3)].map(|node| census.learned_of(node));
    assert_eq!(learned, [1, 1, 0]);
    let id: ChunkId = format!("{VIDEO}-chunk-000-r1").parse().unwrap();
    census.learn(VIDEO, Part::Chunk(0), &id, &placed(0, 1, &[1, 3], None), 100);
    assert_eq!(census.id(VIDEO, Part::Chunk(0)), id);
    assert_eq!(seen(&census, 0), [(Seen::NotCounted, Seat::NotCounted); 2]);
    let learned = [node(1), node(2), node(3)].map(|node| census.learned_of(node));
    assert_eq!(learned, [2, 2, 2], "who had the other one is concerned, too");
    assert_eq!(census.chunks(), 1);
}

#[test]
fn what_is_listed_wrongly_stays_so_until_something_else_is_listed() {
    const CHUNK: Part = Part::Chunk(0);
    let placements = [(0, placed(0, 1, &[1, 2], None))];
    let mut census = census(&placements);
    let seen_of = |census: &Census| seen(census, 0).into_iter().map(|(seen, _)| seen).collect::<Vec<_>>();
    assert!(census.note_wrong(VIDEO, CHUNK, 1, &[1]));
    assert!(!census.note_wrong(VIDEO, CHUNK, 1, &[1]), "that is known");
    assert!(!census.note_wrong(VIDEO, CHUNK, 2, &[0]), "that is another placement");
    for n in [1, 2] {
        assert_eq!(census.count(node(n), &holdings(n, &placements), print(n), 100), []);
    }
    assert_eq!(seen_of(&census), [Seen::Whole, Seen::Wrong]);
    census.note(node(2), VIDEO, CHUNK, placements[0].1.sha256, Seen::Whole);
    census.uncount(node(2));
    assert_eq!(seen_of(&census), [Seen::Whole, Seen::Wrong]);
    assert_eq!(census.row(VIDEO, CHUNK).unwrap().wrong(), [1]);
    assert!(census.note_wrong(VIDEO, CHUNK, 1, &[]), "it is not, after all");
    assert_eq!(seen_of(&census), [Seen::Whole, Seen::NotCounted]);
    census.note_wrong(VIDEO, CHUNK, 1, &[1]);
    learn(&mut census, 0, &placed(0, 2, &[1, 3], None));
    assert_eq!(seen_of(&census), [Seen::Whole, Seen::NotCounted]);
}

#[test]
fn what_stays_where_it_is_stays_counted_through_a_move() {
    let first = (5, placed(5, 1, &[1, 2], None));
    let mut census = census(std::slice::from_ref(&first));
    census.count(node(1), &holdings(1, std::slice::from_ref(&first)), print(1), 100);
    let joint = placed(5, 2, &[1, 3], Some(&[1, 2]));
    learn(&mut census, 5, &joint);
    let row = census.row(VIDEO, Part::Chunk(5)).unwrap();
    assert_eq!(
        (row.items.len(), row.of_layout().count(), row.of_prev().count()),
        (3, 2, 2)
    );
    assert_eq!(row.items[0].seen, Seen::Whole);
    assert_eq!(row.items[0].seat, Seat::NotCounted, "its register is another one now");
    learn(&mut census, 5, &first.1);
    assert!(
        census.row(VIDEO, Part::Chunk(5)).unwrap().joint,
        "older news changes nothing"
    );
}

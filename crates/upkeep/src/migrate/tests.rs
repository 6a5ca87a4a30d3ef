//! What is brought into another form, and how what is shards stands and is mended.

mod copies_again;

use std::collections::BTreeSet;

use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_placement::{Candidate, Liveness};
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid, limits::CODED_BYTES_MIN};

use super::*;
use crate::{
    census::Census,
    plan::Cluster,
    standing::{Seen, Standing},
};

const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);
const DATA: NonZeroU8 = NonZeroU8::new(3).unwrap();
#[expect(clippy::cast_possible_truncation, reason = "small")]
const BYTES_MIN: u32 = CODED_BYTES_MIN as u32;
const SHARDS: Wished = Wished::Shards {
    data: DATA,
    parity: 2,
    bytes_min: BYTES_MIN,
    asked: false,
};
const COPIES: Wished = Wished::Copies { asked: false };

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn copies(on: &[u8]) -> Layout {
    Layout::Replicated {
        nodes: on.iter().map(|n| node(*n)).collect(),
    }
}

fn shards(on: &[u8]) -> Layout {
    let shard = |(index, n): (u8, &u8)| Shard {
        index,
        node: node(*n),
        sha256: Digest::of(&[index]),
    };
    Layout::Coded {
        data: 3,
        parity: 2,
        shards: (0..).zip(on).map(shard).collect(),
    }
}

fn placed(size: u64, layout: Layout, prev: Option<Layout>) -> Placement {
    Placement {
        version: 1,
        size,
        sha256: Digest::of(b"chunk"),
        layout,
        prev,
        back: false,
    }
}

/// Everything is counted, and whole on every node but `damaged`, and on those that are `missing` nothing is.
fn census(placements: &[Placement], damaged: &[u8], missing: &[u8]) -> Census {
    let mut census = Census::default();
    for (sequence, placement) in (0..).zip(placements) {
        let id = ChunkId::of_video(VIDEO, sequence);
        census.learn(VIDEO, Part::Chunk(sequence), &id, placement, 0);
    }
    for n in (1..=9).filter(|n| !missing.contains(n)) {
        let mut held = Holdings::default();
        for (sequence, placement) in (0..).zip(placements) {
            let fingerprint = KEY.of(&ChunkId::of_video(VIDEO, sequence));
            let layouts = std::iter::once(&placement.layout).chain(&placement.prev);
            let mut tags: Vec<u32> = layouts
                .flat_map(|layout| placement.items_of(layout, node(n)))
                .map(tag_of)
                .collect();
            tags.sort_unstable();
            tags.dedup();
            held.items.extend(tags.into_iter().map(|tag| HeldItem {
                fingerprint,
                tag,
                damaged: damaged.contains(&n),
                wanted: Wanted::Placed,
            }));
            if placement.names(node(n)) {
                let brief = placement.brief();
                held.registers.push(HeldRegister { fingerprint, brief });
            }
        }
        held.items.sort_unstable();
        held.registers.sort_unstable();
        census.count(node(n), &held, KEY, 0);
    }
    census
}

fn nodes(count: u8) -> Vec<Candidate> {
    (1..=count).map(|n| Candidate::healthy(node(n))).collect()
}

fn cluster(nodes: &[Candidate]) -> Cluster<'_> {
    Cluster {
        nodes,
        gone: &[],
        lost: &[],
        copies: 3,
    }
}

fn next(outlook: &Outlook<'_>, wished: Wished, avoided: &BTreeMap<(VideoId, Part), Vec<NodeRef>>) -> Migrations {
    let tried = Tried {
        held_back: |_: VideoId, _: Part| false,
        avoided,
    };
    migrations(outlook, &BTreeMap::from([(VIDEO, wished)]), 100, tried)
}

fn planned(census: &Census, candidates: &[Candidate], wished: Wished) -> Migrations {
    let outlook = Outlook::new(census, cluster(candidates));
    next(&outlook, wished, &BTreeMap::new())
}

#[test]
fn copies_become_shards_on_nodes_of_their_own_and_come_back() {
    let census_of = |layout| census(&[placed(300_000, layout, None)], &[], &[]);
    let to_shards = planned(&census_of(copies(&[1, 2, 3])), &nodes(6), SHARDS);
    let [
        Migration {
            job: Job::Encode { data, to },
            bytes,
            ..
        },
    ] = &to_shards.next[..]
    else {
        panic!("{to_shards:?}")
    };
    let mut distinct = to.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((*data, distinct.len()), (DATA, 5));
    // Who has no copy gets one, and four shards are fetched to prove all of them.
    let lacking = distinct.iter().filter(|at| ![1, 2, 3].map(node).contains(at)).count();
    assert_eq!(*bytes, lacking as u64 * 300_000 + 4 * 100_000);
    let to_copies = planned(&census_of(shards(&[1, 2, 3, 4, 5])), &nodes(6), COPIES);
    let [
        Migration {
            job: Job::Decode { to },
            bytes,
            ..
        },
    ] = &to_copies.next[..]
    else {
        panic!("{to_copies:?}")
    };
    // Three shards each, but for the one that it has itself.
    let own = to.iter().filter(|at| **at != node(6)).count();
    assert_eq!((to.len(), *bytes), (3, 900_000 - own as u64 * 100_000));
    let as_wished = planned(&census_of(shards(&[1, 2, 3, 4, 5])), &nodes(6), SHARDS);
    assert_eq!(as_wished, Migrations::default());
    let as_wished = planned(&census_of(copies(&[1, 2, 3])), &nodes(6), COPIES);
    assert_eq!(as_wished, Migrations::default());
}

#[test]
fn what_is_small_stays_as_copies_and_what_is_not_whole_waits() {
    let small = placed(CODED_BYTES_MIN as u64 - 1, copies(&[1, 2, 3]), None);
    assert_eq!(
        planned(&census(&[small], &[], &[]), &nodes(5), SHARDS),
        Migrations::default()
    );
    let large = placed(300_000, copies(&[1, 2, 3]), None);
    let waits = planned(&census(&[large], &[2], &[]), &nodes(5), SHARDS);
    assert_eq!(waits.next, []);
    let of_video = Waiting {
        chunks: 1,
        bytes: 300_000,
        unready: 1,
    };
    assert_eq!(waits.waiting, BTreeMap::from([(VIDEO, of_video)]));
    let moving = placed(300_000, copies(&[1, 2, 4]), Some(copies(&[1, 2, 3])));
    assert_eq!(planned(&census(&[moving], &[], &[]), &nodes(5), SHARDS).next, []);
}

#[test]
fn where_there_are_too_few_nodes_it_is_said() {
    let large = placed(300_000, copies(&[1, 2]), None);
    let census = census(&[large], &[], &[]);
    let two = nodes(2);
    let outlook = Outlook::new(
        &census,
        Cluster {
            copies: 2,
            ..cluster(&two)
        },
    );
    let refused = next(&outlook, SHARDS, &BTreeMap::new());
    assert_eq!(refused.next, []);
    let why = refused.refused.unwrap().to_string();
    assert!(
        why.contains("3+2") && why.contains("2 nodes can take chunks now"),
        "{why}"
    );
}

#[test]
fn nobody_but_who_asks_for_it_has_chunks_survive_less() {
    let large = placed(300_000, copies(&[1, 2, 3]), None);
    let census = census(&[large], &[], &[]);
    let refused = planned(&census, &nodes(3), SHARDS);
    assert_eq!(refused.next, []);
    let why = refused.refused.unwrap().to_string();
    assert!(why.contains("survive the loss of 1, and of 2 as copies"), "{why}");
    let asked = Wished::Shards {
        data: DATA,
        parity: 2,
        bytes_min: 1,
        asked: true,
    };
    let done = planned(&census, &nodes(3), asked);
    assert_eq!((done.next.len(), done.refused), (1, None));
}

/// However many nodes there are.
#[test]
fn nobody_but_who_asks_for_it_has_chunks_survive_less_for_want_of_parity() {
    let with_parity = |parity: u8, asked: bool| Wished::Shards {
        data: DATA,
        parity,
        bytes_min: 1,
        asked,
    };
    let on = |copies: &[u8]| census(&[placed(300_000, self::copies(copies), None)], &[], &[]);
    let three = on(&[1, 2, 3]);
    let refused = planned(&three, &nodes(9), with_parity(1, false));
    assert_eq!(refused.next, []);
    let why = refused.refused.unwrap().to_string();
    assert!(
        why.contains("on 9 nodes") && why.contains("survive the loss of 1, and of 2 as copies"),
        "{why}"
    );
    assert!(why.contains("more parity shards"), "{why}");
    for (parity, asked) in [(1, true), (2, false), (3, false)] {
        let done = planned(&three, &nodes(9), with_parity(parity, asked));
        assert_eq!((done.next.len(), done.refused), (1, None), "{parity} {asked}");
    }
    // What copies survive is what there are, and not what is usual: with two copies wanted, one parity shard is as good.
    let (two, nodes) = (on(&[1, 2]), nodes(9));
    let cluster = Cluster {
        copies: 2,
        ..cluster(&nodes)
    };
    let outlook = Outlook::new(&two, cluster);
    let done = next(&outlook, with_parity(1, false), &BTreeMap::new());
    assert_eq!((done.next.len(), done.refused), (1, None));
}

#[test]
fn nodes_that_can_be_given_nothing_are_not_counted_with_the_others() {
    let census = census(&[placed(300_000, copies(&[1, 2, 3]), None)], &[], &[]);
    let mut five = nodes(5);
    five[3].leaving = true;
    five[4].disk_percent = 90.0;
    let refused = planned(&census, &five, SHARDS);
    assert_eq!(refused.next, []);
    let why = refused.refused.unwrap().to_string();
    assert!(why.contains("on 3 nodes"), "{why}");
    five[2].liveness = Liveness::Degraded;
    let why = planned(&census, &five, SHARDS).refused.unwrap().to_string();
    let takers = "2 of 5 nodes can take chunks now (1 is being emptied, 1 is silent, 1 is nearly full)";
    assert!(why.ends_with(takers), "{why}");
}

#[test]
fn shards_double_up_and_survive_what_they_can() {
    let on_three = placed(300_000, shards(&[1, 2, 1, 2, 3]), None);
    let census = census(&[on_three], &[], &[]);
    let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
    let of = |candidates: &[Candidate]| Outlook::new(&census, cluster(candidates)).judge(VIDEO, row, &[]);
    assert_eq!(of(&nodes(3)), (Standing::Whole, None), "no three nodes survive more");
    let (standing, job) = of(&nodes(5));
    assert_eq!(standing, Standing::Under { survives: 1 });
    let Some(Job::Move { to }) = job else { panic!("{job:?}") };
    // Each by its index: what stays is where it was.
    assert_eq!([to[0], to[1], to[4]], [1, 2, 3].map(node));
    let mut moved = to;
    moved.sort_unstable();
    assert_eq!(moved, [1, 2, 3, 4, 5].map(node));
}

#[test]
fn a_shard_of_a_lost_node_is_made_anew_elsewhere_and_a_damaged_one_where_it_is() {
    let on_five = || placed(300_000, shards(&[1, 2, 3, 4, 5]), None);
    let damaged = census(&[on_five()], &[2], &[]);
    let row = damaged.row(VIDEO, Part::Chunk(0)).unwrap();
    let six = nodes(6);
    let (standing, job) = Outlook::new(&damaged, cluster(&six)).judge(VIDEO, row, &[]);
    assert_eq!(standing, Standing::Under { survives: 1 });
    let tag = tag_of(Digest::of(&[1]));
    assert_eq!(job, Some(Job::Restore { node: node(2), tag }));
    let whole = census(&[on_five()], &[], &[]);
    let row = whole.row(VIDEO, Part::Chunk(0)).unwrap();
    let gone = [node(2)];
    let mut rest = nodes(6);
    rest[1].liveness = Liveness::Down;
    let cluster = Cluster {
        gone: &gone,
        ..cluster(&rest)
    };
    let (standing, job) = Outlook::new(&whole, cluster).judge(VIDEO, row, &[]);
    assert_eq!(standing, Standing::Under { survives: 1 });
    assert_eq!(
        job,
        Some(Job::Move {
            to: [1, 6, 3, 4, 5].map(node).to_vec()
        })
    );
}

#[test]
fn a_shard_that_is_none_of_the_chunk_is_made_anew_and_not_moved_as_it_is() {
    const CHUNK: Part = Part::Chunk(0);
    let mut census = census(&[placed(300_000, shards(&[1, 2, 3, 4, 5]), None)], &[], &[]);
    let judged = |census: &Census, candidates: &[Candidate]| {
        let row = census.row(VIDEO, CHUNK).unwrap();
        Outlook::new(census, cluster(candidates)).judge(VIDEO, row, &[])
    };
    let correct = |to: [u8; 5]| {
        Some(Job::Correct {
            to: to.map(node).to_vec(),
        })
    };
    assert!(census.note_wrong(VIDEO, CHUNK, 1, &[4]));
    let under = Standing::Under { survives: 1 };
    assert_eq!(judged(&census, &nodes(6)), (under, correct([1, 2, 3, 4, 5])));
    let mut leaves = nodes(6);
    leaves[4].leaving = true;
    assert_eq!(judged(&census, &leaves).1, correct([1, 2, 3, 4, 6]));
    // Where too few are right it is lost, and named like all that are.
    assert!(census.note_wrong(VIDEO, CHUNK, 1, &[0, 1, 2, 3, 4]));
    assert_eq!(judged(&census, &nodes(6)), (Standing::Lost, None));
    // Unless somebody has a whole copy left: then all of them are made of that.
    let (six, lent) = (nodes(6), BTreeSet::from([(VIDEO, CHUNK)]));
    let row = census.row(VIDEO, CHUNK).unwrap();
    let rescued = Outlook::new(&census, cluster(&six)).with_lent(&lent);
    let expected = (Standing::Lost, correct([1, 2, 3, 4, 5]));
    assert_eq!(rescued.judge(VIDEO, row, &[]), expected);
}

#[test]
fn a_node_that_made_something_else_of_a_chunk_is_given_no_shard_of_it_for_a_while() {
    let census = census(&[placed(300_000, copies(&[1, 2, 3]), None)], &[], &[]);
    let six = nodes(6);
    let outlook = Outlook::new(&census, cluster(&six));
    let made_by = |avoided: &[NodeRef]| {
        let avoided = BTreeMap::from([((VIDEO, Part::Chunk(0)), avoided.to_vec())]);
        let planned = next(&outlook, SHARDS, &avoided);
        let [
            Migration {
                job: Job::Encode { to, .. },
                ..
            },
        ] = &planned.next[..]
        else {
            panic!("{planned:?}")
        };
        to.clone()
    };
    let first = made_by(&[]);
    for maker in &first {
        let others = made_by(&[*maker]);
        assert!(!others.contains(maker), "{maker} is not asked again");
        assert_eq!(others.len(), 5);
    }
}

#[test]
fn a_move_of_what_is_listed_wrongly_turns_back() {
    const CHUNK: Part = Part::Chunk(0);
    let settled = placed(300_000, shards(&[1, 2, 3, 4, 5]), None);
    let mut census = census(std::slice::from_ref(&settled), &[], &[]);
    assert!(census.note_wrong(VIDEO, CHUNK, 1, &[4]));
    // Somebody began it before that was known.
    let moving = Placement {
        version: 2,
        layout: shards(&[6, 2, 3, 4, 5]),
        prev: Some(settled.layout.clone()),
        ..settled
    };
    census.learn(VIDEO, CHUNK, &ChunkId::of_video(VIDEO, 0), &moving, 0);
    let row = census.row(VIDEO, CHUNK).unwrap();
    assert_eq!(row.wrong(), [4], "what stays where it is stays wrong");
    let nodes = nodes(6);
    let (_, job) = Outlook::new(&census, cluster(&nodes)).judge(VIDEO, row, &[]);
    assert_eq!(job, Some(Job::TurnBack));
}

/// As many shards are left on either side, and no more than it takes to read the chunk: nobody may let the old one go.
#[test]
fn a_move_that_cannot_be_ended_without_who_is_lost_turns_back() {
    let moving = placed(300_000, shards(&[1, 2, 3, 3, 4]), Some(shards(&[1, 2, 3, 4, 4])));
    let census = census(&[moving], &[], &[]);
    let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
    let mut four = nodes(4);
    four[2].liveness = Liveness::Down;
    let lost = [node(3)];
    let cluster = Cluster {
        gone: &lost,
        lost: &lost,
        ..cluster(&four)
    };
    let (standing, job) = Outlook::new(&census, cluster).judge(VIDEO, row, &[]);
    assert_eq!((standing, job), (Standing::Endangered, Some(Job::TurnBack)));
}

#[test]
fn while_its_form_changes_a_chunk_stands_as_its_better_half_does() {
    let moving = placed(300_000, shards(&[1, 2, 3, 4, 5]), Some(copies(&[1, 2, 3])));
    let stands = |missing: &[u8]| {
        let census = census(std::slice::from_ref(&moving), &[], missing);
        let five = nodes(5);
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        let of_node = |n: u8| {
            row.items
                .iter()
                .any(|item| census.node(item.node) == Some(node(n)) && item.seen == Seen::Whole)
        };
        assert!(missing.iter().all(|n| !of_node(*n)));
        Outlook::new(&census, cluster(&five)).judge(VIDEO, row, &[])
    };
    assert_eq!(stands(&[]).1, Some(Job::Settle));
    // Shards and copies of others do not add up: of two shards nothing can be read.
    let (standing, _) = stands(&[1, 2, 4]);
    assert_eq!(standing, Standing::Uncounted.min(standing), "{standing:?}");
    assert_ne!(standing, Standing::Whole);
}

#[test]
fn what_is_in_doubt_is_never_called_whole_and_stays_in_its_form() {
    let mut census = census(&[placed(300_000, shards(&[1, 2, 3, 4, 5]), None)], &[], &[]);
    let candidates = nodes(6);
    let of = |census: &Census| {
        let outlook = Outlook::new(census, cluster(&candidates));
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        (outlook.standing(row), outlook.survives(row))
    };
    assert_eq!(of(&census), (Standing::Whole, Some(2)));
    assert!(census.note_doubt(VIDEO, Part::Chunk(0), 1));
    assert_eq!(of(&census), (Standing::Uncounted, None));
    let to_copies = planned(&census, &candidates, COPIES);
    assert_eq!((to_copies.next.len(), to_copies.waiting[&VIDEO].unready), (0, 1));
    // Where it is does not depend on what it is.
    let mut leaves = candidates.clone();
    leaves[0].leaving = true;
    let outlook = Outlook::new(&census, cluster(&leaves));
    let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
    let job = outlook.due(VIDEO, row, &[]).map(|due| due.job);
    assert!(matches!(job, Some(Job::Move { .. })), "{job:?}");
    assert!(census.note_wrong(VIDEO, Part::Chunk(0), 1, &[]));
    assert_eq!(of(&census).0, Standing::Whole);
}

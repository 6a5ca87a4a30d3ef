//! What is moved, and that it comes to an end.

use proptest::prelude::*;
use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_placement::losses_survived;
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid};

use super::*;

const VIDEO: VideoId = VideoId::from_bytes([3; 16]);
const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn candidate(n: u8) -> Candidate {
    Candidate::healthy(node(n))
}

fn placement(sequence: u32, version: u64, on: &[NodeRef]) -> Placement {
    Placement {
        version,
        size: 1_000,
        sha256: Digest::of(&sequence.to_le_bytes()),
        layout: Layout::Replicated { nodes: on.to_vec() },
        prev: None,
        back: false,
    }
}

/// Chunks on these nodes, all counted and whole.
fn census(chunks: &[Vec<NodeRef>]) -> Census {
    let mut census = Census::default();
    let mut held: BTreeMap<NodeRef, Holdings> = BTreeMap::new();
    for (sequence, on) in (0..).zip(chunks) {
        let (id, placement) = (ChunkId::of_video(VIDEO, sequence), placement(sequence, 1, on));
        census.learn(VIDEO, Part::Chunk(sequence), &id, &placement, 0);
        for node in on {
            let held = held.entry(*node).or_default();
            held.items.push(HeldItem {
                fingerprint: KEY.of(&id),
                tag: tag_of(placement.sha256),
                damaged: false,
                wanted: Wanted::Placed,
            });
            held.registers.push(HeldRegister {
                fingerprint: KEY.of(&id),
                brief: placement.brief(),
            });
        }
    }
    for (node, mut held) in held {
        held.sort();
        assert_eq!(census.count(node, &held, KEY, 0), []);
    }
    census
}

fn outlook<'a>(census: &'a Census, nodes: &'a [Candidate]) -> Outlook<'a> {
    let cluster = Cluster {
        nodes,
        gone: &[],
        lost: &[],
        copies: 2,
    };
    Outlook::new(census, cluster)
}

fn shifted(census: &Census, nodes: &[Candidate], limit: usize) -> Vec<Shift> {
    shifts(&outlook(census, nodes), limit, |_, _| false)
}

/// The zones there are and how many chunks are crowded there, and what is moved for that.
fn zoned(census: &Census, nodes: &[Candidate]) -> (Option<Zones>, Vec<Shift>) {
    let outlook = outlook(census, nodes);
    (zones_of(&outlook), spread(&outlook, 1_000, |_, _| false))
}

/// Nodes from 1 on, in these zones.
fn in_zones<Z: ToString>(zones: &[Z]) -> Vec<Candidate> {
    let in_zone = |(n, zone): (u8, &Z)| Candidate {
        zone: zone.to_string(),
        ..candidate(n)
    };
    (1..).zip(zones).map(in_zone).collect()
}

/// Chunks of which so many shards are needed, each shard on the node that is named in its place, all counted and whole.
fn coded(chunks: &[Vec<NodeRef>], data: u8) -> Census {
    let mut census = Census::default();
    let mut held: BTreeMap<NodeRef, Holdings> = BTreeMap::new();
    for (sequence, on) in (0..).zip(chunks) {
        let id = ChunkId::of_video(VIDEO, sequence);
        let shard = |(index, node): (u8, &NodeRef)| Shard {
            index,
            node: *node,
            sha256: Digest::of(&[&[index][..], &sequence.to_le_bytes()].concat()),
        };
        let shards: Vec<Shard> = (0..).zip(on).map(shard).collect();
        let placement = Placement {
            layout: Layout::Coded {
                data,
                parity: u8::try_from(on.len()).unwrap() - data,
                shards: shards.clone(),
            },
            ..placement(sequence, 1, on)
        };
        census.learn(VIDEO, Part::Chunk(sequence), &id, &placement, 0);
        let (fingerprint, brief) = (KEY.of(&id), placement.brief());
        for shard in shards {
            let held = held.entry(shard.node).or_default();
            held.items.push(HeldItem {
                fingerprint,
                tag: tag_of(shard.sha256),
                damaged: false,
                wanted: Wanted::Placed,
            });
            let register = HeldRegister { fingerprint, brief };
            if !held.registers.contains(&register) {
                held.registers.push(register);
            }
        }
    }
    for (node, mut held) in held {
        held.sort();
        assert_eq!(census.count(node, &held, KEY, 0), []);
    }
    census
}

/// How a chunk stands: after the loss of how many nodes, of how many zones, and of which single zones it can be read.
fn stands(nodes: &[NodeRef], candidates: &[Candidate], data: usize) -> [usize; 3] {
    let zone = |node: &NodeRef| {
        let candidate = candidates.iter().find(|candidate| candidate.node == *node);
        candidate.expect("it is one of them").zone.as_str()
    };
    let zones: Vec<&str> = nodes.iter().map(zone).collect();
    let all: std::collections::BTreeSet<&str> = candidates.iter().map(|it| it.zone.as_str()).collect();
    let is_survived = |lost: &&str| zones.iter().filter(|zone| *zone != lost).count() >= data;
    [
        losses_survived(nodes, data),
        losses_survived(&zones, data),
        all.iter().filter(|zone| is_survived(zone)).count(),
    ]
}

/// Chunks after these shifts.
fn after(chunks: &[Vec<NodeRef>], shifts: &[Shift]) -> Vec<Vec<NodeRef>> {
    let mut after = chunks.to_vec();
    for shift in shifts {
        let Part::Chunk(sequence) = shift.part else { continue };
        after[sequence as usize].clone_from(&shift.to);
    }
    after
}

fn counts(chunks: &[Vec<NodeRef>]) -> BTreeMap<NodeRef, usize> {
    let mut counts = BTreeMap::new();
    chunks
        .iter()
        .flatten()
        .for_each(|node| *counts.entry(*node).or_default() += 1);
    counts
}

#[test]
fn a_new_node_gets_its_share_and_no_more() {
    let chunks = vec![vec![node(1), node(2)]; 90];
    let nodes: Vec<_> = (1..=3).map(candidate).collect();
    let shifts = shifted(&census(&chunks), &nodes, 1_000);
    let counts = counts(&after(&chunks, &shifts));
    assert!(counts.values().all(|count| (57..=63).contains(count)), "{counts:?}");
    assert!(shifted(&census(&after(&chunks, &shifts)), &nodes, 1_000).is_empty());
}

#[test]
fn a_disk_with_twice_as_much_free_gets_twice_as_much() {
    let chunks = vec![vec![node(1), node(2)]; 90];
    let mut nodes: Vec<_> = (1..=3).map(candidate).collect();
    let free = [100_000_000_000, 100_000_000_000, 200_000_000_000];
    for (node, free) in nodes.iter_mut().zip(free) {
        node.disk_free = Some(free);
    }
    let after = after(&chunks, &shifted(&census(&chunks), &nodes, 1_000));
    let counts = counts(&after);
    // 45, 45 and 90, but for what is not worth moving.
    assert!((86..=90).contains(&counts[&node(3)]), "{counts:?}");
    assert!((42..=48).contains(&counts[&node(1)]), "{counts:?}");
    assert_eq!(shifted(&census(&after), &nodes, 1_000), []);
}

#[test]
fn a_nearly_full_disk_and_one_that_leaves_get_nothing() {
    let chunks = vec![vec![node(1), node(2)]; 90];
    for change in [
        (|node: &mut Candidate| node.disk_percent = 86.0) as fn(&mut Candidate),
        |node| node.leaving = true,
        |node| node.liveness = Liveness::Degraded,
        |node| node.trusted = false,
    ] {
        let mut nodes: Vec<_> = (1..=3).map(candidate).collect();
        change(&mut nodes[2]);
        assert_eq!(shifted(&census(&chunks), &nodes, 1_000), []);
    }
}

#[test]
fn what_is_not_whole_is_left_to_repairs() {
    let chunks = vec![vec![node(1), node(2)]; 10];
    let nodes: Vec<_> = (1..=3).map(candidate).collect();
    let mut census = census(&chunks);
    census.uncount(node(1));
    assert_eq!(shifted(&census, &nodes, 1_000), []);
}

/// A library that becomes shards has some chunks on their way all the while, of which nothing is counted.
#[test]
fn whether_nodes_are_even_is_known_whatever_was_counted() {
    let chunks = vec![on(&[1, 2]); 30];
    let nodes: Vec<_> = (1..=3).map(candidate).collect();
    let mut census = census(&chunks);
    let are_even = |census: &Census, nodes: &[Candidate]| are_even(&outlook(census, nodes));
    assert!(are_even(&census, &nodes[..2]) && !are_even(&census, &nodes));
    census.uncount(node(1));
    assert_eq!(
        shifted(&census, &nodes, 1_000),
        [],
        "nothing that could be moved is known to be whole"
    );
    assert!(are_even(&census, &nodes[..2]) && !are_even(&census, &nodes));
    // Who can take nothing keeps nobody waiting.
    let mut full = nodes;
    full[2].disk_percent = 90.0;
    full[2].disk_free = Some(1);
    full[0].disk_free = Some(1_000_000_000);
    full[1].disk_free = Some(1_000_000_000);
    assert!(are_even(&census, &full));
}

#[test]
fn chunks_stay_in_as_many_zones() {
    let chunks = vec![vec![node(1), node(2)]; 30];
    let mut nodes: Vec<_> = (1..=3).map(candidate).collect();
    for (node, zone) in nodes.iter_mut().zip(["a", "b", "b"]) {
        node.zone = zone.to_owned();
    }
    let shifts = shifted(&census(&chunks), &nodes, 1_000);
    assert!(!shifts.is_empty());
    for shift in shifts {
        assert!(shift.to.contains(&node(1)), "{shift:?}");
    }
}

proptest! {
    #[test]
    fn it_never_moves_for_ever_and_evens_out(spread in prop::collection::vec((0..5_u8, 1..5_u8), 60..120)) {
        let member = |n: u8| node(n % 5 + 1);
        let chunks: Vec<Vec<NodeRef>> = spread
            .iter()
            .map(|(first, step)| vec![member(*first), member(first + step)])
            .collect();
        let nodes: Vec<_> = (1..=5).map(candidate).collect();
        let shifts = shifted(&census(&chunks), &nodes, 10_000);
        let after = after(&chunks, &shifts);
        for chunk in &after {
            prop_assert!(chunk[0] != chunk[1]);
        }
        prop_assert_eq!(shifted(&census(&after), &nodes, 10_000), vec![]);
        let counts = counts(&after);
        let mean = 2.0 * chunks.len() as f64 / 5.0;
        let worst = (1..=5).map(|n| (counts.get(&node(n)).copied().unwrap_or(0) as f64 - mean).abs()).fold(0.0, f64::max);
        prop_assert!(worst <= mean * SLACK + 2.0, "{:?}", counts);
    }
}

fn on(nodes: &[u8]) -> Vec<NodeRef> {
    nodes.iter().map(|n| node(*n)).collect()
}

#[test]
fn chunks_are_spread_over_zones_that_come_later() {
    let one = ["a"; 3];
    let census = census(&vec![on(&[1, 2, 3]); 4]);
    let look = |nodes: &[Candidate]| zoned(&census, nodes);
    let of = |there, crowded| Some(Zones { there, crowded });
    assert_eq!(look(&in_zones(&one)), (of(1, 0), Vec::new()), "there is one zone");
    let unnamed: Vec<Candidate> = (1..=4).map(candidate).collect();
    assert_eq!(look(&unnamed), (None, Vec::new()));
    let (zones, shifts) = look(&in_zones(&["a", "a", "a", "b", "b"]));
    assert_eq!(zones, of(2, 4));
    assert_eq!(shifts.len(), 4);
    let news: Vec<u8> = shifts
        .iter()
        .map(|shift| {
            let new: Vec<u8> = (4..=5).filter(|n| shift.to.contains(&node(*n))).collect();
            assert_eq!((shift.to.len(), new.len()), (3, 1), "{shift:?}");
            new[0]
        })
        .collect();
    assert_eq!(
        news.iter().filter(|n| **n == 4).count(),
        2,
        "each of the new ones its share: {news:?}"
    );
}

/// Two, two and one shards in three zones: with three in one of them its loss would be too much.
#[test]
fn a_new_node_gets_shards_of_its_own_zone_where_others_would_be_too_many_there() {
    let chunks = vec![on(&[1, 2, 3, 4, 5]); 30];
    let nodes = in_zones(&["a", "a", "b", "b", "c", "a"]);
    let census = coded(&chunks, 3);
    let shifts = shifted(&census, &nodes, 1_000);
    let after = after(&chunks, &shifts);
    for chunk in &after {
        assert_eq!(stands(chunk, &nodes, 3), [2, 1, 3], "{chunk:?}");
    }
    // Those three hold the two shards of their zone, and as much as each other.
    let counts = counts(&after);
    assert!(
        [1, 2, 6].iter().all(|n| (18..=22).contains(&counts[&node(*n)])),
        "{counts:?}"
    );
}

#[test]
fn shards_are_spread_over_zones_with_fewer_of_them() {
    let chunks = vec![on(&[1, 2, 3, 4, 5]); 4];
    let census = coded(&chunks, 3);
    let five = in_zones(&["a", "a", "a", "b", "c"]);
    assert_eq!(stands(&chunks[0], &five, 3), [2, 0, 2]);
    let of = |there, crowded| Some(Zones { there, crowded });
    assert_eq!(
        zoned(&census, &five),
        (of(3, 0), Vec::new()),
        "two on one node would be worse"
    );
    let six = in_zones(&["a", "a", "a", "b", "c", "b"]);
    let (zones, shifts) = zoned(&census, &six);
    assert_eq!((zones, shifts.len()), (of(3, 4), 4));
    let after = after(&chunks, &shifts);
    for chunk in &after {
        assert_eq!(stands(chunk, &six, 3), [2, 1, 3], "{chunk:?}");
    }
    assert_eq!(zoned(&coded(&after, 3), &six), (of(3, 0), Vec::new()));
}

#[test]
fn shards_that_double_up_do_so_where_their_zones_have_fewer() {
    let chunks = vec![on(&[1, 1, 2, 3, 4])];
    let nodes = in_zones(&["a", "a", "b", "c"]);
    assert_eq!(stands(&chunks[0], &nodes, 3), [1, 0, 2]);
    let (_, shifts) = zoned(&coded(&chunks, 3), &nodes);
    let after = after(&chunks, &shifts);
    assert_eq!(stands(&after[0], &nodes, 3), [1, 1, 3], "{after:?}");
}

#[test]
fn what_could_not_be_settled_is_not_moved_nor_is_what_would_stand_worse() {
    let chunks = vec![on(&[1, 1, 1, 2, 2]); 20];
    let census = coded(&chunks, 3);
    let nodes = in_zones(&["a", "b"]);
    assert_eq!(shifted(&census, &nodes, 1_000), []);
    assert_eq!(zoned(&census, &nodes), (Some(Zones { there: 2, crowded: 0 }), vec![]));
    // Of four and two shards the two may be lost; of three and three none of both.
    let chunks = vec![on(&[1, 2, 3, 4, 5, 6]); 20];
    let nodes = in_zones(&["a", "a", "a", "a", "b", "b", "b"]);
    let census = coded(&chunks, 4);
    assert_eq!(zoned(&census, &nodes), (Some(Zones { there: 2, crowded: 0 }), vec![]));
    for chunk in after(&chunks, &shifted(&census, &nodes, 1_000)) {
        assert_eq!(stands(&chunk, &nodes, 4), [2, 0, 1], "{chunk:?}");
    }
}

proptest! {
    #[test]
    fn no_shift_makes_shards_stand_the_loss_of_nodes_or_zones_worse(
        (data, parity) in prop::sample::select(vec![(3_u8, 2_u8), (4, 2), (2, 2), (3, 3), (5, 1), (2, 4)]),
        zones in prop::collection::vec(0..4_u8, 5..10),
        new in 0..3_usize,
        draws in prop::collection::vec(any::<u32>(), 1..40),
    ) {
        let nodes = in_zones(&zones);
        let (shards, data_shards) = (usize::from(data + parity), usize::from(data));
        let chunk = |draw: &u32| {
            let mut on: Vec<NodeRef> = nodes[..nodes.len() - new].iter().map(|known| known.node).collect();
            on.sort_by_key(|node| Digest::of(&[&node.uuid.as_bytes()[..], &draw.to_le_bytes()].concat()));
            on.iter().copied().cycle().take(shards).collect::<Vec<NodeRef>>()
        };
        let mut chunks: Vec<Vec<NodeRef>> = draws.iter().map(chunk).collect();
        let mut census = coded(&chunks, data);
        // What evens nodes out, and then what spreads over zones, until nothing is left of that. Each time the squares of
        // what zones have come to less.
        let mut next = shifted(&census, &nodes, 10_000);
        for _ in 0..shards * shards {
            let moved = after(&chunks, &next);
            for (before, after) in chunks.iter().zip(&moved) {
                let (was, is) = (stands(before, &nodes, data_shards), stands(after, &nodes, data_shards));
                prop_assert!(was.iter().zip(&is).all(|(was, is)| is >= was), "{:?} {:?}", before, after);
            }
            chunks = moved;
            census = coded(&chunks, data);
            next = zoned(&census, &nodes).1;
            if next.is_empty() {
                break;
            }
        }
        prop_assert!(next.is_empty(), "it goes on for ever: {:?}", next);
        let outlook = outlook(&census, &nodes);
        let crowded = zones_of(&outlook).map(|zones| zones.crowded);
        prop_assert!(crowded == Some(0) || !census.rows().all(|(_, row)| is_movable(&outlook, row)), "{:?}", crowded);
    }
}

//! What must hold of where shards are put, over all mixtures of codes, nodes, zones and places they are at already; and how
//! free disks share them over many videos, which are always the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vstack_placement::{Candidate, ShardsRequest, choose_shards, losses_survivable, losses_survived};
use vstack_types::{NodeRef, NodeUuid, VideoId};

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

/// One that takes chunks, in a zone.
fn zoned(n: u8, zone: u8) -> Candidate {
    Candidate {
        zone: format!("zone-{zone}"),
        ..Candidate::healthy(node(n))
    }
}

/// Nodes from 1 on, in these zones.
fn all_zoned(zones: &[u8]) -> Vec<Candidate> {
    (1..).zip(zones).map(|(n, zone)| zoned(n, *zone)).collect()
}

fn request<'a>(video: [u8; 16], data: usize, current: &'a [Option<NodeRef>]) -> ShardsRequest<'a> {
    ShardsRequest {
        video: VideoId::from_bytes(video),
        data,
        current,
        gone: &[],
    }
}

/// How often each of them is there.
fn counted<T: Ord>(those: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counted = BTreeMap::new();
    those.for_each(|one| *counted.entry(one).or_default() += 1);
    counted
}

fn zone_of(candidates: &[Candidate], node: NodeRef) -> &str {
    let candidate = candidates.iter().find(|candidate| candidate.node == node);
    &candidate.expect("it is one of them").zone
}

proptest! {
    #[test]
    fn where_nodes_are_enough_none_has_two_and_zones_are_as_even_as_can_be(
        data in 1..7_usize,
        parity in 1..5_usize,
        zones in prop::collection::vec(0..5_u8, 10..16),
        video in any::<[u8; 16]>(),
    ) {
        let candidates = all_zoned(&zones);
        let current = vec![None; data + parity];
        let chosen = choose_shards(&candidates, request(video, data, &current)).expect("nodes are enough");
        prop_assert!(counted(chosen.iter()).values().all(|shards| *shards == 1), "{:?}", chosen);
        prop_assert_eq!(losses_survived(&chosen, data), parity);
        let there = counted(candidates.iter().map(|candidate| candidate.zone.as_str()));
        let used = counted(chosen.iter().map(|node| zone_of(&candidates, *node)));
        let fullest = used.values().copied().max().unwrap_or_default();
        for (zone, nodes) in there {
            let shards = used.get(zone).copied().unwrap_or_default();
            prop_assert!(shards + 1 >= fullest || shards == nodes, "{} has {} of {:?}", zone, shards, used);
        }
    }

    #[test]
    fn as_many_losses_are_survived_as_the_nodes_allow_wherever_shards_are_now(
        data in 1..7_usize,
        parity in 1..5_usize,
        zones in prop::collection::vec(0..4_u8, 1..11),
        places in prop::collection::vec(prop::option::weighted(0.8, any::<prop::sample::Index>()), 10),
        video in any::<[u8; 16]>(),
    ) {
        let candidates = all_zoned(&zones);
        let place = |index: &prop::sample::Index| index.get(&candidates).node;
        let now = places.iter().take(data + parity).map(|at| at.as_ref().map(place));
        let current: Vec<Option<NodeRef>> = now.collect();
        let survivable = losses_survivable(candidates.len(), data, data + parity);
        let all_there = current.iter().all(Option::is_some);
        let Ok(chosen) = choose_shards(&candidates, request(video, data, &current)) else {
            prop_assert!(survivable == 0 && !all_there, "refused without need");
            return Ok(());
        };
        prop_assert_eq!(chosen.len(), data + parity);
        prop_assert_eq!(losses_survived(&chosen, data), survivable, "{:?} of {:?}", chosen, current);
        // It comes to rest.
        let now: Vec<Option<NodeRef>> = chosen.iter().copied().map(Some).collect();
        prop_assert_eq!(choose_shards(&candidates, request(video, data, &now)), Ok(chosen));
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        zones in prop::collection::vec(0..4_u8, 1..11),
        video in any::<[u8; 16]>(),
    ) {
        let candidates = all_zoned(&zones);
        let reversed: Vec<Candidate> = candidates.iter().rev().cloned().collect();
        let current = [None; 5];
        let request = request(video, 3, &current);
        prop_assert_eq!(choose_shards(&candidates, request), choose_shards(&reversed, request));
    }
}

const VIDEOS: u32 = 3_000;
const DISK: u64 = 100_000_000_000;

/// How many of the 3+2 shards of so many chunks, each of a video of its own, each node gets, in the order of `nodes`.
fn shares(nodes: &[Candidate]) -> Vec<usize> {
    let mut chosen = Vec::new();
    for n in 0..VIDEOS {
        let mut video = [0; 16];
        video[..4].copy_from_slice(&n.to_le_bytes());
        chosen.extend(choose_shards(nodes, request(video, 3, &[None; 5])).expect("nodes are enough"));
    }
    let counted = counted(chosen.into_iter());
    let share = |candidate: &Candidate| counted.get(&candidate.node).copied().unwrap_or_default();
    nodes.iter().map(share).collect()
}

/// Nodes from 1 on with so many disks' worth of free bytes.
fn with_free(disks: &[u64]) -> Vec<Candidate> {
    let with = |(n, disks): (u8, &u64)| Candidate {
        disk_free: Some(disks * DISK),
        ..Candidate::healthy(node(n))
    };
    (1..).zip(disks).map(with).collect()
}

#[test]
fn equal_disks_get_equal_shares() {
    let shares = shares(&with_free(&[1; 8]));
    // Five eighths of 3000 each, give or take five standard deviations.
    assert!(shares.iter().all(|share| (1_742..=2_008).contains(share)), "{shares:?}");
}

#[test]
fn larger_free_disks_get_more() {
    let shares = shares(&with_free(&[1, 1, 1, 1, 2, 2, 2, 4, 4, 4]));
    let [small, middle, large] = [&shares[..4], &shares[4..7], &shares[7..]];
    let least = |of: &[usize]| of.iter().copied().min().unwrap_or_default();
    let most = |of: &[usize]| of.iter().copied().max().unwrap_or_default();
    // No node has two of a chunk, so that a disk four times as large does not get four times as much.
    assert!(least(middle) * 2 > most(small) * 3, "{shares:?}");
    assert!(least(large) * 3 > most(middle) * 4, "{shares:?}");
    let most_there_are = usize::try_from(VIDEOS).expect("small");
    assert!(most(large) < most_there_are, "{shares:?}");
}

#[test]
fn zones_come_before_free_disks_which_count_within_them() {
    // In each of three zones two small disks, and a large one.
    let mut nodes = with_free(&[1, 1, 1, 1, 1, 1, 4, 4, 4]);
    for (at, candidate) in nodes.iter_mut().enumerate() {
        candidate.zone = ["a", "b", "c"][at % 3].to_owned();
    }
    let even = shares(&nodes);
    for at in 0..3 {
        let (small, large) = (even[at].max(even[at + 3]), even[at + 6]);
        assert!(large > 2 * small, "{even:?}");
        // A third of five times 3000 each.
        let zone = even[at] + even[at + 3] + even[at + 6];
        assert!((4_800..=5_200).contains(&zone), "{even:?}");
    }
    // With all large disks in one zone, a zone still has one or two of the five.
    for (at, candidate) in nodes.iter_mut().enumerate() {
        candidate.zone = ["a", "b", "c"][at / 3].to_owned();
    }
    let shares = shares(&nodes);
    let of_zones: Vec<usize> = shares.chunks(3).map(|zone| zone.iter().sum()).collect();
    assert!(
        of_zones.iter().all(|zone| (3_000..=6_000).contains(zone)),
        "{of_zones:?}"
    );
}

#[test]
fn where_shards_double_up_the_larger_disk_has_two() {
    let shares = shares(&with_free(&[1, 1, 10]));
    assert!(
        shares[2] > 5_900 && shares[0] > 4_000 && shares[1] > 4_000,
        "{shares:?}"
    );
}

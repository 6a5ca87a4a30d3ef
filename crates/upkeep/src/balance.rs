//! Evens out what nodes hold: chunks go from nodes with more than their share to nodes with less.
//!
//! A node's share grows with what is free of its disk, by the weights that new groups are chosen by. A disk that is nearly
//! full is given nothing. Only chunks that are whole are moved, and only so that they stay in as many zones.

use std::collections::{BTreeMap, BTreeSet};

use vstack_placement::{Candidate, Liveness};
use vstack_types::{NodeRef, VideoId, limits::DISK_PERCENT_WARNING};

use crate::{
    census::{Census, Item, Part, Row, Seat},
    plan::{Cluster, Outlook},
    standing::{Form, Seen, Standing},
};

/// Who has more or less than his share by this part of the mean is left alone: moving costs more than it gains.
const SLACK: f64 = 0.04;

/// A chunk to be moved so that nodes hold more nearly the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// Whose.
    pub video: VideoId,
    /// Which.
    pub part: Part,
    /// Of the placement it has.
    pub version: u32,
    /// Its nodes are to be these.
    pub to: Vec<NodeRef>,
    /// Bytes that go from one node to another.
    pub bytes: u64,
}

/// What is placed at a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Items.
    pub items: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What is placed at each node, by the last decisions; both halves of a move count.
pub fn placed(census: &Census) -> BTreeMap<NodeRef, Placed> {
    let mut placed: Vec<Placed> = Vec::new();
    for (_, row) in census.rows() {
        for item in &row.items {
            let number = usize::from(item.node);
            if placed.len() <= number {
                placed.resize(number + 1, Placed::default());
            }
            placed[number].items += 1;
            placed[number].bytes += item_bytes(row);
        }
    }
    let named = (0_u16..).zip(placed).filter(|(_, placed)| placed.items > 0);
    named
        .filter_map(|(number, placed)| Some((census.node(number)?, placed)))
        .collect()
}

fn item_bytes(row: &Row) -> u64 {
    match row.form {
        Form::Replicated => row.size.into(),
        Form::Coded { data } => u64::from(row.size).div_ceil(u64::from(data.max(1))),
    }
}

/// How far a node is above its share, in bytes; below it when negative.
struct Surplus<'a> {
    candidate: &'a Candidate,
    bytes: f64,
}

fn surpluses<'a>(held: &BTreeMap<NodeRef, Placed>, cluster: &Cluster<'a>) -> (Vec<Surplus<'a>>, f64) {
    let takes_part = |candidate: &&Candidate| {
        candidate.trusted
            && candidate.liveness == Liveness::Healthy
            && !candidate.leaving
            && !cluster.gone.contains(&candidate.node)
            && !cluster.lost.contains(&candidate.node)
    };
    let nodes: Vec<&'a Candidate> = cluster.nodes.iter().filter(takes_part).collect();
    let weights = Candidate::weights(&nodes);
    let bytes = |candidate: &Candidate| held.get(&candidate.node).copied().unwrap_or_default().bytes as f64;
    let total: f64 = nodes.iter().map(|node| bytes(node)).sum();
    let all_weights: f64 = weights.iter().sum();
    let mean = total / nodes.len().max(1) as f64;
    let surplus = |(candidate, weight): (&'a Candidate, f64)| Surplus {
        candidate,
        bytes: bytes(candidate) - total * weight / all_weights,
    };
    (nodes.into_iter().zip(weights).map(surplus).collect(), mean)
}

/// What to move next, at most `limit` chunks, without those that are `held_back`. Empty when nodes hold what they should,
/// more or less.
pub fn shifts(outlook: &Outlook<'_>, limit: usize, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    let (census, cluster) = (outlook.census, &outlook.cluster);
    let held = placed(census);
    let (mut nodes, mean) = surpluses(&held, cluster);
    let slack = mean * SLACK;
    let has_room = |node: &Surplus<'_>| node.candidate.disk_percent < DISK_PERCENT_WARNING;
    let is_off = |nodes: &[Surplus<'_>]| {
        nodes
            .iter()
            .any(|node| node.bytes > slack || node.bytes < -slack && has_room(node))
    };
    let mut shifts = Vec::new();
    if !is_off(&nodes) || vstack_types::planted!("uneven nodes are left so") {
        return shifts;
    }
    for (video, row) in census.rows() {
        if shifts.len() == limit {
            break;
        }
        if !is_movable(outlook, row) || held_back(video, row.part) {
            continue;
        }
        let bytes = item_bytes(row);
        let members: Vec<NodeRef> = row.of_layout().filter_map(|item| census.node(item.node)).collect();
        // The fullest that helps: the zones may leave no other place to its copy.
        let mut pairs = fullest_first(&nodes, &members).into_iter().filter_map(|from| {
            let may_take = |node: &Surplus<'_>| {
                let to = exchanged(&members, nodes[from].candidate.node, node.candidate.node);
                has_room(node) && zones(cluster, &to) >= zones(cluster, &members)
            };
            emptiest(&nodes, &members, may_take).map(|into| (from, into))
        });
        // One of them is off by more than is put up with, and they are nearer to each other after: so it ends.
        let helps = |(from, into): &(usize, usize)| {
            let (above, below) = (nodes[*from].bytes, nodes[*into].bytes);
            above - below > bytes as f64 && (above > slack || below < -slack)
        };
        let Some((from, into)) = pairs.find(helps) else {
            continue;
        };
        shifts.push(Shift {
            video,
            part: row.part,
            version: row.version,
            to: exchanged(&members, nodes[from].candidate.node, nodes[into].candidate.node),
            bytes,
        });
        nodes[from].bytes -= bytes as f64;
        nodes[into].bytes += bytes as f64;
    }
    shifts
}

/// In how many zones chunks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Zones {
    /// Zones of the nodes that take chunks; those without one are one together.
    pub there: usize,
    /// Chunks in fewer zones than they could be in.
    pub crowded: u64,
}

/// The zones there are, and who is in too few of them. None where no node was given one.
pub fn zones_of(outlook: &Outlook<'_>) -> Option<Zones> {
    let named = takers(&outlook.cluster).any(|candidate| !candidate.zone.is_empty());
    named.then(|| {
        let zones = ZoneTable::of(outlook);
        Zones {
            there: zones.there,
            crowded: outlook.census.rows().filter(|(_, row)| zones.are_few(row)).count() as u64,
        }
    })
}

/// What to move next so that chunks are in as many zones as they can be, at most `limit` chunks, without those that are
/// `held_back`: from the zone with most copies to the emptiest node of one without any.
pub fn spread(outlook: &Outlook<'_>, limit: usize, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    let (census, cluster) = (outlook.census, &outlook.cluster);
    let table = ZoneTable::of(outlook);
    if table.there < 2 || vstack_types::planted!("chunks are left in too few zones") {
        return Vec::new();
    }
    let mut nodes = surpluses(&placed(census), cluster).0;
    let mut shifts = Vec::new();
    for (video, row) in census.rows() {
        if shifts.len() == limit {
            break;
        }
        if !table.are_few(row) || !is_movable(outlook, row) || held_back(video, row.part) {
            continue;
        }
        let members: Vec<NodeRef> = row.of_layout().filter_map(|item| census.node(item.node)).collect();
        let before = zones(cluster, &members);
        let better = members.iter().find_map(|from| {
            let may_take = |node: &Surplus<'_>| {
                node.candidate.disk_percent < DISK_PERCENT_WARNING
                    && zones(cluster, &exchanged(&members, *from, node.candidate.node)) > before
            };
            emptiest(&nodes, &members, may_take).map(|into| (*from, into))
        });
        let Some((from, into)) = better else { continue };
        let bytes = item_bytes(row);
        shifts.push(Shift {
            video,
            part: row.part,
            version: row.version,
            to: exchanged(&members, from, nodes[into].candidate.node),
            bytes,
        });
        nodes[into].bytes += bytes as f64;
    }
    shifts
}

/// The zone of each node, by numbers: a million chunks are looked at.
struct ZoneTable {
    /// Zones of the nodes that chunks may be placed on.
    there: usize,
    /// By the node's number in the census; none of a node that is not known any more.
    of: Vec<Option<usize>>,
}

impl ZoneTable {
    fn of(outlook: &Outlook<'_>) -> Self {
        let cluster = &outlook.cluster;
        let names: BTreeSet<&str> = cluster.nodes.iter().map(|node| node.zone.as_str()).collect();
        let there: BTreeSet<&str> = takers(cluster).map(|node| node.zone.as_str()).collect();
        let number = |node: NodeRef| {
            let candidate = cluster.nodes.iter().find(|candidate| candidate.node == node)?;
            names.iter().position(|name| *name == candidate.zone)
        };
        Self {
            there: there.len(),
            of: (0..).map_while(|at| outlook.census.node(at)).map(number).collect(),
        }
    }

    /// Whether copies are in fewer zones than they could be in.
    fn are_few(&self, row: &Row) -> bool {
        if row.form != Form::Replicated {
            return false;
        }
        let zone = |item: &Item| self.of.get(usize::from(item.node)).copied().flatten();
        let (mut members, mut zones) = (0, 0);
        for item in row.of_layout() {
            let mut before = row.of_layout().take(members);
            zones += usize::from(zone(item).is_some() && before.all(|other| zone(other) != zone(item)));
            members += 1;
        }
        zones < self.there.min(members)
    }
}

/// Nodes that chunks may be placed on.
fn takers<'a>(cluster: &Cluster<'a>) -> impl Iterator<Item = &'a Candidate> + use<'a> {
    let nodes = cluster.nodes.iter();
    nodes.filter(|candidate| candidate.trusted && candidate.liveness == Liveness::Healthy && !candidate.leaving)
}

/// Of `members`, those that take part, the one that is most above its share first.
fn fullest_first(nodes: &[Surplus<'_>], members: &[NodeRef]) -> Vec<usize> {
    let is_member = |at: &usize| members.contains(&nodes[*at].candidate.node);
    let mut these: Vec<usize> = (0..nodes.len()).filter(is_member).collect();
    these.sort_by(|a, b| nodes[*b].bytes.total_cmp(&nodes[*a].bytes));
    these
}

/// Of those that are none of `members` and `may_take` it, the one that is most below its share.
fn emptiest(nodes: &[Surplus<'_>], members: &[NodeRef], may_take: impl Fn(&Surplus<'_>) -> bool) -> Option<usize> {
    let is_member = |node: &Surplus<'_>| members.iter().any(|member| member.uuid == node.candidate.node.uuid);
    let all = nodes.iter().enumerate();
    let these = all.filter(|(_, node)| !is_member(node) && may_take(node));
    these
        .min_by(|(_, a), (_, b)| a.bytes.total_cmp(&b.bytes))
        .map(|(at, _)| at)
}

fn exchanged(members: &[NodeRef], from: NodeRef, into: NodeRef) -> Vec<NodeRef> {
    let exchange = |node: &NodeRef| if *node == from { into } else { *node };
    members.iter().map(exchange).collect()
}

fn zones(cluster: &Cluster<'_>, members: &[NodeRef]) -> usize {
    let of = |node: &NodeRef| {
        let candidate = cluster.nodes.iter().find(|candidate| candidate.node == *node);
        candidate.map(|candidate| candidate.zone.as_str())
    };
    members.iter().filter_map(of).collect::<BTreeSet<_>>().len()
}

/// Whether nothing else is to be done about a chunk.
fn is_movable(outlook: &Outlook<'_>, row: &Row) -> bool {
    let counted = |item: &Item| item.seen == Seen::Whole && item.seat == Seat::Agrees;
    row.form == Form::Replicated
        && !row.joint
        && row.items.iter().all(counted)
        && outlook.standing(row) == Standing::Whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
    use vstack_chunkpaxos::{Layout, Placement};
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

    fn shifted(census: &Census, nodes: &[Candidate], limit: usize) -> Vec<Shift> {
        let cluster = Cluster {
            nodes,
            gone: &[],
            lost: &[],
            copies: 2,
        };
        shifts(&Outlook::new(census, cluster), limit, |_, _| false)
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

    #[test]
    fn chunks_are_spread_over_zones_that_come_later() {
        let zoned = |n: u8, zone: &str| Candidate {
            zone: zone.to_owned(),
            ..candidate(n)
        };
        let everywhere: Vec<Candidate> = (1..=3).map(|n| zoned(n, "a")).collect();
        let on: Vec<NodeRef> = (1..=3).map(node).collect();
        let census = census(&vec![on; 4]);
        let look = |nodes: &[Candidate]| {
            let cluster = Cluster {
                nodes,
                gone: &[],
                lost: &[],
                copies: 3,
            };
            let outlook = Outlook::new(&census, cluster);
            (zones_of(&outlook), spread(&outlook, 100, |_, _| false))
        };
        let of = |there, crowded| Some(Zones { there, crowded });
        assert_eq!(look(&everywhere), (of(1, 0), Vec::new()), "there is one zone");
        let unnamed: Vec<Candidate> = (1..=4).map(candidate).collect();
        assert_eq!(look(&unnamed), (None, Vec::new()));
        let mut two = everywhere;
        two.extend([zoned(4, "b"), zoned(5, "b")]);
        let (zones, shifts) = look(&two);
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
}

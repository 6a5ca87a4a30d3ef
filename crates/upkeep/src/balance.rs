//! Evens out what nodes hold: chunks go from nodes with more than their share to nodes with less.
//!
//! A node's share grows with what is free of its disk, by the weights that new groups are chosen by. A disk that is nearly
//! full is given nothing. Only chunks that are whole are moved, and only so that they stand the loss of zones and of nodes
//! no worse: copies stay in as many zones, and no zone gets more shards than the one that gives one up had.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use vstack_placement::{Candidate, Liveness, losses_survived};
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
            placed[number].bytes += row.item_bytes(item);
        }
    }
    let named = (0_u16..).zip(placed).filter(|(_, placed)| placed.items > 0);
    named
        .filter_map(|(number, placed)| Some((census.node(number)?, placed)))
        .collect()
}

/// How far a node is above its share, in bytes; below it when negative.
struct Surplus<'a> {
    candidate: &'a Candidate,
    zone: Option<Zone>,
    bytes: f64,
}

impl Surplus<'_> {
    fn place(&self) -> Place {
        Place {
            node: self.candidate.node,
            zone: self.zone,
        }
    }

    fn has_room(&self) -> bool {
        self.candidate.disk_percent < DISK_PERCENT_WARNING
    }
}

fn surpluses<'a>(
    held: &BTreeMap<NodeRef, Placed>,
    cluster: &Cluster<'a>,
    zones: &ZoneTable<'a>,
) -> (Vec<Surplus<'a>>, f64) {
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
        zone: zones.number(candidate),
        bytes: bytes(candidate) - total * weight / all_weights,
    };
    (nodes.into_iter().zip(weights).map(surplus).collect(), mean)
}

/// What to move next, at most `limit` chunks, without those that are `held_back`. Empty when nodes hold what they should,
/// more or less.
pub fn shifts(outlook: &Outlook<'_>, limit: usize, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    let (census, cluster) = (outlook.census, &outlook.cluster);
    let zones = ZoneTable::of(outlook);
    let (mut nodes, mean) = surpluses(&placed(census), cluster, &zones);
    let slack = mean * SLACK;
    let is_off = |nodes: &[Surplus<'_>]| {
        nodes
            .iter()
            .any(|node| node.bytes > slack || node.bytes < -slack && node.has_room())
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
        let places = zones.places(census, row);
        if !places.may_be_left() {
            continue;
        }
        let bytes = row.form.item_bytes(row.size);
        // The fullest that helps: the zones may leave no other place to its copy.
        let mut pairs = fullest_first(&nodes, &places).into_iter().filter_map(|from| {
            let giver = nodes[from].place();
            let may_take = |node: &Surplus<'_>| {
                let taker = node.place();
                node.has_room() && places.has_fewer(taker, giver) && places.of_zones(giver, taker) != Ordering::Less
            };
            emptiest(&nodes, may_take).map(|into| (from, into))
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
            to: places.exchanged(nodes[from].place(), nodes[into].place()),
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
    /// Chunks that could be spread over zones better: copies in fewer of them than they could be in, and shards of which one
    /// could go from a zone with more to one with fewer.
    pub crowded: u64,
}

/// The zones there are, and who is not spread over them as well as could be. None where no node was given one.
pub fn zones_of(outlook: &Outlook<'_>) -> Option<Zones> {
    let named = takers(&outlook.cluster).any(|candidate| !candidate.zone.is_empty());
    named.then(|| {
        let zones = ZoneTable::of(outlook);
        let are_few = |row: &Row| zones.are_few(outlook.census, row);
        Zones {
            there: zones.there(),
            crowded: outlook.census.rows().filter(|(_, row)| are_few(row)).count() as u64,
        }
    })
}

/// What to move next so that chunks are spread over zones as well as they can be, at most `limit` chunks, without those that
/// are `held_back`: from the zone with most of a chunk to the emptiest node of one with least of it.
pub fn spread(outlook: &Outlook<'_>, limit: usize, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    let (census, cluster) = (outlook.census, &outlook.cluster);
    let zones = ZoneTable::of(outlook);
    if zones.there() < 2 || vstack_types::planted!("chunks are left in too few zones") {
        return Vec::new();
    }
    let mut nodes = surpluses(&placed(census), cluster, &zones).0;
    let mut shifts = Vec::new();
    for (video, row) in census.rows() {
        if shifts.len() == limit {
            break;
        }
        if !zones.are_few(census, row) || !is_movable(outlook, row) || held_back(video, row.part) {
            continue;
        }
        let places = zones.places(census, row);
        let mut givers = places.items.clone();
        givers.sort_by_key(|giver| Reverse((places.in_zone(giver.zone), places.on(giver.node))));
        let better = givers.into_iter().find_map(|giver| {
            let may_take = |node: &Surplus<'_>| {
                let taker = node.place();
                node.has_room() && places.has_fewer(taker, giver) && places.of_zones(giver, taker) == Ordering::Greater
            };
            let those = nodes.iter().enumerate().filter(|(_, node)| may_take(node));
            let into = those.min_by(|(_, a), (_, b)| {
                let of_chunk = |node: &Surplus<'_>| places.in_zone(node.zone);
                of_chunk(a).cmp(&of_chunk(b)).then(a.bytes.total_cmp(&b.bytes))
            });
            into.map(|(into, _)| (giver, into))
        });
        let Some((giver, into)) = better else { continue };
        let bytes = row.form.item_bytes(row.size);
        shifts.push(Shift {
            video,
            part: row.part,
            version: row.version,
            to: places.exchanged(giver, nodes[into].place()),
            bytes,
        });
        nodes[into].bytes += bytes as f64;
    }
    shifts
}

/// A zone, by its number.
type Zone = usize;

/// The zones, by numbers: a million chunks are looked at.
struct ZoneTable<'a> {
    numbers: BTreeMap<&'a str, Zone>,
    /// The nodes of each that chunks may be placed on.
    takers: Vec<Vec<NodeRef>>,
    /// By the node's number in the census; none of a node that is not known any more.
    of: Vec<Option<Zone>>,
}

impl<'a> ZoneTable<'a> {
    fn of(outlook: &Outlook<'a>) -> Self {
        let cluster = &outlook.cluster;
        let mut numbers: BTreeMap<&'a str, Zone> = BTreeMap::new();
        for node in cluster.nodes {
            let next = numbers.len();
            numbers.entry(node.zone.as_str()).or_insert(next);
        }
        let mut table = Self {
            takers: vec![Vec::new(); numbers.len()],
            numbers,
            of: Vec::new(),
        };
        for candidate in takers(cluster) {
            if let Some(zone) = table.number(candidate) {
                table.takers[zone].push(candidate.node);
            }
        }
        let zone = |node: NodeRef| table.number(cluster.nodes.iter().find(|candidate| candidate.node == node)?);
        let of = (0..).map_while(|at| outlook.census.node(at)).map(zone).collect();
        Self { of, ..table }
    }

    fn number(&self, candidate: &Candidate) -> Option<Zone> {
        self.numbers.get(candidate.zone.as_str()).copied()
    }

    /// Zones of the nodes that chunks may be placed on.
    fn there(&self) -> usize {
        self.takers.iter().filter(|nodes| !nodes.is_empty()).count()
    }

    fn zone(&self, item: &Item) -> Option<Zone> {
        self.of.get(usize::from(item.node)).copied().flatten()
    }

    fn places(&self, census: &Census, row: &Row) -> Places {
        let place = |item: &Item| {
            let (node, zone) = (census.node(item.node)?, self.zone(item));
            Some(Place { node, zone })
        };
        Places {
            items: row.of_layout().filter_map(place).collect(),
            form: row.form,
        }
    }

    /// Whether a chunk could be spread over zones better.
    fn are_few(&self, census: &Census, row: &Row) -> bool {
        match row.form {
            Form::Replicated => self.are_fewer_than_could_be(row),
            Form::Coded { .. } => self.could_be_more_even(&self.places(census, row)),
        }
    }

    /// Whether copies are in fewer zones than they could be in.
    fn are_fewer_than_could_be(&self, row: &Row) -> bool {
        let is_first_of_zone = |(at, item): &(usize, &Item)| {
            let zone = self.zone(item);
            zone.is_some() && row.of_layout().take(*at).all(|other| self.zone(other) != zone)
        };
        let zones = row.of_layout().enumerate().filter(is_first_of_zone).count();
        zones < self.there().min(row.of_layout().count())
    }

    /// Whether there is a node that one of the shards would better be on. Of nearly all of a million chunks no zone has two
    /// more than another, and no node is looked at.
    fn could_be_more_even(&self, places: &Places) -> bool {
        let better_on = |giver: &Place, zone: Zone, nodes: &[NodeRef]| {
            let place = |node: &NodeRef| Place {
                node: *node,
                zone: Some(zone),
            };
            // All nodes of a zone are alike but for what they have of the chunk.
            let is_better = |first: Place| places.of_zones(*giver, first) == Ordering::Greater;
            nodes.first().map(place).is_some_and(is_better)
                && nodes.iter().map(place).any(|taker| places.has_fewer(taker, *giver))
        };
        let is_better_off = |giver: &Place| {
            let mut zones = self.takers.iter().enumerate();
            places.in_zone(giver.zone) > 1 && zones.any(|(zone, nodes)| better_on(giver, zone, nodes))
        };
        places.items.iter().any(is_better_off) && places.may_be_left()
    }
}

/// Where an item of a chunk is, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    node: NodeRef,
    /// None of a node that is not known any more.
    zone: Option<Zone>,
}

/// Where the items of a chunk are, each by itself.
struct Places {
    items: Vec<Place>,
    form: Form,
}

impl Places {
    /// Items of it on a disk, whichever of its lives.
    fn on(&self, node: NodeRef) -> usize {
        self.items.iter().filter(|place| place.node.uuid == node.uuid).count()
    }

    fn in_zone(&self, zone: Option<Zone>) -> usize {
        self.items.iter().filter(|place| place.zone == zone).count()
    }

    /// Whether it may be moved, and the move be ended: shards cannot be settled where the loss of one node is too much.
    fn may_be_left(&self) -> bool {
        let nodes = || self.items.iter().map(|place| place.node).collect::<Vec<NodeRef>>();
        self.form == Form::Replicated || losses_survived(&nodes(), self.form.needed()) > 0
    }

    /// Whether `taker` has fewer items than `giver`, so that with one more it has no more than that had, and no fewer losses
    /// of nodes are survived. Of copies no node has two.
    fn has_fewer(&self, taker: Place, giver: Place) -> bool {
        self.on(taker.node) < self.on(giver.node)
    }

    /// How the chunk stands the loss of zones once `taker` has one of the items of `giver`, beside how it does now: better is
    /// greater.
    ///
    /// Copies stand it better in more zones. Shards do when the zone with more of them gives one to a zone with fewer, and
    /// has no fewer than that after: so the fullest zones, however many, never have more together, and as many losses of
    /// zones are survived. Nor are there more zones of which one is too much to lose: 4+2 shards that are four and two are
    /// not made three and three.
    fn of_zones(&self, giver: Place, taker: Place) -> Ordering {
        if giver.zone == taker.zone {
            return Ordering::Equal;
        }
        let (more, fewer) = (self.in_zone(giver.zone), self.in_zone(taker.zone));
        match self.form {
            Form::Replicated => {
                let (is_won, is_given_up) = (fewer == 0, giver.zone.is_some() && more == 1);
                is_won.cmp(&is_given_up)
            }
            Form::Coded { .. } => {
                if fewer >= more {
                    return Ordering::Less;
                }
                let spare = self.items.len().saturating_sub(self.form.needed());
                let too_much = |zones: [usize; 2]| zones.iter().filter(|shards| **shards > spare).count();
                if too_much([more - 1, fewer + 1]) > too_much([more, fewer]) {
                    return Ordering::Less;
                }
                more.cmp(&(fewer + 1))
            }
        }
    }

    /// The nodes of all items, with `taker` in the place of `giver`, of whose items only the first goes.
    fn exchanged(&self, giver: Place, taker: Place) -> Vec<NodeRef> {
        let mut nodes: Vec<NodeRef> = self.items.iter().map(|place| place.node).collect();
        if let Some(first) = nodes.iter_mut().find(|node| **node == giver.node) {
            *first = taker.node;
        }
        nodes
    }
}

/// Nodes that chunks may be placed on.
fn takers<'a>(cluster: &Cluster<'a>) -> impl Iterator<Item = &'a Candidate> + use<'a> {
    let nodes = cluster.nodes.iter();
    nodes.filter(|candidate| candidate.trusted && candidate.liveness == Liveness::Healthy && !candidate.leaving)
}

/// Of those that have some of a chunk and take part, the one that is most above its share first.
fn fullest_first(nodes: &[Surplus<'_>], places: &Places) -> Vec<usize> {
    let has_some = |at: &usize| places.items.iter().any(|place| place.node == nodes[*at].candidate.node);
    let mut these: Vec<usize> = (0..nodes.len()).filter(has_some).collect();
    these.sort_by(|a, b| nodes[*b].bytes.total_cmp(&nodes[*a].bytes));
    these
}

/// Of those that `may_take` it, the one that is most below its share.
fn emptiest(nodes: &[Surplus<'_>], may_take: impl Fn(&Surplus<'_>) -> bool) -> Option<usize> {
    let all = nodes.iter().enumerate();
    let these = all.filter(|(_, node)| may_take(node));
    these
        .min_by(|(_, a), (_, b)| a.bytes.total_cmp(&b.bytes))
        .map(|(at, _)| at)
}

/// Whether nothing else is to be done about a chunk.
pub(crate) fn is_movable(outlook: &Outlook<'_>, row: &Row) -> bool {
    let counted = |item: &Item| item.seen == Seen::Whole && item.seat == Seat::Agrees;
    !row.joint && row.items.iter().all(counted) && outlook.standing(row) == Standing::Whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
    use vstack_chunkpaxos::{Layout, Placement, Shard};
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
}

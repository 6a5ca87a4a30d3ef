//! Evens out what nodes hold: chunks go from nodes with more than their share to nodes with less.
//!
//! A node's share grows with what is free of its disk, by the weights that new groups are chosen by. A disk that is nearly
//! full is given nothing. Only chunks that are whole are moved, and only so that they stand the loss of zones and of nodes
//! no worse: copies stay in as many zones, and no zone gets more shards than the one that gives one up had.

mod places;
#[cfg(test)]
mod tests;
mod zones;

use std::{cmp::Ordering, collections::BTreeMap};

use vstack_placement::{Candidate, Liveness};
use vstack_types::{NodeRef, VideoId, limits::DISK_PERCENT_WARNING};

pub use self::zones::{Zones, spread, zones_of};
use self::{
    places::{Place, Places, Zone},
    zones::ZoneTable,
};
use crate::{
    census::{Census, Item, Part, Row, Seat},
    plan::{Cluster, Outlook},
    standing::{Seen, Standing},
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

/// Whether somebody has more than his share by so many bytes, or less and could take more.
fn is_off(nodes: &[Surplus<'_>], slack: f64) -> bool {
    let mut nodes = nodes.iter();
    nodes.any(|node| node.bytes > slack || node.bytes < -slack && node.has_room())
}

/// Whether nodes hold what they should, more or less, by what is placed on them, whatever was counted of it.
pub fn are_even(outlook: &Outlook<'_>) -> bool {
    let zones = ZoneTable::of(outlook);
    let (nodes, mean) = surpluses(&placed(outlook.census), &outlook.cluster, &zones);
    !is_off(&nodes, mean * SLACK)
}

/// What to move next, at most `limit` chunks, without those that are `held_back`. Empty when nodes hold what they should,
/// more or less.
pub fn shifts(outlook: &Outlook<'_>, limit: usize, held_back: impl Fn(VideoId, Part) -> bool) -> Vec<Shift> {
    let (census, cluster) = (outlook.census, &outlook.cluster);
    let zones = ZoneTable::of(outlook);
    let (mut nodes, mean) = surpluses(&placed(census), cluster, &zones);
    let slack = mean * SLACK;
    let mut shifts = Vec::new();
    if !is_off(&nodes, slack) || vstack_types::planted!("uneven nodes are left so") {
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

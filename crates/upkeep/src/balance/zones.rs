//! Zones: in how many of them chunks are, and what is moved so that they are spread over them as well as they can be.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use vstack_placement::{Candidate, Liveness};
use vstack_types::{NodeRef, VideoId};

use super::{
    Shift, Surplus, is_movable, placed,
    places::{Place, Places, Zone},
    surpluses,
};
use crate::{
    census::{Census, Item, Part, Row},
    plan::{Cluster, Outlook},
    standing::Form,
};

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

/// The zones, by numbers: a million chunks are looked at.
pub(super) struct ZoneTable<'a> {
    numbers: BTreeMap<&'a str, Zone>,
    /// The nodes of each that chunks may be placed on.
    takers: Vec<Vec<NodeRef>>,
    /// By the node's number in the census; none of a node that is not known any more.
    of: Vec<Option<Zone>>,
}

impl<'a> ZoneTable<'a> {
    pub(super) fn of(outlook: &Outlook<'a>) -> Self {
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

    pub(super) fn number(&self, candidate: &Candidate) -> Option<Zone> {
        self.numbers.get(candidate.zone.as_str()).copied()
    }

    /// Zones of the nodes that chunks may be placed on.
    fn there(&self) -> usize {
        self.takers.iter().filter(|nodes| !nodes.is_empty()).count()
    }

    fn zone(&self, item: &Item) -> Option<Zone> {
        self.of.get(usize::from(item.node)).copied().flatten()
    }

    pub(super) fn places(&self, census: &Census, row: &Row) -> Places {
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

/// Nodes that chunks may be placed on.
fn takers<'a>(cluster: &Cluster<'a>) -> impl Iterator<Item = &'a Candidate> + use<'a> {
    let nodes = cluster.nodes.iter();
    nodes.filter(|candidate| candidate.trusted && candidate.liveness == Liveness::Healthy && !candidate.leaving)
}

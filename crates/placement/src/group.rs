//! Choosing the members of a group.

use std::collections::BTreeMap;

use vstack_types::{NodeRef, NodeUuid, VideoId, limits::DISK_PERCENT_FULL};

use crate::rendezvous::draw;

/// How a node is doing, by its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// Heard of lately.
    Healthy,
    /// Silent for a while; it may be back in a moment.
    Degraded,
    /// Silent for so long that nothing is expected of it.
    Down,
}

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The acceptor it would be.
    pub node: NodeRef,
    /// Failure domain.
    pub zone: String,
    /// Share of its disk in use, in percent.
    pub disk_percent: f64,
    /// By its silence.
    pub liveness: Liveness,
    /// It proved that it knows the cluster secret.
    pub trusted: bool,
    /// It is being emptied: nothing new goes there.
    pub leaving: bool,
}

impl Candidate {
    /// One that takes chunks: trusted, up, in no zone, on an empty disk. Elsewise is told on top of it.
    pub const fn healthy(node: NodeRef) -> Self {
        Self {
            node,
            zone: String::new(),
            disk_percent: 0.0,
            liveness: Liveness::Healthy,
            trusted: true,
            leaving: false,
        }
    }
}

/// What a group is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct GroupRequest<'a> {
    /// Spreads videos over the nodes.
    pub video: VideoId,
    /// Members wanted.
    pub replication_factor: usize,
    /// Nodes the asker could not reach.
    pub avoid: &'a [NodeUuid],
}

/// Why there is no group now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{up} of the {members} trusted storage nodes that would hold the chunks are up, which is no majority")]
pub struct NoMajority {
    /// Members believed to be up.
    pub up: usize,
    /// Members the group would have.
    pub members: usize,
}

/// The members of a group, in the order its placements name them.
///
/// - An untrusted node is never a member, nor is one that is being emptied while others are up, and one whose disk is too full to take bytes only when every node that is
///   up is.
/// - Nodes that are down or avoided are left out when `replication_factor` others can be had. With fewer, they fill
///   the group up: trouble that passes never makes a group smaller, and with it the copies a decision takes. A chunk
///   is decided without them, and their copies are completed when they are back.
/// - Zones are used as evenly as the nodes allow.
/// - Among equals a video's draw decides, so that every video has its own order and free disks get more.
///
/// # Errors
/// When no majority of the group is up: it could decide nothing now.
pub fn choose_group(candidates: &[Candidate], request: GroupRequest<'_>) -> Result<Vec<NodeRef>, NoMajority> {
    let ranked = ranked(candidates, request.video);
    let up =
        |candidate: &Candidate| candidate.liveness != Liveness::Down && !request.avoid.contains(&candidate.node.uuid);
    let roomy = |candidate: &Candidate| candidate.disk_percent <= DISK_PERCENT_FULL && !candidate.leaving;
    let any_room = ranked.iter().any(|candidate| up(candidate) && roomy(candidate));
    let subset = |keep: &dyn Fn(&Candidate) -> bool| -> Vec<&Candidate> {
        let eligible = ranked.iter().copied().filter(|candidate| roomy(candidate) || !any_room);
        eligible.filter(|candidate| keep(candidate)).collect()
    };

    let wanted = request.replication_factor;
    let healthy = subset(&|candidate| up(candidate) && candidate.liveness == Liveness::Healthy);
    let pool = if healthy.len() >= wanted { healthy } else { subset(&up) };

    let mut spread = ZoneSpread::default();
    let mut members = spread.pick(&pool, wanted);
    let up_members = members.len();
    members.extend(spread.pick(&subset(&|candidate| !up(candidate)), wanted - up_members));
    if up_members > members.len() / 2 {
        Ok(members)
    } else {
        Err(NoMajority {
            up: up_members,
            members: members.len(),
        })
    }
}

/// The trusted candidates, each disk once in its latest life, highest draw first.
pub(crate) fn ranked(candidates: &[Candidate], video: VideoId) -> Vec<&Candidate> {
    let mut by_disk = BTreeMap::<NodeUuid, &Candidate>::new();
    for candidate in candidates.iter().filter(|candidate| candidate.trusted) {
        let latest = by_disk.entry(candidate.node.uuid).or_insert(candidate);
        if candidate.node.incarnation > latest.node.incarnation {
            *latest = candidate;
        }
    }
    let mut drawn: Vec<_> = by_disk
        .into_values()
        .map(|candidate| {
            // A full or nonsensically reported disk still has a positive weight: whether it may be used is decided
            // elsewhere.
            let free_percent = (100.0 - candidate.disk_percent).clamp(1.0, 100.0);
            (draw(video, candidate.node.uuid, free_percent), candidate)
        })
        .collect();
    drawn.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(left.node.cmp(&right.node)));
    drawn.into_iter().map(|(_, candidate)| candidate).collect()
}

/// How many members each zone has so far.
#[derive(Default)]
pub(crate) struct ZoneSpread<'a>(BTreeMap<&'a str, usize>);

impl<'a> ZoneSpread<'a> {
    /// Counts a member that there is already.
    pub(crate) fn note(&mut self, candidate: &'a Candidate) {
        *self.0.entry(candidate.zone.as_str()).or_default() += 1;
    }

    /// Up to `count` of `ranked`, one after the other from the zone with the fewest members, by rank within it.
    pub(crate) fn pick(&mut self, ranked: &[&'a Candidate], count: usize) -> Vec<NodeRef> {
        let mut left = ranked.to_vec();
        let mut picked = Vec::with_capacity(count.min(left.len()));
        while picked.len() < count && !left.is_empty() {
            let members = |candidate: &Candidate| self.0.get(candidate.zone.as_str()).copied().unwrap_or(0);
            // The first of equals: `left` stays in rank order.
            let best = (0..left.len()).min_by_key(|&index| members(left[index])).unwrap_or(0);
            let candidate = left.remove(best);
            *self.0.entry(candidate.zone.as_str()).or_default() += 1;
            picked.push(candidate.node);
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn candidate(n: u8) -> Candidate {
        Candidate::healthy(node(n))
    }

    fn chosen(candidates: &[Candidate], avoid: &[NodeUuid]) -> Result<Vec<NodeRef>, NoMajority> {
        let request = GroupRequest {
            video: VideoId::from_bytes([7; 16]),
            replication_factor: 3,
            avoid,
        };
        choose_group(candidates, request).map(|mut group| {
            group.sort_unstable();
            group
        })
    }

    fn choose(candidates: &[Candidate], avoid: &[NodeUuid]) -> Vec<NodeRef> {
        chosen(candidates, avoid).unwrap()
    }

    fn down(n: u8) -> Candidate {
        Candidate {
            liveness: Liveness::Down,
            ..candidate(n)
        }
    }

    #[test]
    fn a_dead_node_stays_a_member_only_where_no_other_can_stand_in() {
        assert_eq!(
            choose(&[candidate(1), candidate(2), down(3)], &[]),
            [node(1), node(2), node(3)]
        );
        assert_eq!(
            choose(&[candidate(1), candidate(2), down(3), candidate(4)], &[]),
            [node(1), node(2), node(4)]
        );
        // Two up and two down: one of them may be waited for, not both.
        let group = choose(&[candidate(1), candidate(2), down(3), down(4)], &[]);
        assert!(group.len() == 3 && group[..2] == [node(1), node(2)], "{group:?}");
    }

    #[test]
    fn trouble_that_passes_never_makes_a_group_smaller() {
        let refused = |up, members| Err(NoMajority { up, members });
        let three = [candidate(1), candidate(2), candidate(3)];
        assert_eq!(chosen(&three, &[node(2).uuid, node(3).uuid]), refused(1, 3));
        assert_eq!(chosen(&[candidate(1), down(2), down(3)], &[]), refused(1, 3));
        assert_eq!(
            chosen(&[candidate(1), candidate(2), down(3)], &[node(2).uuid]),
            refused(1, 3)
        );
        assert_eq!(chosen(&[candidate(1), candidate(2)], &[node(2).uuid]), refused(1, 2));
        // A full disk takes nothing, however long it is waited for; the one avoided is still waited for.
        let full = Candidate {
            disk_percent: 96.0,
            ..candidate(1)
        };
        assert_eq!(
            chosen(&[full, candidate(2), candidate(3)], &[node(2).uuid]),
            refused(1, 2)
        );
    }

    #[test]
    fn an_avoided_node_counts_as_down() {
        let three = [candidate(1), candidate(2), candidate(3)];
        assert_eq!(choose(&three, &[node(2).uuid]), [node(1), node(2), node(3)]);
        let four = [candidate(1), candidate(2), candidate(3), candidate(4)];
        assert_eq!(choose(&four, &[node(2).uuid]), [node(1), node(3), node(4)]);
    }

    #[test]
    fn with_fewer_nodes_the_group_is_what_there_is() {
        assert_eq!(chosen(&[], &[]), Err(NoMajority { up: 0, members: 0 }));
        assert_eq!(
            chosen(&[down(1), down(2), down(3)], &[]),
            Err(NoMajority { up: 0, members: 3 })
        );
        assert_eq!(choose(&[candidate(1)], &[]), [node(1)]);
        assert_eq!(choose(&[candidate(1), candidate(2)], &[]), [node(1), node(2)]);
    }

    #[test]
    fn full_disks_are_the_last_resort() {
        let full = |n| Candidate {
            disk_percent: 96.0,
            ..candidate(n)
        };
        assert_eq!(choose(&[full(1), candidate(2), full(3)], &[]), [node(2)]);
        assert_eq!(choose(&[full(1), full(2), full(3)], &[]), [node(1), node(2), node(3)]);
    }

    #[test]
    fn zones_come_before_draws() {
        let zoned = |n, zone: &str| Candidate {
            zone: zone.into(),
            ..candidate(n)
        };
        let nodes = [
            zoned(1, "a"),
            zoned(2, "a"),
            zoned(3, "a"),
            zoned(4, "b"),
            zoned(5, "c"),
        ];
        let group = choose(&nodes, &[]);
        assert!(group.contains(&node(4)) && group.contains(&node(5)), "{group:?}");
    }

    #[test]
    fn a_degraded_node_gives_way_to_a_healthy_one() {
        let degraded = |n| Candidate {
            liveness: Liveness::Degraded,
            ..candidate(n)
        };
        let nodes = [degraded(1), candidate(2), candidate(3), candidate(4)];
        assert_eq!(choose(&nodes, &[]), [node(2), node(3), node(4)]);
        assert_eq!(
            choose(&[degraded(1), candidate(2), candidate(3)], &[]),
            [node(1), node(2), node(3)]
        );
    }
}

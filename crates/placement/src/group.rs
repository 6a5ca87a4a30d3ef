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
    /// Bytes of its disk that are free; none when it did not say.
    pub disk_free: Option<u64>,
    /// By its silence.
    pub liveness: Liveness,
    /// It proved that it knows the cluster secret.
    pub trusted: bool,
    /// It is being emptied: nothing new goes there while others can take it.
    pub leaving: bool,
    /// Nobody counts on its votes any more: it lost some, its disk is sealed, or it is taken out and not there.
    pub mute: bool,
}

impl Candidate {
    /// One that takes chunks: trusted, up, in no zone, on an empty disk. Elsewise is told on top of it.
    pub const fn healthy(node: NodeRef) -> Self {
        Self {
            node,
            zone: String::new(),
            disk_percent: 0.0,
            disk_free: None,
            liveness: Liveness::Healthy,
            trusted: true,
            leaving: false,
            mute: false,
        }
    }

    /// How much each of these is to get beside the others: by its free bytes when all of them said how many those
    /// are, by the free part of its disk otherwise. A disk counts for less as it fills, so equal disks end with equal
    /// shares, and one ten times as large with ten times as much.
    pub fn weights(candidates: &[&Self]) -> Vec<f64> {
        // A full or nonsensically reported disk still has a positive weight: whether it may be used is decided
        // elsewhere.
        let percent = |candidate: &&Self| (100.0 - candidate.disk_percent).clamp(1.0, 100.0);
        let told: Option<Vec<u64>> = candidates.iter().map(|candidate| candidate.disk_free).collect();
        match told {
            #[expect(clippy::cast_precision_loss, reason = "a weight needs no more than 52 bits")]
            Some(free) => free.into_iter().map(|bytes| bytes.max(1) as f64).collect(),
            None => candidates.iter().map(percent).collect(),
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
pub enum NoMajority {
    /// Too few members are there: it could decide nothing now.
    #[error("{up} of the {members} trusted storage nodes that would hold the chunks are up, which is no majority")]
    Silent {
        /// Members believed to be up.
        up: usize,
        /// Members the group would have.
        members: usize,
    },
    /// Too few disks have room.
    #[error(
        "{roomy} of the {members} trusted storage nodes that would hold the chunks have room, which is no majority; the disks of {full} are full"
    )]
    Full {
        /// Members that have room.
        roomy: usize,
        /// Members the group would have, had all of them room.
        members: usize,
        /// Nodes that have none.
        full: usize,
    },
}

/// The members of a group, in the order its placements name them.
///
/// - An untrusted node is never a member, nor is one that votes no more.
/// - Nodes that leave, are down or avoided are left out when `replication_factor` others can be had. With fewer, they
///   fill the group up, those that are there first: neither trouble that passes nor a node that is to go makes a group
///   smaller, and with it the copies a decision takes. With two of three nodes being emptied, a single copy would else
///   do. A chunk is decided without those that are down, and their copies are completed when they are back.
/// - A full disk can take no bytes, however long it is waited for, so it makes the group smaller; but not below a
///   majority of the members it should have: half of the copies that were promised, or more, would be missing. Where
///   there are fewer nodes than `replication_factor`, it should have as many as there are.
/// - Zones are used as evenly as the nodes allow.
/// - Among equals a video's draw decides, so that every video has its own order and free disks get more.
///
/// # Errors
/// When no majority of the group has room, or none is up.
pub fn choose_group(candidates: &[Candidate], request: GroupRequest<'_>) -> Result<Vec<NodeRef>, NoMajority> {
    let up =
        |candidate: &Candidate| candidate.liveness != Liveness::Down && !request.avoid.contains(&candidate.node.uuid);
    let voting = ranked(candidates, request.video)
        .into_iter()
        .filter(|candidate| !candidate.mute);
    let (roomy, full): (Vec<&Candidate>, Vec<&Candidate>) = voting.partition(|candidate| {
        candidate.disk_percent <= DISK_PERCENT_FULL || vstack_types::planted!("a full disk is given chunks")
    });
    let subset = |keep: &dyn Fn(&Candidate) -> bool| -> Vec<&Candidate> {
        roomy.iter().copied().filter(|candidate| keep(candidate)).collect()
    };

    let wanted = request.replication_factor;
    let stays = |candidate: &Candidate| up(candidate) && !candidate.leaving;
    let healthy = subset(&|candidate| stays(candidate) && candidate.liveness == Liveness::Healthy);
    let pool = if healthy.len() >= wanted {
        healthy
    } else {
        subset(&stays)
    };

    let mut spread = ZoneSpread::default();
    let mut members = spread.pick(&pool, wanted);
    let leaving = subset(&|candidate| up(candidate) && candidate.leaving);
    members.extend(spread.pick(&leaving, wanted - members.len()));
    let up_members = members.len();
    for leaving in [false, true] {
        let down = subset(&|candidate| !up(candidate) && candidate.leaving == leaving);
        members.extend(spread.pick(&down, wanted - members.len()));
    }
    let due = wanted.min(roomy.len() + full.len());
    if members.len() < due && members.len() <= due / 2 {
        return Err(NoMajority::Full {
            roomy: members.len(),
            members: due,
            full: full.len(),
        });
    }
    if up_members > members.len() / 2 {
        Ok(members)
    } else {
        Err(NoMajority::Silent {
            up: up_members,
            members: members.len(),
        })
    }
}

/// The trusted candidates, each disk once in its latest life.
pub(crate) fn latest(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut by_disk = BTreeMap::<NodeUuid, &Candidate>::new();
    for candidate in candidates.iter().filter(|candidate| candidate.trusted) {
        let latest = by_disk.entry(candidate.node.uuid).or_insert(candidate);
        if candidate.node.incarnation > latest.node.incarnation {
            *latest = candidate;
        }
    }
    by_disk.into_values().collect()
}

/// The same, highest draw first.
pub(crate) fn ranked(candidates: &[Candidate], video: VideoId) -> Vec<&Candidate> {
    let known = latest(candidates);
    let weights = Candidate::weights(&known);
    let mut drawn: Vec<_> = known
        .into_iter()
        .zip(weights)
        .map(|(candidate, weight)| (draw(video, candidate.node.uuid, weight), candidate))
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
        let refused = |up, members| Err(NoMajority::Silent { up, members });
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
        assert_eq!(chosen(&[], &[]), Err(NoMajority::Silent { up: 0, members: 0 }));
        assert_eq!(
            chosen(&[down(1), down(2), down(3)], &[]),
            Err(NoMajority::Silent { up: 0, members: 3 })
        );
        assert_eq!(choose(&[candidate(1)], &[]), [node(1)]);
        assert_eq!(choose(&[candidate(1), candidate(2)], &[]), [node(1), node(2)]);
    }

    fn leaving(n: u8) -> Candidate {
        Candidate {
            leaving: true,
            ..candidate(n)
        }
    }

    fn full(n: u8) -> Candidate {
        Candidate {
            disk_percent: 96.0,
            ..candidate(n)
        }
    }

    #[test]
    fn full_disks_make_a_group_smaller_but_never_less_than_a_majority() {
        let refused = |roomy, members, full| Err(NoMajority::Full { roomy, members, full });
        assert_eq!(choose(&[full(1), candidate(2), candidate(3)], &[]), [node(2), node(3)]);
        assert_eq!(
            choose(&[full(1), leaving(2), candidate(3)], &[]),
            [node(2), node(3)],
            "who leaves has room"
        );
        assert_eq!(chosen(&[full(1), candidate(2), full(3)], &[]), refused(1, 3, 2));
        assert_eq!(chosen(&[full(1), full(2), full(3)], &[]), refused(0, 3, 3));
        assert_eq!(chosen(&[full(1), candidate(2)], &[]), refused(1, 2, 1));
        assert_eq!(chosen(&[full(1)], &[]), refused(0, 1, 1));
        let said = chosen(&[full(1), candidate(2), full(3)], &[]).unwrap_err().to_string();
        assert!(said.contains("1 of the 3") && said.contains("full"), "{said}");
    }

    #[test]
    fn who_leaves_fills_up_what_would_be_too_few() {
        assert_eq!(
            choose(&[candidate(1), leaving(2), leaving(3)], &[]),
            [node(1), node(2), node(3)],
            "else a single copy would do"
        );
        assert_eq!(
            choose(&[candidate(1), candidate(2), candidate(3), leaving(4)], &[]),
            [node(1), node(2), node(3)]
        );
        assert_eq!(
            choose(&[candidate(1), candidate(2), leaving(3), down(4)], &[]),
            [node(1), node(2), node(3)],
            "before those that are down"
        );
        let away = Candidate {
            leaving: true,
            ..down(3)
        };
        assert_eq!(
            choose(&[candidate(1), candidate(2), away.clone()], &[]),
            [node(1), node(2), node(3)]
        );
        assert_eq!(
            choose(&[candidate(1), candidate(2), away, down(4)], &[]),
            [node(1), node(2), node(4)]
        );
    }

    #[test]
    fn who_votes_no_more_is_never_a_member() {
        let mute = |n| Candidate {
            mute: true,
            ..leaving(n)
        };
        assert_eq!(choose(&[candidate(1), candidate(2), mute(3)], &[]), [node(1), node(2)]);
        assert_eq!(
            chosen(&[mute(1), mute(2)], &[]),
            Err(NoMajority::Silent { up: 0, members: 0 })
        );
    }

    /// How often each of two disks is drawn for the only copy.
    fn draws(of: &[Candidate; 2]) -> [u32; 2] {
        let mut draws = [0; 2];
        for n in 0..4_000_u32 {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            let request = GroupRequest {
                video: VideoId::from_bytes(bytes),
                replication_factor: 1,
                avoid: &[],
            };
            let group = choose_group(of, request).unwrap();
            draws[usize::from(group != [of[0].node])] += 1;
        }
        draws
    }

    #[test]
    fn a_disk_with_ten_times_as_much_free_is_drawn_ten_times_as_often() {
        let with = |n, disk_free| Candidate {
            disk_free,
            ..candidate(n)
        };
        let [small, large] = draws(&[with(1, Some(10_000_000_000)), with(2, Some(100_000_000_000))]);
        // Ten elevenths of 4000, give or take five standard deviations.
        assert!((3_545..=3_727).contains(&large), "{small} {large}");
        // As long as one does not say how many bytes that are, the share of the disk counts.
        let [first, second] = draws(&[with(1, None), with(2, Some(100_000_000_000))]);
        assert!((1_842..=2_158).contains(&first), "{first} {second}");
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

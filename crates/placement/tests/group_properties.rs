//! What must hold of every group, over all mixtures of trust, liveness, disks, zones and avoided nodes.

use proptest::prelude::*;
use vstack_placement::{Candidate, GroupRequest, Liveness, NoMajority, choose_group};
use vstack_types::{Incarnation, NodeRef, NodeUuid, VideoId, limits::DISK_PERCENT_FULL};

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let liveness = prop_oneof![4 => Just(Liveness::Healthy), 1 => Just(Liveness::Degraded), 2 => Just(Liveness::Down)];
    let one = (
        0_u8..10,
        0_u32..2,
        0_u8..4,
        0.0..100.0_f64,
        liveness,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(one, 0..10).prop_map(|drawn| {
        drawn
            .into_iter()
            .map(
                |(disk, incarnation, zone, disk_percent, liveness, trusted, leaving, mute)| Candidate {
                    node: NodeRef {
                        uuid: NodeUuid::from_bytes([disk; 16]),
                        incarnation: Incarnation(incarnation),
                    },
                    zone: format!("zone-{zone}"),
                    disk_percent,
                    disk_free: None,
                    liveness,
                    trusted,
                    leaving: leaving || mute,
                    mute,
                },
            )
            .collect()
    })
}

/// As the candidates say of a member; a disk listed twice counts in its latest life, the first entry of it.
fn entry(candidates: &[Candidate], node: NodeRef) -> &Candidate {
    candidates
        .iter()
        .find(|candidate| candidate.node == node && candidate.trusted)
        .expect("a member is a candidate")
}

fn distinct_disks(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut kept = Vec::<Candidate>::new();
    for candidate in candidates {
        if !kept.iter().any(|other| other.node.uuid == candidate.node.uuid) {
            kept.push(candidate.clone());
        }
    }
    kept
}

proptest! {
    #[test]
    fn every_group_keeps_the_rules(
        candidates in candidates(),
        video in any::<[u8; 16]>(),
        replication_factor in 1_usize..6,
        avoid in prop::collection::vec((0_u8..10).prop_map(|disk| NodeUuid::from_bytes([disk; 16])), 0..3),
    ) {
        let candidates = distinct_disks(&candidates);
        let request = GroupRequest { video: VideoId::from_bytes(video), replication_factor, avoid: &avoid };
        let up = |candidate: &Candidate| candidate.liveness != Liveness::Down && !avoid.contains(&candidate.node.uuid);
        let roomy = |candidate: &Candidate| candidate.disk_percent <= DISK_PERCENT_FULL;
        let voting = candidates.iter().filter(|candidate| candidate.trusted && !candidate.mute);
        let (eligible, full): (Vec<_>, Vec<_>) = voting.partition(|candidate| roomy(candidate));
        let eligible_up = eligible.iter().filter(|candidate| up(candidate)).count();
        let staying_up = eligible.iter().filter(|candidate| up(candidate) && !candidate.leaving).count();
        // Nobody's silence makes the group smaller, nor that somebody leaves; full disks do, down to a majority.
        let size = replication_factor.min(eligible.len());
        let due = replication_factor.min(eligible.len() + full.len());
        let has_room = size == due || size > due / 2;
        let group = match choose_group(&candidates, request) {
            Ok(group) => group,
            Err(NoMajority::Full { roomy, members, full: disks }) => {
                prop_assert_eq!((roomy, members, disks), (size, due, full.len()));
                prop_assert!(!has_room, "refused without need");
                return Ok(());
            }
            Err(refusal) => {
                prop_assert_eq!(refusal, NoMajority::Silent { up: eligible_up, members: size });
                prop_assert!(has_room && eligible_up <= size / 2, "refused without need");
                return Ok(());
            }
        };
        prop_assert!(has_room, "too few copies");
        let members: Vec<_> = group.iter().map(|node| entry(&candidates, *node)).collect();
        let up_members = members.iter().filter(|member| up(member)).count();

        prop_assert_eq!(group.len(), size);
        let mut disks: Vec<_> = group.iter().map(|node| node.uuid).collect();
        disks.sort_unstable();
        disks.dedup();
        prop_assert_eq!(disks.len(), group.len(), "a disk twice");
        prop_assert!(members.iter().all(|member| eligible.contains(member)));
        prop_assert!(up_members > group.len() / 2, "a group that cannot decide");
        prop_assert_eq!(up_members, eligible_up.min(replication_factor), "everything usable is used");
        let leavers = members.iter().filter(|member| member.leaving).count();
        prop_assert!(leavers == 0 || staying_up < replication_factor, "one leaves and others stay");
        prop_assert_eq!(Ok(group), choose_group(&candidates, request), "not a function of its input");
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(candidates in candidates(), video in any::<[u8; 16]>()) {
        let candidates = distinct_disks(&candidates);
        let request = GroupRequest { video: VideoId::from_bytes(video), replication_factor: 3, avoid: &[] };
        let reversed: Vec<_> = candidates.iter().rev().cloned().collect();
        prop_assert_eq!(choose_group(&candidates, request), choose_group(&reversed, request));
    }

    #[test]
    fn healthy_nodes_in_enough_zones_give_distinct_zones(zones in prop::collection::vec(0_u8..5, 3..10), video in any::<[u8; 16]>()) {
        let candidates: Vec<_> = (0_u8..).zip(&zones).map(|(disk, zone)| Candidate {
            zone: zone.to_string(),
            disk_percent: 20.0,
            ..Candidate::healthy(NodeRef::first(NodeUuid::from_bytes([disk; 16])))
        }).collect();
        let request = GroupRequest { video: VideoId::from_bytes(video), replication_factor: 3, avoid: &[] };
        let group = choose_group(&candidates, request).expect("all are up");
        let distinct = |mut zones: Vec<String>| { zones.sort(); zones.dedup(); zones.len() };
        let there_are = distinct(candidates.iter().map(|candidate| candidate.zone.clone()).collect());
        let used = distinct(group.iter().map(|node| entry(&candidates, *node).zone.clone()).collect());
        prop_assert_eq!(group.len(), 3);
        prop_assert_eq!(used, there_are.min(3));
    }
}

#[test]
fn videos_are_spread_over_equal_nodes() {
    let candidates: Vec<_> = (0..6_u8)
        .map(|disk| Candidate {
            disk_percent: 30.0,
            ..Candidate::healthy(NodeRef::first(NodeUuid::from_bytes([disk; 16])))
        })
        .collect();
    let mut chosen = [0_u32; 6];
    for n in 0..3_000_u32 {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        let request = GroupRequest {
            video: VideoId::from_bytes(bytes),
            replication_factor: 3,
            avoid: &[],
        };
        for node in choose_group(&candidates, request).expect("all are up") {
            chosen[usize::from(node.uuid.as_bytes()[0])] += 1;
        }
    }
    // Half of 3000 each, give or take five standard deviations.
    assert!(chosen.iter().all(|count| (1_363..=1_637).contains(count)), "{chosen:?}");
}

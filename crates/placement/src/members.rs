//! Choosing where the copies of a chunk are to be, given where they are: for repair, for nodes that leave, and for
//! chunks that were written when there were fewer nodes.

use vstack_types::{NodeRef, VideoId};

use crate::group::{Candidate, Liveness, ZoneSpread, ranked};

/// Where the copies of a chunk are, and how many are wanted.
#[derive(Debug, Clone, Copy)]
pub struct MembersRequest<'a> {
    /// Spreads videos over the nodes.
    pub video: VideoId,
    /// Copies wanted.
    pub copies: usize,
    /// Who has them now, by the placement.
    pub current: &'a [NodeRef],
    /// Nodes of which nothing is expected any more. One that is merely silent is waited for.
    pub gone: &'a [NodeRef],
}

/// Where the copies are to be: the same as now when nothing can be made better.
///
/// - Who has a copy keeps it, unless it is gone or leaves; what is more than wanted is taken from the zone with most
///   members, and there from the fullest disk; from nodes that are silent first.
/// - What is missing goes to healthy nodes with room, to the zone with fewest members, and there by the video's draw. A
///   nearly full disk is given nothing: it would be full before the next one is there.
/// - Who is gone or leaves stays a member where nobody can stand in: fewer acceptors would make the next loss worse, and
///   nothing better.
pub fn choose_members(candidates: &[Candidate], request: MembersRequest<'_>) -> Vec<NodeRef> {
    if may_stay(candidates, request) {
        return request.current.to_vec();
    }
    let ranked = ranked(candidates, request.video);
    let known = |node: &NodeRef| ranked.iter().copied().find(|candidate| candidate.node == *node);
    let is_gone = |node: &NodeRef| request.gone.contains(node);
    let (stay, go): (Vec<NodeRef>, Vec<NodeRef>) = request
        .current
        .iter()
        .partition(|node| known(node).is_some_and(|candidate| !candidate.leaving && !is_gone(node)));

    let mut spread = ZoneSpread::default();
    let kept = if stay.len() > request.copies {
        keep_best(&stay, request.copies, &known)
    } else {
        stay
    };
    kept.iter()
        .filter_map(known)
        .for_each(|candidate| spread.note(candidate));
    let room = |candidate: &&Candidate| {
        candidate.obstacle().is_none()
            && !is_gone(&candidate.node)
            && !request.current.iter().any(|node| node.uuid == candidate.node.uuid)
    };
    let pool: Vec<&Candidate> = ranked.iter().copied().filter(room).collect();
    let mut members = kept;
    members.extend(spread.pick(&pool, request.copies.saturating_sub(members.len())));

    // Those that leave still have their copies; those that are gone may come back with them.
    let (leaving, gone): (Vec<NodeRef>, Vec<NodeRef>) = go.into_iter().partition(|node| !is_gone(node));
    for node in leaving.into_iter().chain(gone) {
        if members.len() < request.copies {
            members.push(node);
        }
    }
    if same(&members, request.current) {
        return request.current.to_vec();
    }
    members
}

/// Whether there is nothing to choose: so it is for nearly all of a million chunks.
fn may_stay(candidates: &[Candidate], request: MembersRequest<'_>) -> bool {
    let stays = |node: &NodeRef| {
        let known = |candidate: &Candidate| candidate.node == *node && candidate.trusted && !candidate.leaving;
        !request.gone.contains(node) && candidates.iter().any(known)
    };
    request.current.len() == request.copies && request.current.iter().all(stays)
}

/// Whether both name the same nodes, in whatever order.
fn same(a: &[NodeRef], b: &[NodeRef]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}

fn keep_best<'a>(stay: &[NodeRef], copies: usize, known: &dyn Fn(&NodeRef) -> Option<&'a Candidate>) -> Vec<NodeRef> {
    let mut kept: Vec<&Candidate> = stay.iter().filter_map(known).collect();
    while kept.len() > copies {
        let in_zone = |zone: &str| kept.iter().filter(|other| other.zone == zone).count();
        let worst = (0..kept.len()).max_by(|a, b| {
            let (a, b) = (kept[*a], kept[*b]);
            // A copy that cannot be read now goes before any that can.
            (a.liveness != Liveness::Healthy)
                .cmp(&(b.liveness != Liveness::Healthy))
                .then(in_zone(&a.zone).cmp(&in_zone(&b.zone)))
                .then(a.disk_percent.total_cmp(&b.disk_percent))
                .then(a.node.cmp(&b.node))
        });
        let Some(worst) = worst else { break };
        kept.remove(worst);
    }
    kept.into_iter().map(|candidate| candidate.node).collect()
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn candidate(n: u8) -> Candidate {
        Candidate::healthy(node(n))
    }

    fn nodes(of: &[u8]) -> Vec<NodeRef> {
        of.iter().map(|n| node(*n)).collect()
    }

    fn chosen(candidates: &[Candidate], current: &[u8], gone: &[u8]) -> Vec<NodeRef> {
        let mut members = choose_members(
            candidates,
            MembersRequest {
                video: VideoId::from_bytes([7; 16]),
                copies: 3,
                current: &nodes(current),
                gone: &nodes(gone),
            },
        );
        members.sort_unstable();
        members
    }

    fn five() -> Vec<Candidate> {
        (1..=5).map(candidate).collect()
    }

    #[test]
    fn a_chunk_that_is_whole_stays_where_it_is() {
        assert_eq!(chosen(&five(), &[1, 3, 5], &[]), nodes(&[1, 3, 5]));
        let silent = |n| Candidate {
            liveness: Liveness::Down,
            ..candidate(n)
        };
        let waited_for = [candidate(1), silent(2), candidate(3), candidate(4)];
        assert_eq!(chosen(&waited_for, &[1, 2, 3], &[]), nodes(&[1, 2, 3]));
    }

    #[test]
    fn a_node_that_is_gone_is_replaced_where_somebody_can_stand_in() {
        let four = &five()[..4];
        assert_eq!(chosen(four, &[1, 2, 3], &[2]), nodes(&[1, 3, 4]));
        assert_eq!(chosen(&five()[..3], &[1, 2, 3], &[2]), nodes(&[1, 2, 3]), "nobody can");
        // It is not even registered any more.
        assert_eq!(chosen(four, &[1, 3, 9], &[]).len(), 3);
        assert!(!chosen(four, &[1, 3, 9], &[]).contains(&node(9)));
    }

    #[test]
    fn a_node_that_leaves_is_replaced_before_it_goes() {
        let mut nodes_here = five();
        nodes_here[0].leaving = true;
        let members = chosen(&nodes_here, &[1, 2, 3], &[]);
        assert!(members.len() == 3 && !members.contains(&node(1)), "{members:?}");
        nodes_here.truncate(3);
        assert_eq!(chosen(&nodes_here, &[1, 2, 3], &[]), nodes(&[1, 2, 3]));
    }

    #[test]
    fn a_chunk_of_a_small_cluster_is_widened_but_not_onto_a_nearly_full_disk() {
        assert_eq!(chosen(&five()[..3], &[2], &[]), nodes(&[1, 2, 3]));
        let mut full = five();
        full.truncate(3);
        full[2].disk_percent = 86.0;
        assert_eq!(chosen(&full, &[2], &[]), nodes(&[1, 2]));
    }

    #[test]
    fn a_copy_that_can_be_read_is_kept_rather_than_one_that_cannot() {
        let mut four = five()[..4].to_vec();
        four[1].liveness = Liveness::Down;
        four[1].disk_percent = 1.0;
        assert_eq!(chosen(&four, &[1, 2, 3, 4], &[]), nodes(&[1, 3, 4]));
    }

    #[test]
    fn what_is_more_than_wanted_goes_from_the_fullest_zone_and_disk() {
        let zoned = |n, zone: &str, disk_percent| Candidate {
            zone: zone.into(),
            disk_percent,
            ..candidate(n)
        };
        let here = [
            zoned(1, "a", 90.0),
            zoned(2, "b", 20.0),
            zoned(3, "b", 50.0),
            zoned(4, "c", 95.0),
        ];
        assert_eq!(chosen(&here, &[1, 2, 3, 4], &[]), nodes(&[1, 2, 4]));
    }

    #[test]
    fn the_missing_copy_goes_to_a_zone_of_its_own() {
        let zoned = |n, zone: &str| Candidate {
            zone: zone.into(),
            ..candidate(n)
        };
        let here = [
            zoned(1, "a"),
            zoned(2, "b"),
            zoned(3, "a"),
            zoned(4, "b"),
            zoned(5, "c"),
        ];
        assert_eq!(chosen(&here, &[1, 2, 9], &[9]), nodes(&[1, 2, 5]));
    }
}

//! Choosing where the shards of a coded chunk are to be: first, for repair, and for nodes that leave or join.

use std::collections::BTreeMap;

use vstack_types::{NodeRef, VideoId};

use crate::{
    group::{Candidate, ranked},
    takers::Takers,
};

/// What shards are to be placed.
#[derive(Debug, Clone, Copy)]
pub struct ShardsRequest<'a> {
    /// Spreads videos over the nodes.
    pub video: VideoId,
    /// Shards that are needed to read.
    pub data: usize,
    /// Where each shard is now, by its index; none for one that is not made yet.
    pub current: &'a [Option<NodeRef>],
    /// Nodes of which nothing is expected any more. One that is merely silent is waited for.
    pub gone: &'a [NodeRef],
}

/// Why shards cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{data}+{parity} shards are to survive the loss of any node, which takes {needed} nodes that are up, stay, and have \
     room; {takers}"
)]
pub struct TooFewNodes {
    /// Shards that are needed to read.
    pub data: usize,
    /// Shards beyond those.
    pub parity: usize,
    /// So many nodes would do.
    pub needed: usize,
    /// Who may be given shards.
    pub takers: Takers,
}

/// How many nodes may be lost, whichever they are, and the rest still gives the chunk: with shards at `places`, each named
/// once for each of its shards, of which `data` are needed. Computed from where shards are, never assumed. Of zones, where
/// the places are those.
pub fn losses_survived<P: Ord>(places: &[P], data: usize) -> usize {
    let mut held = BTreeMap::<&P, usize>::new();
    for place in places {
        *held.entry(place).or_default() += 1;
    }
    let mut held: Vec<usize> = held.into_values().collect();
    held.sort_unstable();
    let mut left = places.len();
    let mut survived = 0;
    while let Some(fullest) = held.pop() {
        left -= fullest;
        if left < data {
            break;
        }
        survived += 1;
    }
    survived
}

/// The same with `shards` spread over `nodes` as evenly as can be.
pub fn losses_survivable(nodes: usize, data: usize, shards: usize) -> usize {
    let nodes = nodes.min(shards);
    if nodes == 0 {
        return 0;
    }
    let (fair, fuller) = (shards / nodes, shards % nodes);
    let mut left = shards;
    let lost = (0..nodes).take_while(|lost| {
        left -= fair + usize::from(*lost < fuller);
        left >= data
    });
    lost.count()
}

/// Where each shard is to be, by its index: the same as now when nothing can be made better.
///
/// - A shard stays where it is, unless its node is gone or leaves, or has more of them than it has to; or others could have
///   some of them, and the chunk would survive more losses.
/// - Others go to healthy nodes with room, no more to one than there have to be; to the zone with fewest shards, and there
///   by the video's draw. A nearly full disk is given nothing.
/// - A shard whose node is gone or leaves stays where nobody can stand in; and so do all where the chunk would not survive
///   the loss of any node.
///
/// # Errors
/// When shards that are not made yet would not survive the loss of a node.
pub fn choose_shards(candidates: &[Candidate], request: ShardsRequest<'_>) -> Result<Vec<NodeRef>, TooFewNodes> {
    may_stay(candidates, request).map_or_else(|| chosen_anew(candidates, request), Ok)
}

/// Where shards are, where there is nothing to choose: so it is for nearly all of a million chunks.
fn may_stay(candidates: &[Candidate], request: ShardsRequest<'_>) -> Option<Vec<NodeRef>> {
    let places: Vec<NodeRef> = request.current.iter().copied().collect::<Option<_>>()?;
    // The trusted one that is the disk's latest life.
    let is_known = |candidate: &Candidate| {
        let node = candidate.node;
        let is_later = |other: &Candidate| other.node.uuid == node.uuid && other.node.incarnation > node.incarnation;
        candidate.trusted && !candidates.iter().any(|other| other.trusted && is_later(other))
    };
    let stays = |node: &NodeRef| {
        let mut known = candidates.iter().filter(|known| known.node == *node);
        !request.gone.contains(node) && known.any(|known| !known.leaving && is_known(known))
    };
    if !places.iter().all(stays) {
        return None;
    }
    let mut distinct = places.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let shards = places.len();
    if distinct.len() == shards {
        return Some(places);
    }
    if candidates.len() >= shards {
        // Others may have some of them.
        return None;
    }
    let takes = |candidate: &&Candidate| {
        let is_other = !distinct.contains(&candidate.node) && !request.gone.contains(&candidate.node);
        is_other && candidate.obstacle().is_none() && is_known(candidate)
    };
    let nodes = distinct.len() + candidates.iter().filter(takes).count();
    let on = |node: &NodeRef| places.iter().filter(|place| *place == node).count();
    let is_fair = distinct.iter().all(|node| on(node) <= shards.div_ceil(nodes));
    let is_best = losses_survived(&places, request.data) >= losses_survivable(nodes, request.data, shards);
    (is_fair && is_best).then_some(places)
}

fn chosen_anew(candidates: &[Candidate], request: ShardsRequest<'_>) -> Result<Vec<NodeRef>, TooFewNodes> {
    let ranked = ranked(candidates, request.video);
    let known = |node: NodeRef| ranked.iter().copied().find(|candidate| candidate.node == node);
    let stays = |node: &NodeRef| known(*node).is_some_and(|known| !known.leaving) && !request.gone.contains(node);
    let takes = |candidate: &&Candidate| candidate.obstacle().is_none() && !request.gone.contains(&candidate.node);
    let pool: Vec<&Candidate> = ranked.iter().copied().filter(takes).collect();
    let mut there: Vec<NodeRef> = request.current.iter().flatten().copied().filter(stays).collect();
    there.extend(pool.iter().map(|candidate| candidate.node));
    there.sort_unstable();
    there.dedup();
    let shards = request.current.len();
    let nodes = there.len().max(1);
    let most = Share::AtMost(shards.div_ceil(nodes));

    let placed = |share: Share| -> Vec<NodeRef> {
        let mut held = Held::default();
        let mut chosen: Vec<Option<NodeRef>> = Vec::with_capacity(shards);
        for current in request.current {
            let stays = current.filter(stays).filter(|node| share.allows(&held, *node));
            if let Some(node) = stays {
                held.note(node, known(node));
            }
            chosen.push(stays);
        }
        for (place, current) in chosen.iter_mut().zip(request.current) {
            if place.is_some() {
                continue;
            }
            // The first of equals: the pool is in rank order.
            let best = |share: Share| {
                let free = pool.iter().filter(|candidate| share.allows(&held, candidate.node));
                free.min_by_key(|candidate| (held.in_zone(candidate), held.on(candidate.node)))
            };
            // Who stays may take nothing more, and leave others more than an even share.
            let best = best(share).or_else(|| best(most));
            let node = best.map(|candidate| candidate.node).or(*current);
            if let Some(node) = node {
                held.note(node, known(node));
            }
            *place = node;
        }
        chosen.into_iter().flatten().collect()
    };
    let mut chosen = placed(most);
    let survived = losses_survived(&chosen, request.data);
    if survived < losses_survivable(nodes, request.data, shards) {
        // For the sake of zones, or because they were there, some nodes have as many as any has to, and others have none.
        let even = placed(Share::Even {
            fair: shards / nodes,
            fuller: shards % nodes,
        });
        if losses_survived(&even, request.data) > survived {
            chosen = even;
        }
    }
    // A move to where no node may be lost could not be ended, nor would it make anything better.
    let is_of_no_use = chosen.len() < shards || losses_survived(&chosen, request.data) == 0;
    let current: Vec<NodeRef> = request.current.iter().flatten().copied().collect();
    if is_of_no_use && current.len() == shards {
        return Ok(current);
    }
    if is_of_no_use {
        let enough = |nodes: &usize| losses_survivable(*nodes, request.data, shards) > 0;
        return Err(TooFewNodes {
            data: request.data,
            parity: shards.saturating_sub(request.data),
            needed: (1..=shards).find(enough).unwrap_or(shards),
            takers: Takers::of(candidates, request.gone),
        });
    }
    Ok(chosen)
}

/// How many shards of a chunk a node may have.
#[derive(Debug, Clone, Copy)]
enum Share {
    /// No more than some node has to.
    AtMost(usize),
    /// All have as nearly the same as can be.
    Even {
        /// Each.
        fair: usize,
        /// So many of them have one more.
        fuller: usize,
    },
}

impl Share {
    /// Whether `node` may have one more.
    fn allows(self, held: &Held<'_>, node: NodeRef) -> bool {
        match self {
            Self::AtMost(most) => held.on(node) < most,
            Self::Even { fair, fuller } => {
                held.on(node) < fair || (held.on(node) == fair && held.with_more_than(fair) < fuller)
            }
        }
    }
}

/// How many shards nodes and zones have so far.
#[derive(Default)]
struct Held<'a> {
    on: BTreeMap<NodeRef, usize>,
    in_zone: BTreeMap<&'a str, usize>,
}

impl<'a> Held<'a> {
    fn note(&mut self, node: NodeRef, known: Option<&'a Candidate>) {
        *self.on.entry(node).or_default() += 1;
        if let Some(known) = known {
            *self.in_zone.entry(known.zone.as_str()).or_default() += 1;
        }
    }

    fn on(&self, node: NodeRef) -> usize {
        self.on.get(&node).copied().unwrap_or_default()
    }

    fn with_more_than(&self, shards: usize) -> usize {
        self.on.values().filter(|held| **held > shards).count()
    }

    fn in_zone(&self, candidate: &Candidate) -> usize {
        self.in_zone.get(candidate.zone.as_str()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vstack_types::{NodeUuid, limits::DISK_PERCENT_WARNING};

    use super::*;
    use crate::group::Liveness;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn candidates(count: u8) -> Vec<Candidate> {
        (1..=count).map(|n| Candidate::healthy(node(n))).collect()
    }

    fn choose(candidates: &[Candidate], current: &[Option<u8>], gone: &[u8]) -> Result<Vec<NodeRef>, TooFewNodes> {
        let current: Vec<_> = current.iter().map(|n| n.map(node)).collect();
        let gone: Vec<_> = gone.iter().map(|n| node(*n)).collect();
        choose_shards(
            candidates,
            ShardsRequest {
                video: VideoId::from_bytes([7; 16]),
                data: 3,
                current: &current,
                gone: &gone,
            },
        )
    }

    fn sorted(nodes: &[NodeRef]) -> Vec<NodeRef> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes
    }

    const NEW: [Option<u8>; 5] = [None; 5];

    #[test]
    fn shards_are_apart_where_there_are_nodes_and_double_up_where_not() {
        let on = |count| choose(&candidates(count), &NEW, &[]);
        let five = on(5).unwrap();
        assert_eq!(sorted(&five), (1..=5).map(node).collect::<Vec<_>>());
        assert_eq!(losses_survived(&five, 3), 2);
        assert_eq!(losses_survived(&on(7).unwrap(), 3), 2);
        let four = on(4).unwrap();
        assert_eq!(losses_survived(&four, 3), 1);
        let three = on(3).unwrap();
        assert_eq!(losses_survived(&three, 3), 1, "2+2+1: {three:?}");
        let refused = on(2).unwrap_err();
        assert_eq!((refused.takers.able, refused.needed), (2, 3));
        let said = refused.to_string();
        assert!(
            said.contains("3+2") && said.ends_with("2 nodes can take chunks now"),
            "{said}"
        );
        assert!(on(0).is_err());
    }

    #[test]
    fn a_shard_moves_only_where_it_has_to() {
        let current = [Some(1), Some(2), Some(3), Some(4), Some(5)];
        let same = |nodes: &[u8]| nodes.iter().map(|n| node(*n)).collect::<Vec<_>>();
        assert_eq!(choose(&candidates(7), &current, &[]).unwrap(), same(&[1, 2, 3, 4, 5]));
        let replaced = choose(&candidates(7), &current, &[2]).unwrap();
        assert_eq!(
            [replaced[0], replaced[2], replaced[3], replaced[4]],
            [1, 3, 4, 5].map(node)
        );
        assert!([6, 7].map(node).contains(&replaced[1]));
        let mut leaving = candidates(6);
        leaving[4].leaving = true;
        assert_eq!(choose(&leaving, &current, &[]).unwrap(), same(&[1, 2, 3, 4, 6]));
        // Nobody can stand in: two on one node would not be better than one that may come back.
        let doubled = choose(&candidates(5), &current, &[2]).unwrap();
        assert_eq!(losses_survived(&doubled, 3), 1, "{doubled:?}");
        let mut full = candidates(5);
        full.iter_mut().for_each(|candidate| candidate.disk_percent = 90.0);
        assert_eq!(choose(&full, &current, &[2]).unwrap(), same(&[1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_doubled_up_parts_as_soon_as_there_are_nodes() {
        let current = [Some(1), Some(1), Some(2), Some(2), Some(3)];
        let apart = choose(&candidates(5), &current, &[]).unwrap();
        assert_eq!(losses_survived(&apart, 3), 2, "{apart:?}");
        assert_eq!([apart[0], apart[2], apart[4]], [1, 2, 3].map(node));
    }

    #[test]
    fn what_doubled_up_parts_where_it_survives_more_though_no_node_has_more_than_some_have_to() {
        let current = [1, 1, 2, 2, 3, 3].map(Some);
        let on = |count| choose(&candidates(count), &current, &[]).unwrap();
        assert_eq!(
            on(4),
            [1, 1, 2, 2, 3, 3].map(node),
            "two, two, one and one survive no more"
        );
        let five = on(5);
        assert_eq!(losses_survived(&five, 3), 2, "{five:?}");
        assert_eq!([five[0], five[2]], [1, 2].map(node));
        // It is left so.
        let kept: Vec<_> = five.iter().copied().map(Some).collect();
        let request = ShardsRequest {
            video: VideoId::from_bytes([7; 16]),
            data: 3,
            current: &kept,
            gone: &[],
        };
        assert_eq!(choose_shards(&candidates(5), request).unwrap(), five);
    }

    #[test]
    fn where_shards_are_well_there_is_nothing_to_choose() {
        let stay = |candidates: &[Candidate], current: &[u8], gone: &[u8]| {
            let current: Vec<_> = current.iter().map(|n| Some(node(*n))).collect();
            let gone: Vec<_> = gone.iter().map(|n| node(*n)).collect();
            let request = ShardsRequest {
                video: VideoId::from_bytes([7; 16]),
                data: 3,
                current: &current,
                gone: &gone,
            };
            may_stay(candidates, request).is_some()
        };
        assert!(stay(&candidates(9), &[1, 2, 3, 4, 5], &[]));
        assert!(!stay(&candidates(9), &[1, 2, 3, 4, 5], &[5]));
        assert!(
            !stay(&candidates(4), &[1, 2, 3, 4, 5], &[]),
            "one is not known any more"
        );
        let mut some = candidates(5);
        some[2].liveness = Liveness::Down;
        assert!(stay(&some, &[1, 2, 3, 4, 5], &[]), "it is waited for");
        some[2].leaving = true;
        assert!(!stay(&some, &[1, 2, 3, 4, 5], &[]));
        // As many as they have to.
        assert!(stay(&candidates(3), &[1, 2, 3, 1, 2], &[]));
        assert!(stay(&candidates(4), &[1, 2, 3, 1, 2], &[]), "no more would be survived");
        assert!(!stay(&candidates(5), &[1, 2, 3, 1, 2, 3], &[]), "two could be lost");
        assert!(!stay(&candidates(3), &[1, 1, 1, 2, 3], &[]), "too many at one");
    }

    #[test]
    fn zones_have_as_even_a_share_as_can_be() {
        let mut nodes = candidates(6);
        for (candidate, zone) in nodes.iter_mut().zip(["a", "a", "a", "a", "b", "c"]) {
            candidate.zone = zone.to_owned();
        }
        let chosen = choose(&nodes, &NEW, &[]).unwrap();
        assert!(chosen.contains(&node(5)) && chosen.contains(&node(6)), "{chosen:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_given_to_who_may_not_have_it(
            states in proptest::collection::vec((0..4_u8, 0.0..100.0_f64), 1..9),
            current in proptest::collection::vec(proptest::option::of(1..9_u8), 5),
        ) {
            let nodes: Vec<Candidate> = (1_u8..).zip(&states).map(|(n, (state, disk_percent))| Candidate {
                liveness: if *state == 1 { Liveness::Down } else { Liveness::Healthy },
                leaving: *state == 2,
                trusted: *state != 3,
                disk_percent: *disk_percent,
                ..Candidate::healthy(node(n))
            }).collect();
            let Ok(chosen) = choose(&nodes, &current, &[]) else { return Ok(()) };
            prop_assert_eq!(chosen.len(), 5);
            let stays = current.iter().map(|place| place.map(node)).collect::<Option<Vec<_>>>() == Some(chosen.clone());
            prop_assert!(stays || losses_survived(&chosen, 3) > 0, "{:?}", chosen);
            for (index, place) in chosen.iter().enumerate() {
                if current[index].map(node) == Some(*place) {
                    continue;
                }
                let known = nodes.iter().find(|known| known.node == *place).expect("one there is");
                prop_assert!(known.trusted && !known.leaving && known.liveness == Liveness::Healthy);
                prop_assert!(known.disk_percent < DISK_PERCENT_WARNING);
            }
        }

        /// Whatever there is, and on one node or another: two lives of a disk among them.
        #[test]
        fn what_may_stay_is_what_would_be_chosen(
            states in proptest::collection::vec((0..6_u8, 0..2_u8), 1..8),
            current in proptest::collection::vec((1..8_u8, 0..8_u32), 1..7),
            gone in 1..12_u8,
            data in 1..5_usize,
        ) {
            let life = |n: u8, second: bool| NodeRef {
                incarnation: vstack_types::Incarnation(u32::from(second)),
                ..node(n)
            };
            let of = |(n, (state, second)): (u8, &(u8, u8))| {
                let candidate = Candidate {
                    liveness: if *state == 1 { Liveness::Down } else { Liveness::Healthy },
                    leaving: *state == 2,
                    trusted: *state != 3,
                    disk_percent: if *state == 4 { 90.0 } else { 0.0 },
                    ..Candidate::healthy(node(n))
                };
                let later = Candidate {
                    node: life(n, true),
                    ..candidate.clone()
                };
                if *second == 1 { vec![candidate, later] } else { vec![candidate] }
            };
            let candidates: Vec<Candidate> = (1_u8..).zip(&states).flat_map(of).collect();
            // Of most disks the first life is meant.
            let current: Vec<_> = current.iter().map(|(n, second)| Some(life(*n, *second == 0))).collect();
            let request = ShardsRequest {
                video: VideoId::from_bytes([7; 16]),
                data: data.min(current.len()),
                current: &current,
                gone: &[node(gone)],
            };
            if let Some(stays) = may_stay(&candidates, request) {
                prop_assert_eq!(chosen_anew(&candidates, request), Ok(stays));
            }
        }

        #[test]
        fn what_is_survived_is_what_is_left_after_the_worst(held in proptest::collection::vec(1..6_u8, 1..12), data in 1..12_usize) {
            let nodes: Vec<NodeRef> = held.iter().map(|n| node(*n)).collect();
            let survived = losses_survived(&nodes, data);
            // Every set of so many nodes may go, and not every set of one more.
            let left_without = |lost: u32| held.iter().filter(|n| lost & (1 << **n) == 0).count();
            let sets = |count: usize| (0..64_u32).filter(move |set| set & 1 == 0 && set.count_ones() as usize == count);
            let distinct = { let mut held = held.clone(); held.sort_unstable(); held.dedup(); held.len() };
            if survived > 0 {
                prop_assert!(sets(survived).all(|set| left_without(set) >= data));
            }
            if survived < distinct {
                prop_assert!(sets(survived + 1).any(|set| left_without(set) < data));
            }
        }
    }
}

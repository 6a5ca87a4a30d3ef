//! What is to be done next about a chunk.
//!
//! Everything that changes where bytes or votes are is a move, decided like every other placement; only putting bytes
//! back where they belong, and telling what was decided, need no decision. One thing at a time for each chunk: what
//! follows is seen when the result was learned.

use vstack_placement::{Candidate, Liveness, MembersRequest, choose_members};
use vstack_types::{NodeRef, VideoId};

use crate::{
    census::{Census, Item, Row, Seat},
    standing::{Copy, Form, Reach, Seen, Standing, standing},
};

/// What is to be done about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Its register lost the majority of its acceptors for good: what is left of it is copied to a new chunk.
    Salvage,
    /// Somebody's register says something else: read it with a majority, and tell everybody what is decided.
    Read,
    /// A node gets an item again that it lost, or that is damaged there.
    Restore {
        /// Who.
        node: NodeRef,
        /// Which item of the row.
        tag: u32,
    },
    /// A move is under way: end it.
    Settle,
    /// Its nodes are to be others.
    Move {
        /// Those.
        to: Vec<NodeRef>,
    },
}

/// A job, and how much it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// How the chunk stands: the worst first.
    pub standing: Standing,
    /// What is to be done.
    pub job: Job,
}

/// What is known of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// The nodes there are.
    pub nodes: &'a [Candidate],
    /// Those that are not waited for any more, registered or not.
    pub gone: &'a [NodeRef],
    /// Those of them that do not come back.
    pub lost: &'a [NodeRef],
    /// Copies wanted of what is stored as copies.
    pub copies: usize,
}

impl Cluster<'_> {
    /// What is expected of a node.
    pub fn reach(&self, node: NodeRef) -> Reach {
        let candidate = self.nodes.iter().find(|candidate| candidate.node == node);
        let up = |candidate: &Candidate| candidate.liveness != Liveness::Down && candidate.trusted;
        if self.lost.contains(&node) {
            Reach::Lost
        } else if self.gone.contains(&node) {
            Reach::Gone
        } else if candidate.is_some_and(up) {
            Reach::Up
        } else {
            Reach::Silent
        }
    }

    /// Losses of nodes that a chunk in this form is to survive.
    pub fn wanted(&self, row: &Row) -> u32 {
        let wanted = match row.form {
            Form::Replicated => self.copies.saturating_sub(1),
            Form::Coded { data } => row.of_layout().count().saturating_sub(usize::from(data)),
        };
        u32::try_from(wanted).unwrap_or(u32::MAX)
    }
}

/// How a chunk stands.
pub fn standing_of(census: &Census, cluster: &Cluster<'_>, row: &Row) -> Standing {
    let copy = |item: &Item| Copy {
        node: item.node.into(),
        reach: reach_of(census, cluster, item),
        seen: item.seen,
    };
    // While a move is under way both halves are kept, and readers use both.
    let copies: Vec<Copy> = row.items.iter().map(copy).collect();
    let by_bytes = standing(row.form, &copies, cluster.wanted(row));
    // A chunk whose registers nobody knows to agree may have lost what decides about it.
    let agrees = |item: &Item| item.seat == Seat::Agrees || reach_of(census, cluster, item) != Reach::Up;
    if by_bytes == Standing::Whole && !row.items.iter().all(agrees) {
        return Standing::Uncounted;
    }
    by_bytes
}

fn reach_of(census: &Census, cluster: &Cluster<'_>, item: &Item) -> Reach {
    census.node(item.node).map_or(Reach::Lost, |node| cluster.reach(node))
}

/// What is to be done about a chunk, if anything is.
pub fn due(census: &Census, cluster: &Cluster<'_>, video: VideoId, row: &Row) -> Option<Due> {
    let standing = standing_of(census, cluster, row);
    let job = job(census, cluster, video, row, standing)?;
    Some(Due { standing, job })
}

fn job(census: &Census, cluster: &Cluster<'_>, video: VideoId, row: &Row, standing: Standing) -> Option<Job> {
    if matches!(standing, Standing::Lost | Standing::OutOfReach) {
        // Nothing can be made of nothing.
        return None;
    }
    let reach = |item: &Item| reach_of(census, cluster, item);
    if !has_majority(row, |item| reach(item) == Reach::Up) {
        // Who is silent is waited for: the next answer may make a majority again.
        return (!has_majority(row, |item| reach(item) != Reach::Lost)).then_some(Job::Salvage);
    }
    let up = |item: &&Item| reach(item) == Reach::Up;
    let differs = |item: &Item| matches!(item.seat, Seat::Differs | Seat::Empty);
    if row.items.iter().filter(up).any(differs) {
        return Some(Job::Read);
    }
    // Whoever abstains without having lost bytes has lost his votes: others take his place.
    let lacks = |item: &&Item| matches!(item.seen, Seen::Damaged | Seen::Absent);
    if let Some(item) = row.of_layout().filter(up).find(lacks) {
        let node = census.node(item.node)?;
        return Some(Job::Restore { node, tag: item.tag });
    }
    if row.joint {
        return Some(Job::Settle);
    }
    // Shards are placed anew by whoever makes them.
    let replicated = row.form == Form::Replicated;
    let current: Vec<NodeRef> = row.items.iter().filter_map(|item| census.node(item.node)).collect();
    let abstains = row.items.iter().filter(|item| item.seat == Seat::Abstains);
    let mut gone: Vec<NodeRef> = abstains.filter_map(|item| census.node(item.node)).collect();
    gone.extend_from_slice(cluster.gone);
    gone.extend_from_slice(cluster.lost);
    let request = MembersRequest {
        video,
        copies: cluster.copies,
        current: &current,
        gone: &gone,
    };
    let to = replicated.then(|| choose_members(cluster.nodes, request))?;
    (to != current).then_some(Job::Move { to })
}

/// Whether acceptors of which `counts` is true are a majority of each half.
fn has_majority(row: &Row, counts: impl Fn(&Item) -> bool) -> bool {
    let of = |half: &dyn Fn(&Item) -> bool| {
        let mut nodes: Vec<&Item> = row.items.iter().filter(|item| half(item)).collect();
        nodes.sort_unstable_by_key(|item| item.node);
        nodes.dedup_by_key(|item| item.node);
        let there = nodes.iter().filter(|item| counts(item)).count();
        nodes.is_empty() || there > nodes.len() / 2
    };
    of(&|item| item.side.in_layout()) && of(&|item| item.side.in_prev())
}

#[cfg(test)]
mod tests {
    use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
    use vstack_chunkpaxos::{Brief, Layout, Placement};
    use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid};

    use super::*;
    use crate::census::Part;

    const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn nodes(of: &[u8]) -> Vec<NodeRef> {
        of.iter().map(|n| node(*n)).collect()
    }

    fn candidate(n: u8) -> Candidate {
        Candidate {
            node: node(n),
            zone: String::new(),
            disk_percent: 10.0,
            liveness: Liveness::Healthy,
            trusted: true,
            leaving: false,
        }
    }

    fn placed(on: &[u8], from: Option<&[u8]>) -> Placement {
        let layout = |on: &[u8]| Layout::Replicated { nodes: nodes(on) };
        Placement {
            version: 1,
            size: 100,
            sha256: Digest::of(b"bytes"),
            layout: layout(on),
            prev: from.map(layout),
            back: false,
        }
    }

    const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);

    /// Everybody in `counted` has what is expected, but for what `changed` does to it.
    fn census(placement: &Placement, counted: &[u8], changed: impl Fn(u8, &mut Holdings)) -> Census {
        let mut census = Census::default();
        let id = ChunkId::of_video(VIDEO, 0);
        census.learn(VIDEO, Part::Chunk(0), &id, placement, 0);
        let fingerprint = KEY.of(&id);
        for n in counted {
            let mut holdings = Holdings {
                items: vec![HeldItem {
                    fingerprint,
                    tag: tag_of(placement.sha256),
                    damaged: false,
                    wanted: Wanted::Placed,
                }],
                registers: vec![HeldRegister {
                    fingerprint,
                    brief: placement.brief(),
                }],
            };
            changed(*n, &mut holdings);
            census.count(node(*n), &holdings, KEY, 0);
        }
        census
    }

    fn next(census: &Census, candidates: &[Candidate], gone: &[u8]) -> Option<(Standing, Job)> {
        let gone = nodes(gone);
        let cluster = Cluster {
            nodes: candidates,
            gone: &gone,
            lost: &gone,
            copies: 3,
        };
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        due(census, &cluster, VIDEO, row).map(|due| (due.standing, due.job))
    }

    fn whole(_: u8, _: &mut Holdings) {}

    fn five() -> Vec<Candidate> {
        (1..=5).map(candidate).collect()
    }

    #[test]
    fn nothing_is_done_to_what_is_whole_or_may_be() {
        let placement = placed(&[1, 2, 3], None);
        assert_eq!(next(&census(&placement, &[1, 2, 3], whole), &five(), &[]), None);
        assert_eq!(next(&census(&placement, &[1, 2], whole), &five(), &[]), None);
        let mut silent = five();
        silent[2].liveness = Liveness::Down;
        assert_eq!(
            next(&census(&placement, &[1, 2, 3], whole), &silent, &[]),
            None,
            "it is waited for"
        );
    }

    #[test]
    fn a_damaged_copy_is_restored_where_it_is_and_a_lost_node_replaced() {
        let placement = placed(&[1, 2, 3], None);
        let under = Standing::Under { survives: 1 };
        let damaged = census(&placement, &[1, 2, 3], |n, held| {
            if n == 2 {
                held.items[0].damaged = true;
            }
        });
        let tag = tag_of(placement.sha256);
        assert_eq!(
            next(&damaged, &five(), &[]),
            Some((under, Job::Restore { node: node(2), tag }))
        );
        let (standing, job) = next(&census(&placement, &[1, 2, 3], whole), &five()[..4], &[3]).unwrap();
        assert_eq!((standing, job), (under, Job::Move { to: nodes(&[1, 2, 4]) }));
    }

    #[test]
    fn registers_that_differ_are_read_before_anything_is_moved() {
        let placement = placed(&[1, 2, 3], None);
        for forget in [true, false] {
            let census = census(&placement, &[1, 2, 3], |n, held| match n {
                1 if forget => held.registers.clear(),
                1 => held.registers[0].brief = Brief::from_code(77),
                _ => {}
            });
            assert_eq!(next(&census, &five(), &[3]).unwrap().1, Job::Read);
            let (standing, _) = next(&census, &five(), &[]).unwrap();
            assert_eq!(
                standing,
                Standing::Uncounted,
                "all bytes are there, and it is not called whole"
            );
        }
    }

    #[test]
    fn a_move_is_ended_when_its_bytes_are_there() {
        let placement = placed(&[1, 2, 4], Some(&[1, 2, 3]));
        let all = census(&placement, &[1, 2, 3, 4], whole);
        assert_eq!(next(&all, &five(), &[]), Some((Standing::Whole, Job::Settle)));
        let tag = tag_of(placement.sha256);
        let without = census(&placement, &[1, 2, 3, 4], |n, held| {
            if n == 4 {
                held.items.clear();
            }
        });
        let (_, job) = next(&without, &five(), &[]).unwrap();
        assert_eq!(job, Job::Restore { node: node(4), tag });
    }

    #[test]
    fn who_lost_the_majority_for_good_is_salvaged_and_who_may_get_it_back_is_not() {
        let placement = placed(&[1, 2, 3], None);
        let counted = census(&placement, &[1, 2, 3], whole);
        let mut silent = five();
        silent[1].liveness = Liveness::Down;
        silent[2].liveness = Liveness::Down;
        assert_eq!(next(&counted, &silent, &[]), None);
        assert_eq!(next(&counted, &silent, &[2]), None, "one that is silent may come back");
        assert_eq!(
            next(&counted, &silent, &[2, 3]),
            Some((Standing::Endangered, Job::Salvage))
        );
        assert_eq!(next(&counted, &silent, &[1, 2, 3]), None, "nothing is left");
    }
}

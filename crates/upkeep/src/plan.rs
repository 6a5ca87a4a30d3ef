//! What is to be done next about a chunk.
//!
//! Everything that changes where bytes or votes are is a move, decided like every other placement; only putting bytes
//! back where they belong, and telling what was decided, need no decision. One thing at a time for each chunk: what
//! follows is seen when the result was learned.

use std::num::NonZeroU8;

use vstack_placement::{
    Candidate, Liveness, MembersRequest, ShardsRequest, choose_members, choose_shards, losses_survivable,
    losses_survived,
};
use vstack_types::{NodeRef, VideoId, planted};

use crate::{
    census::{Census, Item, Row, Seat},
    standing::{Copy, Form, Reach, Seen, Standing, standing, survives},
};

/// What is to be done about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Its register lost the majority of its acceptors for good: what is left of it is copied to a new chunk.
    Salvage,
    /// Somebody's register says something else: read it with a majority, and tell everybody what is decided.
    Read {
        /// Those.
        differing: Vec<NodeRef>,
    },
    /// A node gets an item again that it lost, or that is damaged there.
    Restore {
        /// Who.
        node: NodeRef,
        /// Which item of the row.
        tag: u32,
    },
    /// A move is under way, and its new nodes have their part: end it there.
    Settle,
    /// A move is under way, and some of its new nodes do not come: give it up.
    TurnBack,
    /// Its nodes are to be others.
    Move {
        /// Those. Of shards, that of each by its index.
        to: Vec<NodeRef>,
    },
    /// Some of its shards are none of this chunk: those are made anew, and so are those whose nodes are to be others.
    Correct {
        /// The node of each shard, by its index.
        to: Vec<NodeRef>,
    },
    /// Its copies are to become shards.
    Encode {
        /// Shards that are needed to read it. The others are parity.
        data: NonZeroU8,
        /// The node of each, by its index.
        to: Vec<NodeRef>,
    },
    /// Its shards are to become copies.
    Decode {
        /// The nodes of those.
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

/// Why nothing is being done about a chunk that is not as it should be, where somebody has to do something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stuck {
    /// Nothing can be decided about it, or it cannot be read: these would have to come back, or be said to be lost.
    Awaits(Vec<NodeRef>),
    /// No other node can take a copy.
    NowhereToGo,
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
    fn reach(&self, node: NodeRef) -> Reach {
        let candidate = self.nodes.iter().find(|candidate| candidate.node == node);
        let up = |candidate: &Candidate| candidate.liveness != Liveness::Down && candidate.trusted;
        if self.lost.contains(&node) && !planted!("who is lost for good is waited for") {
            Reach::Lost
        } else if self.gone.contains(&node) {
            Reach::Gone
        } else if candidate.is_some_and(up) {
            Reach::Up
        } else if planted!("who is silent counts as lost for good") {
            Reach::Lost
        } else {
            Reach::Silent
        }
    }
}

/// A census in its cluster. Each node is looked up once, not for each of a million chunks.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// What was counted.
    pub census: &'a Census,
    /// Among these.
    pub cluster: Cluster<'a>,
    reach: Vec<Reach>,
    leaving: Vec<bool>,
    /// Nodes that are to keep what they have, whether or not they are up.
    members: usize,
}

impl<'a> Outlook<'a> {
    /// What `census` counted, in `cluster`.
    pub fn new(census: &'a Census, cluster: Cluster<'a>) -> Self {
        let nodes: Vec<NodeRef> = (0..).map_while(|number| census.node(number)).collect();
        let leaves = |node: &NodeRef| {
            let mut candidates = cluster.nodes.iter();
            candidates.any(|candidate| candidate.node == *node && candidate.leaving)
        };
        Self {
            census,
            cluster,
            reach: nodes.iter().map(|node| cluster.reach(*node)).collect(),
            leaving: nodes.iter().map(leaves).collect(),
            members: {
                let nodes = cluster.nodes.iter();
                let stays = |node: &&Candidate| !node.leaving && node.trusted && !cluster.lost.contains(&node.node);
                nodes.filter(stays).count()
            },
        }
    }

    fn reach(&self, item: &Item) -> Reach {
        self.reach.get(usize::from(item.node)).copied().unwrap_or(Reach::Lost)
    }

    pub(crate) fn is_up(&self, item: &Item) -> bool {
        self.reach(item) == Reach::Up
    }

    fn leaves(&self, item: &Item) -> bool {
        self.leaving.get(usize::from(item.node)).copied().unwrap_or_default()
    }

    /// Losses of nodes that a chunk of so many items in this form is to survive: shards double up where there are fewer
    /// nodes, and no chunk survives more than those that there are allow.
    fn wanted(&self, form: Form, items: usize) -> u32 {
        let wanted = match form {
            Form::Replicated => self.cluster.copies.saturating_sub(1),
            Form::Coded { .. } => losses_survivable(self.members, form.needed(), items),
        };
        u32::try_from(wanted).unwrap_or(u32::MAX)
    }

    /// How a chunk stands.
    pub fn standing(&self, row: &Row) -> Standing {
        let by_bytes = self.by_bytes(row);
        if by_bytes != Standing::Whole {
            return by_bytes;
        }
        // A chunk whose registers nobody knows to agree may have lost what decides about it.
        let up = || row.items.iter().filter(|item| self.is_up(item));
        if up().any(|item| item.seat == Seat::Abstains) {
            let survives = self.wanted(row.form, row.of_layout().count()).saturating_sub(1);
            return Standing::Under { survives };
        }
        let is_assumed =
            |item: &Item| item.seat == Seat::NotCounted && planted!("registers that were not asked count as agreeing");
        if up().any(|item| item.seat != Seat::Agrees && !is_assumed(item)) {
            return Standing::Uncounted;
        }
        Standing::Whole
    }

    /// While a move is under way both halves are kept, and readers use both: copies of either count together. Shards count
    /// with those of their half alone, since both may have the same.
    fn by_bytes(&self, row: &Row) -> Standing {
        let is_copied = row.form == Form::Replicated && row.prev_form == Form::Replicated;
        if is_copied {
            return self.standing_by(row.form, row.items.iter());
        }
        let there = self.standing_by(row.form, row.of_layout());
        if row.joint {
            there.max(self.standing_by(row.prev_form, row.of_prev()))
        } else {
            there
        }
    }

    fn standing_by<'i>(&self, form: Form, items: impl Iterator<Item = &'i Item>) -> Standing {
        let copies = self.copies(items);
        standing(form, &copies, self.wanted(form, copies.len()))
    }

    fn copies<'i>(&self, items: impl Iterator<Item = &'i Item>) -> Vec<Copy> {
        let copy = |item: &Item| Copy {
            node: item.node.into(),
            reach: self.reach(item),
            seen: item.seen,
        };
        items.map(copy).collect()
    }

    /// After the loss of how many nodes, whichever they are, a chunk could still be read, by what is known to be there now;
    /// none when it cannot be read now.
    pub fn survives(&self, row: &Row) -> Option<u32> {
        let there = survives(row.form, &self.copies(row.of_layout()));
        if row.joint {
            there.max(survives(row.prev_form, &self.copies(row.of_prev())))
        } else {
            there
        }
    }

    /// Why nothing is to be done about a chunk that stands like this, where nothing is and only somebody can change that.
    pub fn stuck(&self, row: &Row, standing: Standing) -> Option<Stuck> {
        let leaves = || row.items.iter().any(|item| self.leaves(item));
        match standing {
            // Counting, or looking for a copy, is under way, or of no use.
            Standing::Lost | Standing::Uncounted => return None,
            Standing::Whole if !leaves() => return None,
            _ => {}
        }
        let reach = |reach: Reach| move |item: &&Item| self.reach(item) == reach;
        if row.items.iter().any(|item| self.reach(item) == Reach::Silent) {
            // It is waited for, for its grace.
            return None;
        }
        let is_mute = |item: &Item| item.seat == Seat::Abstains && item.seen == Seen::Whole;
        let decides = has_majority(row, |item| self.is_up(item) && !is_mute(item));
        if !decides || standing == Standing::OutOfReach {
            let gone = row.items.iter().filter(reach(Reach::Gone));
            let mut awaited: Vec<NodeRef> = gone.filter_map(|item| self.census.node(item.node)).collect();
            awaited.sort_unstable();
            awaited.dedup();
            return (!awaited.is_empty()).then_some(Stuck::Awaits(awaited));
        }
        (!row.joint).then_some(Stuck::NowhereToGo)
    }

    /// What is to be done about a chunk, if anything is. Where it was tried often enough at nodes in `avoided`, others
    /// take their place if there are any.
    pub fn due(&self, video: VideoId, row: &Row, avoided: &[NodeRef]) -> Option<Due> {
        let (standing, job) = self.judge(video, row, avoided);
        Some(Due { standing, job: job? })
    }

    /// How a chunk stands, and what is to be done about it.
    pub fn judge(&self, video: VideoId, row: &Row, avoided: &[NodeRef]) -> (Standing, Option<Job>) {
        let standing = self.standing(row);
        (standing, self.job(video, row, standing, avoided))
    }

    fn job(&self, video: VideoId, row: &Row, standing: Standing, avoided: &[NodeRef]) -> Option<Job> {
        if matches!(standing, Standing::Lost | Standing::OutOfReach) {
            // Nothing can be made of nothing.
            return None;
        }
        let is_lost = |item: &Item| self.reach(item) == Reach::Lost;
        if planted!("a chunk with a lost node is salvaged, majority or not") && row.items.iter().any(is_lost) {
            return Some(Job::Salvage);
        }
        // Whoever abstains without having lost bytes has lost his votes.
        let is_mute = |item: &Item| item.seat == Seat::Abstains && item.seen == Seen::Whole;
        if !has_majority(row, |item| self.is_up(item) && !is_mute(item)) {
            // Who is silent is waited for: the next answer may make a majority again.
            let for_good = !has_majority(row, |item| !is_lost(item) && !is_mute(item));
            return for_good.then_some(Job::Salvage);
        }
        let node_of = |item: &Item| self.census.node(item.node);
        let up = |item: &&Item| self.is_up(item);
        let differs = |item: &&Item| matches!(item.seat, Seat::Differs | Seat::Empty);
        let differing: Vec<NodeRef> = row
            .items
            .iter()
            .filter(up)
            .filter(differs)
            .filter_map(node_of)
            .collect();
        let lacks = |item: &&Item| match item.seen {
            Seen::Damaged => !planted!("a damaged copy is not restored"),
            Seen::Absent => true,
            // Nothing could be brought that would be the right bytes.
            Seen::NotCounted | Seen::Whole | Seen::Wrong => false,
        };
        // Who lost bytes of what it leaves abstains from ending the move, too.
        let leaving_behind = || row.of_prev().filter(up).find(lacks);
        let lacking = row.of_layout().filter(up).find(lacks).or_else(leaving_behind);
        let restored = lacking.and_then(|item| {
            let node = node_of(item)?;
            Some(Job::Restore { node, tag: item.tag })
        });
        // Who lost bytes abstains until it has them again: without its vote there may be no majority for anything else.
        let decides = has_majority(row, |item| self.is_up(item) && item.seat != Seat::Abstains);
        if !decides && restored.is_some() {
            return restored;
        }
        let is_avoided = |item: &Item| node_of(item).is_some_and(|node| avoided.contains(&node));
        if !differing.is_empty() {
            // Who lost bytes of what it agrees on needs no decision to have them again, and there may be none for long.
            let agrees = |item: &&Item| lacks(item) && !differs(item) && !self.leaves(item) && !is_avoided(item);
            let agreed = row.of_layout().filter(up).find(agrees);
            let restored = agreed.and_then(|item| {
                let node = node_of(item)?;
                Some(Job::Restore { node, tag: item.tag })
            });
            return Some(restored.unwrap_or(Job::Read { differing }));
        }
        if row.joint {
            return self.end_of_move(row, restored, is_avoided);
        }
        // A copy is not restored at a node that leaves, or where that does not work, if there is another.
        let given_up = |item: &Item| self.leaves(item) || is_avoided(item);
        if lacking.is_some_and(|item| !given_up(item)) {
            return restored;
        }
        if planted!("a node that leaves keeps its chunks") && row.items.iter().any(|item| self.leaves(item)) {
            return restored;
        }
        let current: Vec<NodeRef> = row.items.iter().filter_map(node_of).collect();
        let mute = row.items.iter().filter(|item| is_mute(item));
        let mut gone: Vec<NodeRef> = mute.filter_map(node_of).collect();
        gone.extend_from_slice(self.cluster.gone);
        gone.extend_from_slice(self.cluster.lost);
        gone.extend_from_slice(avoided);
        let to = match row.form {
            Form::Replicated => {
                let request = MembersRequest {
                    video,
                    copies: self.cluster.copies,
                    current: &current,
                    gone: &gone,
                };
                choose_members(self.cluster.nodes, request)
            }
            Form::Coded { data } => {
                let shards: Vec<Option<NodeRef>> = current.iter().copied().map(Some).collect();
                let request = ShardsRequest {
                    video,
                    data: data.get().into(),
                    current: &shards,
                    gone: &gone,
                };
                choose_shards(self.cluster.nodes, request).unwrap_or_else(|_too_few| current.clone())
            }
        };
        if row.of_layout().any(|item| item.seen == Seen::Wrong) {
            // Not moved as they are: nobody would know any more that they are wrong.
            return Some(Job::Correct { to });
        }
        if to == current {
            restored
        } else {
            Some(Job::Move { to })
        }
    }

    /// Whether a chunk in shards could not be read without some one of its new nodes, were all of them there.
    fn is_unsafe(&self, row: &Row) -> bool {
        let nodes = || row.of_layout().filter_map(|item| self.census.node(item.node));
        row.form != Form::Replicated && losses_survived(&nodes().collect::<Vec<_>>(), row.form.needed()) == 0
    }

    /// Whether those who are up have so much of the new layout that the protocol lets the old one go: of shards enough to
    /// read the chunk without those of any one of them.
    fn is_enough(&self, row: &Row) -> bool {
        let has = |item: &&Item| self.is_up(item) && item.seen == Seen::Whole && item.seat != Seat::Abstains;
        let holders = row
            .of_layout()
            .filter(has)
            .filter_map(|item| self.census.node(item.node));
        row.form == Form::Replicated || losses_survived(&holders.collect::<Vec<_>>(), row.form.needed()) > 0
    }

    /// A move is ended at its new nodes once the chunk stands there no worse than where it came from: what is left behind
    /// is collected.
    fn end_of_move(&self, row: &Row, restored: Option<Job>, is_avoided: impl Fn(&Item) -> bool) -> Option<Job> {
        let reached = || row.of_layout().filter(|item| self.is_up(item));
        // What is coded from its first version on comes from nowhere and has nothing to go back to: who uploads it ends it.
        let comes_from_nowhere = row.of_prev().next().is_none();
        // Nobody may end it where one node has so many shards that the others do not give the chunk.
        if !row.back && !comes_from_nowhere && self.is_unsafe(row) {
            return Some(Job::TurnBack);
        }
        let whole_there = row.of_layout().all(|item| self.is_up(item) && item.seen == Seen::Whole);
        let there = self.standing_by(row.form, row.of_layout());
        let here = self.standing_by(row.prev_form, row.of_prev());
        let as_good = whole_there || (there >= here && reached().all(|item| item.seen == Seen::Whole));
        if as_good && (row.back || self.is_enough(row)) {
            return Some(Job::Settle);
        }
        let lost = row
            .of_layout()
            .any(|item| matches!(self.reach(item), Reach::Gone | Reach::Lost))
            && !planted!("a move to a lost node is not given up");
        // What is listed wrongly is put right where the chunk is settled, not on its way.
        let is_wrong = row.of_layout().any(|item| item.seen == Seen::Wrong);
        let hopeless = lost || is_wrong || reached().any(|item| item.seen != Seen::Whole && is_avoided(item));
        if hopeless && !comes_from_nowhere {
            // What is on its way back cannot turn once more.
            return Some(if row.back { Job::Settle } else { Job::TurnBack });
        }
        // Who is silent, or was not counted since, is waited for.
        restored
    }
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
        Candidate::healthy(node(n))
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
        next_but(census, candidates, gone, &[])
    }

    fn next_but(census: &Census, candidates: &[Candidate], gone: &[u8], avoided: &[u8]) -> Option<(Standing, Job)> {
        let gone = nodes(gone);
        let cluster = Cluster {
            nodes: candidates,
            gone: &gone,
            lost: &gone,
            copies: 3,
        };
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        let due = Outlook::new(census, cluster).due(VIDEO, row, &nodes(avoided));
        due.map(|due| (due.standing, due.job))
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
            let differing = nodes(&[1]);
            assert_eq!(next(&census, &five(), &[3]).unwrap().1, Job::Read { differing });
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
    fn what_is_coded_from_the_start_is_settled_and_never_taken_back() {
        let shard = |n: u8| vstack_chunkpaxos::Shard {
            index: n - 1,
            node: node(n),
            sha256: Digest::of(&[n]),
        };
        let placement = Placement {
            layout: Layout::Coded {
                data: 3,
                parity: 2,
                shards: (1..=5).map(shard).collect(),
            },
            prev: Some(Layout::nothing()),
            ..placed(&[1], None)
        };
        let all = census(&placement, &[1, 2, 3, 4, 5], |n, held| {
            held.items[0].tag = tag_of(Digest::of(&[n]));
        });
        assert_eq!(next(&all, &five(), &[]).unwrap().1, Job::Settle);
        for gone in [&[4, 5][..], &[3, 4, 5]] {
            let job = next(&all, &five(), gone).map(|(_, job)| job);
            assert!(!matches!(job, Some(Job::TurnBack | Job::Settle)), "{job:?}");
        }
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

    #[test]
    fn another_node_takes_over_where_a_copy_cannot_be_restored() {
        let placement = placed(&[1, 2, 3], None);
        let tag = tag_of(placement.sha256);
        let damaged = census(&placement, &[1, 2, 3], |n, held| {
            if n == 2 {
                held.items[0].damaged = true;
            }
        });
        let restore = Job::Restore { node: node(2), tag };
        let (_, job) = next_but(&damaged, &five()[..4], &[], &[2]).unwrap();
        assert_eq!(job, Job::Move { to: nodes(&[1, 3, 4]) });
        let (_, job) = next_but(&damaged, &five()[..3], &[], &[2]).unwrap();
        assert_eq!(job, restore, "nobody else is there: it is tried on");
        let mut leaves = five()[..4].to_vec();
        leaves[1].leaving = true;
        let (_, job) = next(&damaged, &leaves, &[]).unwrap();
        assert_eq!(job, Job::Move { to: nodes(&[1, 3, 4]) }, "not where it leaves anyway");
    }

    #[test]
    fn a_move_is_not_ended_before_its_bytes_are_known_to_be_there() {
        let placement = placed(&[1, 2, 4], Some(&[1, 2, 3]));
        let uncounted = census(&placement, &[1, 2, 3], whole);
        assert_eq!(next(&uncounted, &five(), &[]), None);
        let mut silent = five();
        silent[3].liveness = Liveness::Down;
        let counted = census(&placement, &[1, 2, 3, 4], whole);
        assert_eq!(next(&counted, &silent, &[]), None, "it may come back");
        assert_eq!(next(&counted, &silent, &[4]).unwrap().1, Job::TurnBack, "it does not");
        let both = census(&placement, &[1, 2, 3, 4], whole);
        assert_eq!(
            next(&both, &five(), &[3]).unwrap().1,
            Job::Settle,
            "where it came from it stands no better"
        );
        let lacks = census(&placement, &[1, 2, 3, 4], |n, held| {
            if n == 4 {
                held.items.clear();
            }
        });
        assert_eq!(next_but(&lacks, &five(), &[], &[4]).unwrap().1, Job::TurnBack);
    }

    #[test]
    fn who_lost_votes_is_replaced_and_never_called_whole() {
        let placement = placed(&[1, 2, 3], None);
        let mute = |who: &'static [u8]| {
            census(&placement, &[1, 2, 3], move |n, held| {
                if who.contains(&n) {
                    held.registers[0].brief = Brief::ABSTAINS;
                }
            })
        };
        let under = Standing::Under { survives: 1 };
        let to = nodes(&[2, 3, 4]);
        assert_eq!(next(&mute(&[1]), &five()[..4], &[]), Some((under, Job::Move { to })));
        let alone = mute(&[1]);
        let three = five()[..3].to_vec();
        assert_eq!(next(&alone, &three, &[]), None, "nobody can take its place");
        let cluster = Cluster {
            nodes: &three,
            gone: &[],
            lost: &[],
            copies: 3,
        };
        let row = alone.row(VIDEO, Part::Chunk(0)).unwrap();
        assert_eq!(Outlook::new(&alone, cluster).standing(row), under);
        assert_eq!(next(&mute(&[1, 2]), &three, &[]), Some((under, Job::Salvage)));
    }

    /// One copy is damaged, and another of the three has a disk that lost votes, and this register with them: neither votes,
    /// so nothing can be read before the damaged one has its bytes again.
    #[test]
    fn who_lost_bytes_gets_them_before_a_majority_without_it_is_asked() {
        let mut census = census(&placed(&[1, 2, 3], None), &[1, 2, 3], |n, holdings| match n {
            1 => {
                holdings.items[0].damaged = true;
                holdings.registers[0].brief = Brief::ABSTAINS;
            }
            2 => holdings.registers.clear(),
            _ => {}
        });
        let there: Vec<Candidate> = (1..=4).map(candidate).collect();
        let cluster = Cluster {
            nodes: &there,
            gone: &[],
            lost: &[],
            copies: 3,
        };
        let job = |census: &Census, avoided: &[u8]| {
            let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
            Outlook::new(census, cluster).judge(VIDEO, row, &nodes(avoided)).1
        };
        let is_restored = |job| matches!(job, Some(Job::Restore { node: to, .. }) if to == node(1));
        assert!(is_restored(job(&census, &[])), "that needs no decision");
        assert_eq!(
            job(&census, &[1]),
            Some(Job::Read { differing: nodes(&[2]) }),
            "where that fails, the other one has its votes"
        );
        census.silence(node(2));
        assert!(is_restored(job(&census, &[1])));
    }

    #[test]
    fn where_somebody_has_to_do_something_it_is_said() {
        let census = census(&placed(&[1, 2, 3], None), &[1, 2, 3], |_, _| {});
        // Whether nothing is done, and why.
        let stuck = |there: &[Candidate], gone: &[u8], lost: &[u8]| {
            let cluster = Cluster {
                nodes: there,
                gone: &nodes(gone),
                lost: &nodes(lost),
                copies: 3,
            };
            let outlook = Outlook::new(&census, cluster);
            let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
            let (standing, job) = outlook.judge(VIDEO, row, &[]);
            (job.is_none(), outlook.stuck(row, standing))
        };
        let there = |of: &[u8]| of.iter().map(|n| candidate(*n)).collect::<Vec<_>>();
        assert_eq!(stuck(&there(&[1, 2, 3, 4]), &[], &[]), (true, None), "all is well");
        // Two of three are gone, and nobody said that they do not come back.
        assert_eq!(
            stuck(&there(&[1, 4]), &[2, 3], &[]),
            (true, Some(Stuck::Awaits(nodes(&[2, 3]))))
        );
        assert_eq!(
            stuck(&there(&[1, 4]), &[], &[]),
            (true, None),
            "they may be back in a moment"
        );
        assert!(!stuck(&there(&[1, 4]), &[], &[2, 3]).0, "it is salvaged");
        // One is to go, and there is no other.
        let mut some = there(&[1, 2, 3]);
        some[2].leaving = true;
        assert_eq!(stuck(&some, &[], &[]), (true, Some(Stuck::NowhereToGo)));
        some.push(candidate(4));
        assert!(!stuck(&some, &[], &[]).0, "it goes to the other one");
    }
}

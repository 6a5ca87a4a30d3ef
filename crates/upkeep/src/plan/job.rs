//! What comes next of one chunk, and why nothing does.

use vstack_placement::{MembersRequest, ShardsRequest, choose_members, choose_shards, losses_survived};
use vstack_types::{NodeRef, VideoId, planted};

use super::{Due, Job, Outlook, Stuck};
use crate::{
    census::{Item, Row, Seat},
    standing::{Form, Reach, Seen, Standing},
};

impl Outlook<'_> {
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
        if matches!(standing, Standing::Lost | Standing::OutOfReach) && !self.is_lent(video, row) {
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
        // What a node has stays there, whatever could not be brought to it.
        let has_all = |node: &NodeRef| {
            let mut items = row.items.iter().filter(|item| node_of(item) == Some(*node)).peekable();
            items.peek().is_some() && items.all(|item| item.seen == Seen::Whole)
        };
        gone.extend(avoided.iter().filter(|node| !has_all(node)));
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

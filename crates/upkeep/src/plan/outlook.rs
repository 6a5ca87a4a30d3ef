//! How chunks stand in their cluster: what was counted, beside who is there and who is to stay.

use std::collections::BTreeSet;

use vstack_placement::{Candidate, losses_survivable};
use vstack_types::{NodeRef, VideoId, planted};

use super::Cluster;
use crate::{
    census::{Census, Item, Part, Row, Seat},
    standing::{Copy, Form, Reach, Standing, standing, survives},
};

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
    /// Chunks of which somebody else has a whole copy.
    lent: Option<&'a BTreeSet<(VideoId, Part)>>,
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
            lent: None,
        }
    }

    /// With whole copies of these at nodes where they are not placed: what is lost where it is placed can be made of them.
    #[must_use]
    pub const fn with_lent(mut self, lent: &'a BTreeSet<(VideoId, Part)>) -> Self {
        self.lent = Some(lent);
        self
    }

    /// Whether somebody has a whole copy of a chunk that is not placed there.
    pub(crate) fn is_lent(&self, video: VideoId, row: &Row) -> bool {
        self.lent.is_some_and(|lent| lent.contains(&(video, row.part)))
    }

    pub(super) fn reach(&self, item: &Item) -> Reach {
        self.reach.get(usize::from(item.node)).copied().unwrap_or(Reach::Lost)
    }

    pub(crate) fn is_up(&self, item: &Item) -> bool {
        self.reach(item) == Reach::Up
    }

    /// Nobody waits for its node to tell what it has.
    pub(crate) fn is_given_up(&self, item: &Item) -> bool {
        matches!(self.reach(item), Reach::Gone | Reach::Lost)
    }

    pub(super) fn leaves(&self, item: &Item) -> bool {
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
        if row.doubtful {
            // Whatever its nodes have, it is not known whether it can be read.
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

    pub(super) fn standing_by<'i>(&self, form: Form, items: impl Iterator<Item = &'i Item>) -> Standing {
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
    /// none when it cannot be read now, or that is in doubt.
    pub fn survives(&self, row: &Row) -> Option<u32> {
        if row.doubtful {
            return None;
        }
        let there = survives(row.form, &self.copies(row.of_layout()));
        if row.joint {
            there.max(survives(row.prev_form, &self.copies(row.of_prev())))
        } else {
            there
        }
    }
}

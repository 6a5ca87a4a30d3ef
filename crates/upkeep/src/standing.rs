//! How one chunk stands: how many more nodes may be lost before it is, by what was counted.

use std::num::NonZeroU8;

use vstack_chunkpaxos::Layout;
use vstack_types::planted;

/// What is known of an item that a placement assigns to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Seen {
    /// Its node was not counted since the placement was learned.
    #[default]
    NotCounted,
    /// Its node has it.
    Whole,
    /// Its node has it, and its bytes are damaged.
    Damaged,
    /// Its node does not have it.
    Absent,
    /// Whatever its node has: it is listed as a shard of this chunk, and is none. No count finds that, but an audit does,
    /// and it stays so until something else is listed.
    Wrong,
}

impl Seen {
    /// What is known once a count or a message says `now`. No node can have the right bytes of what is listed wrongly.
    #[must_use]
    pub const fn then(self, now: Self) -> Self {
        match self {
            Self::Wrong => Self::Wrong,
            Self::NotCounted | Self::Whole | Self::Damaged | Self::Absent => now,
        }
    }
}

/// What is expected of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// It answers.
    Up,
    /// It has been silent for a while, and is waited for.
    Silent,
    /// It is not waited for any more, and may yet come back.
    Gone,
    /// It was taken out: it does not come back.
    Lost,
}

/// One item: what is known of it, and of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Which of the chunk's nodes has it; equal numbers are one node.
    pub node: u32,
    /// What is expected of that node.
    pub reach: Reach,
    /// What is known of the item.
    pub seen: Seen,
}

/// In which form a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Each item is the whole chunk.
    Replicated,
    /// Any `data` items give the chunk.
    Coded {
        /// Items that are needed.
        data: NonZeroU8,
    },
}

impl Form {
    /// That of a layout. What is deleted has none, and is in no census.
    pub fn of(layout: &Layout) -> Self {
        let data = match layout {
            Layout::Coded { data, .. } => NonZeroU8::new(*data),
            Layout::Replicated { .. } | Layout::Deleted { .. } => None,
        };
        data.map_or(Self::Replicated, |data| Self::Coded { data })
    }

    /// Items that are needed to read a chunk.
    pub const fn needed(self) -> usize {
        match self {
            Self::Replicated => 1,
            Self::Coded { data } => data.get() as usize,
        }
    }

    /// Bytes of one item of a chunk of `size` bytes.
    pub fn item_bytes(self, size: u32) -> u64 {
        u64::from(size).div_ceil(self.needed() as u64)
    }
}

/// How a chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Nothing is left that it could be read from.
    Lost,
    /// It cannot be read now, and may be when silent nodes return, or when those are counted that were not.
    OutOfReach,
    /// It can be read, and not any more after the next loss of a node.
    Endangered,
    /// It survives the loss of so many nodes, which is fewer than wanted.
    Under {
        /// Losses survived.
        survives: u32,
    },
    /// As many copies as wanted, and some of them were not counted yet.
    Uncounted,
    /// Everything that is wanted was counted, and is there.
    Whole,
}

/// How a chunk stands of which `copies` are known, when it is to survive the loss of `wanted` nodes.
pub fn standing(form: Form, copies: &[Copy], wanted: u32) -> Standing {
    let told = |copy: &&Copy| copy.reach == Reach::Up && matches!(copy.seen, Seen::Whole | Seen::NotCounted);
    let is_assumed = planted!("what was not counted counts as there");
    let here = |copy: &&Copy| told(copy) && (copy.seen == Seen::Whole || is_assumed);
    let hoped = |copy: &&Copy| copy.reach != Reach::Lost && matches!(copy.seen, Seen::Whole | Seen::NotCounted);
    let certain = survived(form, copies.iter().filter(here));
    if certain.is_some_and(|survives| survives >= wanted) {
        return Standing::Whole;
    }
    if survived(form, copies.iter().filter(told)).is_some_and(|survives| survives >= wanted) {
        return Standing::Uncounted;
    }
    match certain {
        Some(0) => Standing::Endangered,
        Some(survives) => Standing::Under { survives },
        None if survived(form, copies.iter().filter(hoped)).is_some() => Standing::OutOfReach,
        None => Standing::Lost,
    }
}

/// After the loss of how many nodes the items that were seen whole, at nodes that answer, still give the chunk; none when
/// they do not even now.
pub fn survives(form: Form, copies: &[Copy]) -> Option<u32> {
    let here = |copy: &&Copy| copy.reach == Reach::Up && copy.seen == Seen::Whole;
    survived(form, copies.iter().filter(here))
}

/// After the loss of how many nodes these items still give the chunk; none when they do not even now. Nodes with most
/// items are lost first.
fn survived<'a>(form: Form, copies: impl Iterator<Item = &'a Copy>) -> Option<u32> {
    let mut per_node: Vec<(u32, usize)> = Vec::new();
    for copy in copies {
        match per_node.iter_mut().find(|(node, _)| *node == copy.node) {
            Some((_, items)) => *items += 1,
            None => per_node.push((copy.node, 1)),
        }
    }
    per_node.sort_unstable_by_key(|(_, items)| std::cmp::Reverse(*items));
    let mut left: usize = per_node.iter().map(|(_, items)| items).sum();
    left.checked_sub(form.needed())?;
    let mut survives = 0;
    for (_, items) in per_node {
        left -= items;
        if left < form.needed() {
            break;
        }
        survives += 1;
    }
    Some(survives)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(node: u32, reach: Reach, seen: Seen) -> Copy {
        Copy { node, reach, seen }
    }

    fn up(node: u32) -> Copy {
        copy(node, Reach::Up, Seen::Whole)
    }

    #[test]
    fn copies_are_counted_and_never_assumed() {
        let of = |copies: &[Copy]| standing(Form::Replicated, copies, 2);
        assert_eq!(of(&[up(1), up(2), up(3)]), Standing::Whole);
        assert_eq!(of(&[up(1), up(2)]), Standing::Under { survives: 1 });
        assert_eq!(
            of(&[up(1), up(2), copy(3, Reach::Up, Seen::NotCounted)]),
            Standing::Uncounted
        );
        assert_eq!(
            of(&[up(1), up(2), copy(3, Reach::Silent, Seen::Whole)]),
            Standing::Under { survives: 1 },
            "what cannot be reached does not count"
        );
        assert_eq!(
            of(&[
                up(1),
                copy(2, Reach::Up, Seen::Damaged),
                copy(3, Reach::Up, Seen::Absent)
            ]),
            Standing::Endangered
        );
    }

    #[test]
    fn what_may_come_back_is_not_lost() {
        let of = |copies: &[Copy]| standing(Form::Replicated, copies, 2);
        let gone = copy(1, Reach::Lost, Seen::Whole);
        assert_eq!(of(&[gone, copy(2, Reach::Silent, Seen::Whole)]), Standing::OutOfReach);
        assert_eq!(of(&[gone, copy(2, Reach::Up, Seen::NotCounted)]), Standing::OutOfReach);
        assert_eq!(of(&[gone, copy(2, Reach::Silent, Seen::Damaged)]), Standing::Lost);
        let late = copy(1, Reach::Gone, Seen::Whole);
        assert_eq!(of(&[late]), Standing::OutOfReach, "however late it is");
        assert_eq!(of(&[]), Standing::Lost);
    }

    #[test]
    fn shards_on_one_node_are_lost_together() {
        let data = NonZeroU8::new(3).unwrap();
        let form = Form::Coded { data };
        let on = |nodes: &[u32]| nodes.iter().map(|node| up(*node)).collect::<Vec<_>>();
        assert_eq!(standing(form, &on(&[1, 2, 3, 4, 5]), 2), Standing::Whole);
        assert_eq!(standing(form, &on(&[1, 2, 3, 4]), 2), Standing::Under { survives: 1 });
        assert_eq!(standing(form, &on(&[1, 2, 3]), 2), Standing::Endangered);
        assert_eq!(
            standing(form, &on(&[1, 1, 2, 2, 3]), 2),
            Standing::Under { survives: 1 }
        );
        assert_eq!(standing(form, &on(&[1, 1, 2, 2, 3]), 1), Standing::Whole);
        assert_eq!(standing(form, &on(&[1, 2]), 2), Standing::Lost);
    }

    #[test]
    fn a_shard_that_is_none_of_the_chunk_counts_for_nothing_whatever_its_node_says() {
        let data = NonZeroU8::new(3).unwrap();
        let with_wrong = |wrong: u32| -> Vec<Copy> {
            let seen = |node| if node <= wrong { Seen::Wrong } else { Seen::Whole };
            (1..=5).map(|node| copy(node, Reach::Up, seen(node))).collect()
        };
        let of = |wrong| standing(Form::Coded { data }, &with_wrong(wrong), 2);
        let expected = [
            Standing::Whole,
            Standing::Under { survives: 1 },
            Standing::Endangered,
            Standing::Lost,
        ];
        assert_eq!([0, 1, 2, 3].map(of), expected);
        for now in [Seen::NotCounted, Seen::Whole, Seen::Damaged, Seen::Absent] {
            assert_eq!((Seen::Wrong.then(now), Seen::Whole.then(now)), (Seen::Wrong, now));
        }
    }
}
